"""The job `recalibrate` on a tiny world whose ledger holds a week of answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dagster import DagsterInstance

from registry.tracking import Tracking
from registry.versions import fetch_bundle, get_version, list_versions
from tests.pipelines.test_jobs import NAME, VARIABLES, _failure, _run
from tests.support import serving
from tests.support.trading_day import prediction
from tradewind.ledger import PredictionRecord, open_ledger
from tradewind.ledger.clock import set_replay_clock
from tradewind.models.bundle import ModelBundle
from tradewind.settings import MS_PER_DAY, load_settings

pytestmark = pytest.mark.slow
SYMBOLS = ("BTCUSDT", "ETHUSDT")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> serving.World:
    """A home with bars and one registered champion."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.delenv("TRADEWIND_DATA", raising=False)
    for name, value in {**VARIABLES, "TRADEWIND_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    serving.store_bars(settings)
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, serving.NOW_MS)
    world = serving.World(settings, Tracking(settings), tmp_path / "scratch")
    data = serving.training_set(settings)
    world.point(world.register(serving.fit_bundle(settings, data, "lightgbm", "POOLED", seed=1)))
    return world


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """An instance in memory."""
    with DagsterInstance.ephemeral() as held:
        yield held


def _answer(world: serving.World, *, days: int, overconfident: bool) -> None:
    """Log answers to every bar of the last days: a third too many are wrong at 0.9, or none."""
    samples = serving.training_set(world.settings).samples
    rng = np.random.default_rng(0)
    records = []
    for row in np.flatnonzero(samples.ts >= serving.NOW_MS - days * MS_PER_DAY):
        symbol, ts = samples.symbols[samples.symbol[row]], int(samples.ts[row])
        right = rng.random() < 0.6
        side = samples.y_up[row] if right else 1 - samples.y_up[row]
        distance = 0.4 if overconfident else 0.1
        said = prediction(symbol, ts, 0.5 + distance * (2 * side - 1)).model_copy(
            update={"model_type": "lightgbm", "model_version": f"{NAME}/1"}
        )
        records.append(PredictionRecord(said, "champion", 1.0, f"{symbol} {ts}"))
    with open_ledger(world.settings) as ledger:
        ledger.record_predictions(records)


def _recalibrate(instance: DagsterInstance) -> Any:
    return _run(instance, "recalibrate", "recalibrate_champions", {"families": ["lightgbm"]})


def test_overconfident_answers_give_a_new_version_behind_the_same_gates(
    world: serving.World, instance: DagsterInstance
) -> None:
    _answer(world, days=7, overconfident=True)
    done = _recalibrate(instance)
    assert done.success
    found = done.output_for_node("recalibrate_champions")[NAME]
    assert (found["outcome"], found["new_version"]) == ("registered", f"{NAME}/2")
    assert found["labels"] > 1000
    assert found["log_loss_minus_champion"] < -0.1
    version = get_version(world.tracking, NAME, version=2)
    # A week of one model's answers is no evidence for the gate that 6,000 rows are needed for.
    assert version.gates == "failed"
    assert "ece" in found["gates_failed"].split()
    assert {"champion", "finite", "artefact", "smoke"}.isdisjoint(found["gates_failed"].split())
    assert (version.aliases, found["alias"]) == ((), "none")
    assert version.tags["recalibrated_from"] == f"{NAME}/1"

    cache = world.settings.home / "models"
    old, new = (
        ModelBundle.load(fetch_bundle(world.tracking, NAME, version=number, cache_dir=cache))
        for number in (1, 2)
    )
    rows = serving.training_set(world.settings).samples.subset(np.arange(50))
    before, after = old.predict(rows, n_samples=2), new.predict(rows, n_samples=2)
    np.testing.assert_array_equal(before.mu, after.mu)
    assert np.abs(after.p_up - 0.5).mean() < 0.7 * np.abs(before.p_up - 0.5).mean()
    assert new.reference.low == old.reference.low

    # Again, at the same market time: the same version, and nothing more.
    assert _recalibrate(instance).output_for_node("recalibrate_champions")[NAME] == found
    assert len(list_versions(world.tracking, NAME)) == 2


def test_answers_that_need_no_update_change_nothing(
    world: serving.World, instance: DagsterInstance
) -> None:
    _answer(world, days=7, overconfident=False)
    found = _recalibrate(instance).output_for_node("recalibrate_champions")[NAME]
    assert (found["outcome"], found["update"]) == ("kept", "identity")
    assert len(list_versions(world.tracking, NAME)) == 1


def test_too_few_labels_are_refused(world: serving.World, instance: DagsterInstance) -> None:
    _answer(world, days=1, overconfident=True)
    done = _recalibrate(instance)
    assert not done.success
    assert "not_enough_labels" in _failure(done)
