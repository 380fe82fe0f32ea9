"""The job `recalibrate` on a small market that can be foretold, with a champion's real answers."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from dagster import DagsterEventType, DagsterInstance

import registry
from registry.aliases import promote, rollback
from registry.tracking import Tracking
from registry.versions import (
    RegisteredVersion,
    fetch_bundle,
    find_alias,
    get_version,
    list_versions,
)
from tests.pipelines.test_jobs import NAME, VARIABLES, _failure, _run
from tests.support import serving
from tests.support.synthetic import START_MS
from tests.support.trading_day import prediction
from tradewind.ledger import PredictionRecord, open_ledger
from tradewind.ledger.clock import set_replay_clock
from tradewind.market.active import store_for
from tradewind.models import metrics as m
from tradewind.models.base import FloatArray, Samples
from tradewind.models.bundle import BUNDLE_FILE, ModelBundle
from tradewind.models.calibration import Calibrator, fit_calibrator
from tradewind.models.dataset import TrainingSet, build_training_set
from tradewind.models.live_calibration import updated
from tradewind.settings import MS_PER_DAY, Settings, load_settings

pytestmark = pytest.mark.slow

REPOSITORY = Path(registry.__file__).resolve().parent.parent
SYMBOLS = ("BTCUSDT", "ETHUSDT")
STEP = 900_000
ECE_GATE = 0.065
TRAINED, NOW, LAST = (START_MS + bar * STEP for bar in (1000, 2000, 2500))
SIZES = {
    **VARIABLES,
    "TRADEWIND_TRAINING": json.dumps(
        {"days_back": 20, "judge_passes": 2, "horizon": 1, "bag": 2, "bootstrap_samples": 200}
    ),
    "TRADEWIND_BOOSTED": '{"max_rounds": 40, "early_stopping_rounds": 10}',
    # Days of answers, not months: so few rows of a perfect model show an ECE of 0.037.
    "TRADEWIND_CALIBRATION": json.dumps({"min_gate_rows": 1500, "ece_gate": ECE_GATE}),
    "OMP_NUM_THREADS": "1",
}
CRASHER = """
import os, signal
from registry import aliases

aliases.promote_candidate = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)

from assets.steps.recalibrate import recalibrate_champion
from assets.units import Unit
from tradewind.ledger.clock import open_clock
from tradewind.settings import load_settings

settings = load_settings()
recalibrate_champion(settings, open_clock(settings), Unit("lightgbm", "POOLED"))
"""


def _bars(seed: int, price: float) -> pl.DataFrame:
    """Return bars whose returns follow one another, calm and wild by turns."""
    rng = np.random.default_rng(seed)
    count = (LAST - START_MS) // STEP
    spread = 0.002 * np.exp(np.sin(np.arange(count) / 60 + seed))
    shocks = rng.normal(0, 1, count) * spread
    returns = np.zeros(count)
    for bar in range(1, count):
        returns[bar] = 0.5 * returns[bar - 1] + shocks[bar]
    close = price * np.exp(np.cumsum(returns))
    open_ = np.concatenate([[price], close[:-1]])
    wick = np.abs(rng.normal(0, 0.3, count)) * spread * close
    return pl.DataFrame(
        {
            "ts": START_MS + np.arange(count, dtype=np.int64) * STEP,
            "open": open_,
            "high": np.maximum(open_, close) + wick,
            "low": np.minimum(open_, close) - wick,
            "close": close,
            "volume": rng.lognormal(3, 1, count),
        }
    )


def _environment(patch: pytest.MonkeyPatch, home: Path) -> None:
    patch.delenv("TRADEWIND_DATA", raising=False)
    for name, value in {**SIZES, "TRADEWIND_HOME": str(home)}.items():
        patch.setenv(name, value)


def _known(settings: Settings, now_ms: int) -> TrainingSet:
    return build_training_set(settings, store_for(settings), now_ms, symbols=SYMBOLS)


def _rows(settings: Settings, start_ms: int, end_ms: int) -> Samples:
    """Return the labelled rows of bars in [start, end), as they are known in the end."""
    samples = _known(settings, LAST).samples
    return samples.subset((samples.ts >= start_ms) & (samples.ts < end_ms))


@dataclasses.dataclass
class Live:
    """A home with bars, a forecaster that is worth something, and its own calibrator."""

    world: serving.World
    bundle: ModelBundle

    def champion(self, calibrator: Calibrator) -> None:
        """Register the forecaster with a calibrator, and let it answer until now."""
        champion = dataclasses.replace(self.bundle, calibrator=calibrator)
        self.world.point(self.world.register(champion))
        with open_ledger(self.world.settings) as ledger:
            ledger.record_predictions(_answers(champion, self.rows(TRAINED, NOW)))

    def rows(self, start_ms: int, end_ms: int) -> Samples:
        """Return labelled rows of the market."""
        return _rows(self.world.settings, start_ms, end_ms)

    def version(self, number: int) -> ModelBundle:
        """Return the files of a registered version."""
        return ModelBundle.load(self.folder(number))

    def folder(self, number: int) -> Path:
        """Return where the files of a registered version are."""
        cache = self.world.settings.home / "models"
        return fetch_bundle(self.world.tracking, NAME, version=number, cache_dir=cache)


def _answers(bundle: ModelBundle, rows: Samples) -> list[PredictionRecord]:
    said = bundle.predict(rows, n_samples=2).p_up
    return [
        PredictionRecord(
            prediction(rows.symbols[code], int(ts), float(p)).model_copy(
                update={"model_type": "lightgbm", "model_version": f"{NAME}/1"}
            ),
            "champion",
            1.0,
            f"{code} {ts}",
        )
        for code, ts, p in zip(rows.symbol, rows.ts, said, strict=True)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelBundle]:
    """A home with bars of 26 days, and a forecaster made on the first ten."""
    home = tmp_path_factory.mktemp("recalibrate") / "home"
    with pytest.MonkeyPatch.context() as patch:
        _environment(patch, home)
        settings = load_settings()
        store = store_for(settings)
        for seed, symbol in enumerate((*SYMBOLS, "SOLUSDT")):
            store.write_bars(symbol, "15m", _bars(seed, 100.0 * (seed + 1)))
        Tracking(settings)  # the database's tables, once
        data = _known(settings, TRAINED)
        bundle = serving.fit_bundle(settings, data, "lightgbm", "POOLED", seed=1)
    half = data.samples.subset(data.samples.ts >= np.median(data.samples.ts))
    p_raw = bundle.predict(half, n_samples=2).p_up
    meta = bundle.meta.model_copy(update={"data_end_ms": TRAINED, "created_ms": TRAINED})
    calibrator = fit_calibrator(p_raw, half.y_up, ts=half.ts).calibrator
    return home, dataclasses.replace(bundle, meta=meta, calibrator=calibrator)


@pytest.fixture
def live(made: tuple[Path, ModelBundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    """A copy of that home for one test; it is the 21st day now."""
    home, bundle = made
    (tmp_path / "scratch").mkdir()
    shutil.copytree(home, tmp_path / "home")
    _environment(monkeypatch, tmp_path / "home")
    settings = load_settings()
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, NOW)
    return Live(serving.World(settings, Tracking(settings), tmp_path / "scratch"), bundle)


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """An instance in memory."""
    with DagsterInstance.ephemeral() as held:
        yield held


def _recalibrate(instance: DagsterInstance) -> Any:
    return _run(instance, "recalibrate", "recalibrate_champions", {"families": ["lightgbm"]})


def _doubled(calibrator: Calibrator) -> Calibrator:
    """Return the map whose logits are twice those of ``calibrator``."""
    return updated(calibrator, Calibrator("temperature", (2.0,)))


def _losses(bundle: ModelBundle, rows: Samples) -> tuple[float, float]:
    p: FloatArray = bundle.predict(rows, n_samples=2).p_up
    return m.log_loss(p, rows.y_up), m.ece(p, rows.y_up, 15)


def _alias(live: Live, alias: str) -> RegisteredVersion | None:
    return find_alias(live.world.tracking, NAME, alias)


def test_doubled_logits_are_taken_back_in_a_version_of_the_same_forecaster(
    live: Live, instance: DagsterInstance
) -> None:
    live.champion(_doubled(live.bundle.calibrator))
    tracking = live.world.tracking

    # Killed once the version stands and before it has its alias: the champion serves on.
    done = subprocess.run([sys.executable, "-c", CRASHER], cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [(v.version, v.aliases) for v in list_versions(tracking, NAME)] == [
        (2, ()),
        (1, ("champion",)),
    ]

    run = _recalibrate(instance)
    assert run.success
    found = run.output_for_node("recalibrate_champions")[NAME]
    assert (found["outcome"], found["new_version"]) == ("registered", f"{NAME}/2")
    assert (found["gates"], found["gates_failed"], found["alias"]) == (
        *("passed", "none", "challenger"),
    )
    assert found["labels"] == 2 * (7 * 96 - 1)  # the last bar's outcome is not known yet
    assert found["log_loss_minus_champion"] < -0.01
    assert found["ece"] < ECE_GATE < found["ece_as_served"]
    assert min(found["log_loss_temperature"], found["log_loss_platt"]) < found["log_loss_identity"]
    (event,) = [
        event for event in run.all_events if event.event_type is DagsterEventType.ASSET_OBSERVATION
    ]
    shown = event.asset_observation_data.asset_observation.metadata
    assert shown["version"].value == f"{NAME}/1"
    assert [record.data["gate"] for record in shown["verdicts"].records] == [
        *("skill", "ece", "champion", "uncertainty", "finite", "artefact", "smoke"),
    ]

    # Again at the same market time: the same version, and nothing more.
    again = _recalibrate(instance).output_for_node("recalibrate_champions")[NAME]
    assert again == found
    assert len(list_versions(tracking, NAME)) == 2
    runs = tracking.search("tags.kind = 'recalibration'")
    assert [(r.info.status, r.data.tags["alias"]) for r in runs] == [("FINISHED", "challenger")]

    version = get_version(tracking, NAME, version=2)
    assert version.tags["recalibrated_from"] == f"{NAME}/1"
    old, new = live.version(1), live.version(2)
    digests = [
        {
            name: digest
            for name, digest in json.loads((live.folder(n) / BUNDLE_FILE).read_text())[
                "files"
            ].items()
            if name.startswith("forecaster/")
        }
        for n in (1, 2)
    ]
    assert digests[0] == digests[1] != {}
    assert new.meta.created_ms == old.meta.created_ms
    assert new.meta.data_end_ms == old.meta.data_end_ms
    assert new.meta.seen_until_ms == NOW

    after = live.rows(NOW, LAST)
    assert len(after) > 900
    (old_loss, old_ece), (new_loss, new_ece) = _losses(old, after), _losses(new, after)
    assert new_loss < old_loss - 0.005
    assert new_ece < old_ece - 0.01

    # Released and taken back: the forecaster is the same all along, its calibrator the former.
    promote(tracking, NAME, 2, who="ann", why="calibrated")
    assert _recalibrate(instance).output_for_node("recalibrate_champions")[NAME] == {
        **found,
        "alias": "champion",
    }
    rollback(tracking, NAME, who="ann", why="a drill")
    champion = _alias(live, "champion")
    assert champion is not None
    assert champion.version == 1
    assert live.version(champion.version).calibrator == old.calibrator != new.calibrator


def test_a_calibrated_champion_is_kept(live: Live, instance: DagsterInstance) -> None:
    live.champion(live.bundle.calibrator)
    found = _recalibrate(instance).output_for_node("recalibrate_champions")[NAME]
    assert (found["outcome"], found["update"]) == ("kept", "identity")
    assert len(list_versions(live.world.tracking, NAME)) == 1


def test_too_few_outcomes_are_refused(live: Live, instance: DagsterInstance) -> None:
    live.champion(_doubled(live.bundle.calibrator))
    with open_ledger(live.world.settings) as ledger:
        set_replay_clock(ledger, TRAINED + MS_PER_DAY)
    done = _recalibrate(instance)
    assert not done.success
    assert "not_enough_labels: 190 realised labels" in _failure(done)
    assert len(list_versions(live.world.tracking, NAME)) == 1


def test_answers_about_bars_that_made_the_model_are_no_evidence(
    live: Live, instance: DagsterInstance
) -> None:
    meta = live.bundle.meta.model_copy(update={"data_end_ms": NOW - MS_PER_DAY})
    live.bundle = dataclasses.replace(live.bundle, meta=meta)
    live.champion(_doubled(live.bundle.calibrator))
    done = _recalibrate(instance)
    assert "not_enough_labels: 190 realised labels" in _failure(done)
