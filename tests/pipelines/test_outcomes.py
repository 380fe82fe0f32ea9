"""The job `outcomes`: what came of answers, by version and alias, in Dagster and in MLflow."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dagster import DagsterEventType, DagsterInstance
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.launch import resolve_job
from registry.aliases import promote
from registry.tracking import Tracking
from registry.versions import register_bundle
from tests.support import serving
from tests.support.registered import EXAMPLE, OUTPUT, write_bundle
from tests.support.synthetic import START_MS
from tests.support.trading_day import prediction
from tradewind.ledger import PredictionRecord, open_ledger
from tradewind.ledger.clock import set_replay_clock
from tradewind.market.active import store_for
from tradewind.settings import MS_PER_DAY, Settings, load_settings

NAME = "tradewind.lightgbm.POOLED"
STEP = 900_000
START = START_MS + 6 * MS_PER_DAY
BARS = (serving.NOW_MS - START) // STEP
VARIABLES = {
    "TRADEWIND_CLOCK": "replay",
    "TRADEWIND_MARKET": (
        '{"symbols": ["BTCUSDT", "ETHUSDT"],'
        ' "reference_symbols": ["BTCUSDT", "ETHUSDT", "SOLUSDT"]}'
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with bars and one champion, whose data ends some days before now."""
    root = tmp_path_factory.mktemp("outcomes")
    settings = load_settings(home=root / "home", data=None, clock="replay")
    serving.store_bars(settings)
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, serving.NOW_MS)
    tracking = Tracking(settings)
    with tracking.start_run("train") as run:
        version = register_bundle(
            tracking,
            write_bundle(root / "bundle", NAME),
            run_id=run.run_id,
            name=NAME,
            input_example=EXAMPLE,
            output_example=OUTPUT,
            tags={"gates": "passed"},
        )
    promote(tracking, NAME, version.version, who="test", why="a champion to look at")
    for tag, value in {"data_end_ms": START, "base_rate": 0.4}.items():
        tracking.client.set_model_version_tag(NAME, str(version.version), tag, str(value))
    return root / "home"


@pytest.fixture
def settings(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A copy of that home."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.delenv("TRADEWIND_DATA", raising=False)
    for name, value in {**VARIABLES, "TRADEWIND_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    return load_settings()


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """An instance in memory."""
    with DagsterInstance.ephemeral() as held:
        yield held


def _answer(settings: Settings, *, sure: float, version: str = f"{NAME}/1", **changes: Any) -> None:
    """Log an answer to every bar of the last days: right with ``sure``, as it turned out."""
    store, rng = store_for(settings), np.random.default_rng(3)
    records = []
    for symbol in ("BTCUSDT", "ETHUSDT"):
        bars = store.read_bars(symbol, "15m", until_ms=serving.NOW_MS, start_ms=START - MS_PER_DAY)
        close = dict(zip(bars["ts"].to_list(), bars["close"].to_list(), strict=True))
        for ts in close:
            rises = close.get(ts + 16 * STEP, close[ts]) > close[ts]
            p = np.clip((sure if rises else 1 - sure) + rng.normal(0, 0.02), 0.01, 0.99)
            said = prediction(symbol, ts, float(p), mu_low=-1.0, mu_high=1.0).model_copy(
                update={"model_type": "lightgbm", "model_version": version, **changes}
            )
            role = "champion" if said.served_by == "champion" else "shadow"
            records.append(PredictionRecord(said, role, 1.0, f"{version} {said.served_by} {ts}"))  # type: ignore[arg-type]
    with open_ledger(settings) as ledger:
        ledger.record_predictions(records)


def _outcomes(instance: DagsterInstance) -> Any:
    done = resolve_job("outcomes").execute_in_process(instance=instance, raise_on_error=True)
    return done, done.output_for_node("measure_answers")


def _history(settings: Settings) -> dict[str, list[tuple[int, int, float]]]:
    tracking = Tracking(settings)
    found = {}
    for run in tracking.search("tags.kind = 'live'"):
        for name in run.data.metrics:
            points = tracking.client.get_metric_history(run.info.run_id, name)
            key = f"{run.data.tags['alias']} {name}"
            found[key] = sorted((p.step, p.timestamp, p.value) for p in points)
    return found


def test_every_version_and_alias_is_measured_and_logged_once(
    settings: Settings, instance: DagsterInstance
) -> None:
    _answer(settings, sure=0.6)
    _answer(settings, sure=0.45, served_by="challenger", epistemic_p=0.5)
    _answer(settings, sure=0.6, version="tradewind.lightgbm.POOLED/77")
    done, rows = _outcomes(instance)

    assert [(row["version"], row["alias"], row["window_days"]) for row in rows] == [
        (f"{NAME}/1", alias, days) for alias in ("challenger", "champion") for days in (1, 7, 30)
    ]
    good, bad = rows[4], rows[1]
    # Bars before the version's data ended say nothing; the last 17 have no closed label.
    assert good["labels"] == bad["labels"] == 2 * (BARS - 16)
    assert good["log_loss"] < 0.55 < 0.75 < bad["log_loss"]
    assert good["auc"] > 0.99
    assert bad["auc"] < 0.2
    assert good["coverage"] == 1.0
    assert (good["abstain_share"], bad["abstain_share"]) == (0.0, 1.0)
    assert good["log_loss_base_rate"] != pytest.approx(np.log(2), abs=1e-4)  # 0.4 of the version
    said = [entry.user_message for entry in instance.all_logs(done.run_id)]
    assert any(f"{NAME}/77 answered and is not registered" in line for line in said)

    (event,) = [
        event for event in done.all_events if event.event_type is DagsterEventType.ASSET_OBSERVATION
    ]
    seen = event.asset_observation_data.asset_observation
    assert (seen.asset_key.to_user_string(), seen.partition) == ("lightgbm/evaluation", "POOLED")
    assert len(seen.metadata["rows"].records) == 6
    assert seen.metadata["live_over_time"].value.startswith("![live_over_time](data:image/png")

    logged = _history(settings)
    points = logged["champion live_7d_log_loss"]
    midnights = range(START + MS_PER_DAY, serving.NOW_MS + 1, MS_PER_DAY)
    assert [(step, at) for step, at, _ in points] == [(at // MS_PER_DAY, at) for at in midnights]
    assert points[-1][2] == pytest.approx(good["log_loss"], abs=2e-3)
    (run,) = Tracking(settings).search("tags.kind = 'live' and tags.alias = 'champion'")
    assert run.data.tags["mlflow.parentRunId"]
    assert run.info.status == "FINISHED"

    again, repeated = _outcomes(instance)
    assert repeated == rows
    assert again.output_for_node("fill_outcomes")["outcomes"] == 0
    assert _history(settings) == logged
    # Killed before it was noted how far the points reach: they are the same points again.
    Tracking(settings).client.set_tag(run.info.run_id, "live_until_ms", "0")
    _outcomes(instance)
    assert _history(settings) == logged


def test_the_command_prints_a_table_a_version(settings: Settings) -> None:
    _answer(settings, sure=0.6)
    shown = CliRunner().invoke(app, ["outcomes"])
    assert shown.exit_code == 0, shown.output
    assert f"{NAME}/1 as champion" in shown.output
    assert "log_loss_base_rate" in shown.output


def test_nothing_said_is_no_failure(settings: Settings, instance: DagsterInstance) -> None:
    done, rows = _outcomes(instance)
    assert done.success
    assert rows == []
