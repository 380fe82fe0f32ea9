"""Retraining from Dagster's pages: the form, limits, cancel, retry, and the sensor's requests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry.tracking import Tracking
from registry.versions import RegisteredVersion, list_versions
from tests.pipelines.conftest import TINY
from tests.support.dagster_ui import REPOSITORY, Ui, until, web_and_daemon
from tradewind.ledger import LedgerClock, open_ledger, set_replay_clock
from tradewind.settings import load_settings

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(1500)]
POOL_STEPS = ("fit_unit", "walk_forward_unit", "evaluate_unit")
POOL_LIMIT = 2
RACE_S = 0.1
"""Dagster's claim of a slot locks nothing in SQLite: two steps that ask at once may both get it."""
MS_PER_HOUR = 3_600_000
BOOSTED = ("tradewind.lightgbm.BTCUSDT", "tradewind.lightgbm.ETHUSDT")
DEEP = "tradewind.transformer.POOLED"
SLOWER = json.dumps({**json.loads(TINY["TRADEWIND_TRAINING"]), "max_epoch_samples": 3000})
VARIABLES = {
    **TINY,
    "TRADEWIND_TRAINING": SLOWER,
    # A quarter of an hour makes a champion too old, so that the sensor soon has a reason.
    "TRADEWIND_REGISTRY__MAX_MODEL_AGE_DAYS": "0.01",
    "TRADEWIND_RETRAIN_TRIGGERS": '{"check_s": 30}',
}
FORM = """
query ($selector: PipelineSelector!) {
  pipelineOrError(params: $selector) { ... on Pipeline { presets { name runConfigYaml } } }
}
"""
LIMITS = """
query { instance { concurrencyLimits { concurrencyKey activeSlotCount pendingStepCount } } }
"""
START_SENSOR = """
mutation ($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename ... on PythonError { message } }
}
"""
STOP_SENSOR = """
mutation ($id: String!) { stopSensor(id: $id) { __typename ... on PythonError { message } } }
"""
SENSOR = """
query ($selector: SensorSelector!) {
  sensorOrError(sensorSelector: $selector) {
    ... on Sensor { id sensorState { id status ticks(limit: 5) { status runIds skipReason } } }
  }
}
"""


@pytest.fixture(scope="module")
def ui(ingested: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """Web server and daemon for all of this file; each test trains models of its own."""
    root = tmp_path_factory.mktemp("ui")
    home = root / "home"
    shutil.copytree(ingested, home)
    with (
        pytest.MonkeyPatch.context() as patch,
        web_and_daemon(home, root, **VARIABLES) as found,
    ):
        patch.setenv("DAGSTER_HOME", "")
        yield found


@pytest.fixture(scope="module")
def two_at_once(ui: Ui) -> tuple[str, str]:
    """Two whole retrainings of an overlapping choice, asked for at the same time, both ended."""
    small: dict[str, Any] = {
        "families": ["lightgbm"],
        "days_back": 40,
        "allow_failed_gates": True,
    }
    first = ui.retrain(symbols=["BTCUSDT", "ETHUSDT"], **small)
    second = ui.retrain(symbols=["BTCUSDT"], **small)
    third = ui.retrain(symbols=["BTCUSDT"], **small)
    until(lambda: ui.status(second) != "QUEUED", "the second run's start", 300)
    assert ui.status(third) == "QUEUED", "a third retraining did not wait"
    ui.terminate(third)
    assert ui.ended(third) == "CANCELED"
    assert ui.ended(first) == "SUCCESS"
    assert ui.ended(second) == "SUCCESS"
    return first, second


def test_the_form_is_filled_in_with_the_settings(ui: Ui) -> None:
    selector = {**REPOSITORY, "pipelineName": "retrain"}
    (preset,) = ui.ask(FORM, selector=selector)["pipelineOrError"]["presets"]
    shown = yaml.safe_load(preset["runConfigYaml"])["ops"]["plan_units"]["config"]
    assert shown == {
        "symbols": [],
        "families": ["lightgbm", "transformer"],
        "days_back": 40,
        "epochs": 2,
        "seed": 7,
        "allow_failed_gates": False,
    }


def test_a_family_that_does_not_exist_is_refused_at_the_launch(ui: Ui) -> None:
    wrong = {"ops": {"plan_units": {"config": {"families": ["oracle"]}}}}
    answer = ui.launch("retrain", wrong)
    assert answer["__typename"] == "RunConfigValidationInvalid"
    assert "oracle" in answer["errors"][0]["message"]


def test_two_at_once_share_the_pool(ui: Ui, two_at_once: tuple[str, str]) -> None:
    steps = [
        step
        for run_id in two_at_once
        for step in ui.steps(run_id)
        if step["stepKey"].split("[")[0] in POOL_STEPS
    ]
    assert len(steps) == 3 * len(POOL_STEPS)
    together = [
        sorted(s["startTime"] for s in steps if s["startTime"] <= at < s["endTime"])
        for at in [step["startTime"] for step in steps]
    ]
    for running in together:
        raced = sum(later - earlier < RACE_S for earlier, later in pairwise(running))
        assert len(running) - raced <= POOL_LIMIT, running
    most = max(len(running) for running in together)
    assert most >= POOL_LIMIT, "nothing ran side by side: the limit was not tried"
    ends = {run: max(s["endTime"] for s in ui.steps(run)) for run in two_at_once}
    begins = {run: min(s["startTime"] for s in ui.steps(run)) for run in two_at_once}
    assert max(begins.values()) < min(ends.values()), "the runs did not overlap"


def test_two_at_once_leave_one_version_a_unit(ui: Ui, two_at_once: tuple[str, str]) -> None:
    assert two_at_once[0] != two_at_once[1]
    for name in BOOSTED:
        (version,) = _versions(ui, name)
        assert "champion" in version.aliases
    assert _open_tracking_runs(ui) == []
    assert _slots(ui) == 0


def test_cancelled_in_a_fit_and_retried_from_failure(ui: Ui) -> None:
    run_id = ui.retrain(families=["transformer"], days_back=40, epochs=6)
    until(lambda: ui.said(run_id, f"{DEEP} fit 2 "), "the second epoch", 480)
    ui.terminate(run_id)
    assert ui.ended(run_id) == "CANCELED"
    _assert_nothing_half_written(ui)

    again = ui.again(run_id)
    assert ui.ended(again) == "SUCCESS"
    repeated = {step["stepKey"].split("[")[0] for step in ui.steps(again)}
    assert "fit_unit" in repeated
    assert not repeated & {"plan_units", "prepare_unit"}, "finished steps were done again"
    (version,) = _versions(ui, DEEP)
    settings = load_settings(home=ui.home)
    tracking = Tracking(settings)
    epochs = [
        metric.step for metric in tracking.client.get_metric_history(version.run_id, "train_loss")
    ]
    assert sorted(epochs) == list(range(1, 7)), "the fit did not continue from its checkpoint"
    assert not ui.said(again, f"{DEEP} fit 1 ")
    assert ui.said(again, f"{DEEP}: MLflow run {version.run_id}")
    assert _open_tracking_runs(ui) == []
    assert _slots(ui) == 0


def test_the_sensor_asks_on_a_tick_of_the_daemon(ui: Ui, two_at_once: tuple[str, str]) -> None:
    assert two_at_once
    with open_ledger(load_settings(home=ui.home)) as ledger:
        set_replay_clock(ledger, LedgerClock(ledger).now_ms() + MS_PER_HOUR)
    selector = {**REPOSITORY, "sensorName": "retrain_when_needed"}
    started = ui.ask(START_SENSOR, selector=selector)["startSensor"]
    assert started["__typename"] == "Sensor", started

    def ticks() -> list[dict[str, Any]]:
        found = ui.ask(SENSOR, selector=selector)["sensorOrError"]["sensorState"]["ticks"]
        return [tick for tick in found if tick["status"] != "STARTED"]

    until(lambda: bool(ticks()), "a tick of the sensor", 300)
    sensor = ui.ask(SENSOR, selector=selector)["sensorOrError"]
    ui.ask(STOP_SENSOR, id=sensor["sensorState"]["id"])
    tick = ticks()[-1]
    assert tick["status"] == "SUCCESS", tick
    assert tick["runIds"]
    for run_id in tick["runIds"]:
        assert "days old, limit 0.01" in ui.tags(run_id)["tradewind/reason"]
        if ui.status(run_id) not in ("SUCCESS", "FAILURE"):
            ui.terminate(run_id)
    for run_id in tick["runIds"]:
        assert ui.ended(run_id) in ("CANCELED", "SUCCESS")


def _versions(ui: Ui, name: str) -> list[RegisteredVersion]:
    return list_versions(Tracking(load_settings(home=ui.home)), name)


def _open_tracking_runs(ui: Ui) -> list[Any]:
    tracking = Tracking(load_settings(home=ui.home))
    return list(
        tracking.client.search_runs([tracking.experiment_id], "attributes.status = 'RUNNING'")
    )


def _slots(ui: Ui) -> int:
    limits = ui.ask(LIMITS)["instance"]["concurrencyLimits"]
    assert limits
    return sum(item["activeSlotCount"] + item["pendingStepCount"] for item in limits)


def _assert_nothing_half_written(ui: Ui) -> None:
    """Assert what a cancelled fit must leave: a checkpoint, and nothing that looks finished."""
    until(lambda: not _open_tracking_runs(ui), "the MLflow runs' end", 30)
    until(lambda: _slots(ui) == 0, "free pool slots", 90)
    assert _versions(ui, DEEP) == []
    (work,) = (ui.home / "work" / "transformer" / "POOLED").iterdir()
    assert (work / "training_set" / "done.json").exists()
    assert not (work / "bundle").exists()
    assert list(work.rglob("*.tmp")) == []
