"""The retrain job, run as a person runs it, on real bars in tiny sizes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.conftest import ROOT, TINY, Run, command, environment
from tradewind.settings import Settings, load_settings

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(900)]
GATES = {"skill", "ece", "champion", "uncertainty", "finite", "artefact", "smoke"}


def _settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in TINY.items():
        monkeypatch.setenv(name, value)
    return load_settings(home=home)


def _instance(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    from dagster import DagsterInstance

    monkeypatch.setenv("DAGSTER_HOME", str(settings.home / "dagster"))
    return DagsterInstance.get()


def _slots(instance: Any) -> int:
    storage = instance.event_log_storage
    return sum(
        len(storage.get_concurrency_info(key).claimed_slots)
        for key in storage.get_concurrency_keys()
    )


def test_end_to_end_and_again(home: Path, tradewind: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tradewind("train", "--allow-failed-gates", "--json", home=home, **TINY)
    assert first.returncode == 0, first.stderr[-3000:]
    outcome = json.loads(first.stdout)
    assert outcome["success"]
    assert outcome["errors"] == []
    names = {item["name"] for item in outcome["candidates"]}
    assert names == {"tradewind.lightgbm.POOLED", "tradewind.transformer.POOLED"}
    assert all(item["alias"] == "champion" for item in outcome["candidates"])
    assert all(0 < item["metrics"]["auc"] < 1 for item in outcome["candidates"])

    settings = _settings(home, monkeypatch)
    instance = _instance(settings, monkeypatch)
    _assert_on_the_graph(instance, outcome["run_id"])
    _assert_tracked(settings, outcome)
    assert _slots(instance) == 0

    again = tradewind("train", "--allow-failed-gates", "--json", home=home, **TINY)
    assert again.returncode == 0, again.stderr[-3000:]
    repeated = json.loads(again.stdout)
    assert [(c["name"], c["version"]) for c in repeated["candidates"]] == [
        (c["name"], c["version"]) for c in outcome["candidates"]
    ]


def _assert_on_the_graph(instance: Any, run_id: str) -> None:
    from dagster import DagsterEventType

    logs = instance.all_logs(run_id)
    events = [entry.dagster_event for entry in logs if entry.dagster_event]
    made = {
        (event.asset_key.to_user_string(), event.partition)
        for event in events
        if event.event_type is DagsterEventType.ASSET_MATERIALIZATION
    }
    for family in ("lightgbm", "transformer"):
        for stage in ("training_set", "model", "evaluation", "drift", "promotion"):
            assert (f"{family}/{stage}", "POOLED") in made
    checks = [
        event.event_specific_data
        for event in events
        if event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION
    ]
    gates = {c.check_name for c in checks if c.asset_key.path == ["lightgbm", "evaluation"]}
    assert gates == GATES
    assert {check.partition for check in checks} == {"POOLED"}
    verdicts = {c.check_name: c.passed for c in checks if c.asset_key.path[0] == "lightgbm"}
    assert verdicts["artefact"]
    assert verdicts["smoke"]
    epochs = [entry.user_message for entry in logs if " fit 1 " in entry.user_message]
    assert any("transformer" in line for line in epochs)


def _assert_tracked(settings: Settings, outcome: dict[str, Any]) -> None:
    from registry.tracking import Tracking
    from registry.versions import get_version

    tracking = Tracking(settings)
    for item in outcome["candidates"]:
        version = get_version(tracking, item["name"], version=item["version"])
        run = tracking.client.get_run(version.run_id)
        assert run.info.status == "FINISHED"
        assert run.data.metrics["auc"] == pytest.approx(item["metrics"]["auc"])
        assert len(tracking.client.get_metric_history(version.run_id, "valid_log_loss")) >= 2
        assert version.tags["dagster_run_id"] == outcome["run_id"]
        assert "Gates" in version.description


def test_gates_that_fail_leave_a_run_that_succeeds(
    home: Path, tradewind: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster import DagsterEventType

    strict = {**TINY, "TRADEWIND_CALIBRATION": '{"min_gate_rows": 1000000}'}
    done = tradewind("train", "-f", "lightgbm", "--json", home=home, **strict)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout)
    assert outcome["success"]
    (candidate,) = outcome["candidates"]
    assert candidate["gates"] == "failed"
    assert candidate["alias"] is None
    assert any("1000000 out-of-sample" in reason for reason in candidate["failed"])

    instance = _instance(_settings(home, monkeypatch), monkeypatch)
    events = [entry.dagster_event for entry in instance.all_logs(outcome["run_id"])]
    checks = {
        event.event_specific_data.check_name: event.event_specific_data.passed
        for event in events
        if event and event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION
    }
    assert checks["ece"] is False
    assert checks["artefact"] is True
    made = [event.asset_key.path[-1] for event in events if event and event.is_step_materialization]
    assert "evaluation" in made
    assert "promotion" not in made


def test_a_broken_unit_does_not_stop_the_others(home: Path, tradewind: Run) -> None:
    (bars,) = home.glob("store/*/15m/ETHUSDT")
    broken = bars.with_name("XRPUSDT")
    shutil.copytree(bars, broken)
    sorted(broken.glob("*.parquet"))[-1].write_bytes(b"not parquet")
    variables = {**TINY, "TRADEWIND_MARKET": '{"symbols": ["BTCUSDT", "XRPUSDT"]}'}
    training = json.loads(TINY["TRADEWIND_TRAINING"])
    variables["TRADEWIND_TRAINING"] = json.dumps({**training, "pooled_families": []})
    done = tradewind("train", "-f", "lightgbm", "--json", home=home, **variables)
    assert done.returncode == 1
    outcome = json.loads(done.stdout)
    assert [item["name"] for item in outcome["candidates"]] == ["tradewind.lightgbm.BTCUSDT"]
    assert len(outcome["errors"]) == 1
    assert "lightgbm_XRPUSDT" in outcome["errors"][0]
    assert "corrupt_file" in outcome["errors"][0]


LONGER = {
    **TINY,
    "TRADEWIND_TRAINING": json.dumps(
        {**json.loads(TINY["TRADEWIND_TRAINING"]), "epochs": 6, "max_epoch_samples": 3000}
    ),
}
TRANSFORMER = ("train", "-f", "transformer", "--allow-failed-gates")


def test_killed_in_the_middle_of_a_fit_and_run_again(
    home: Path, tradewind: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _in_the_middle_of_a_fit(home) as process:
        os.killpg(process.pid, signal.SIGKILL)
    time.sleep(1)
    done = tradewind(*TRANSFORMER, "--json", home=home, **LONGER)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["success"]
    _assert_nothing_is_left(home, monkeypatch)


def test_only_the_launcher_killed_and_run_again(
    home: Path, tradewind: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _in_the_middle_of_a_fit(home) as process:
        process.kill()
    # The orphaned step goes on; the new one waits for its lock, then finds its work.
    done = tradewind(*TRANSFORMER, "--json", home=home, **LONGER)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["success"]
    _assert_nothing_is_left(home, monkeypatch)


@contextmanager
def _in_the_middle_of_a_fit(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield a training of which the second epoch has just ended."""
    with subprocess.Popen(
        command(*TRANSFORMER),
        cwd=ROOT,
        env=environment(home, **LONGER),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "transformer.POOLED fit 2 " in line:
                break
        else:
            pytest.fail("the fit was never seen")
        yield process


def _assert_nothing_is_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that a killed run is closed everywhere, and that its epochs were kept."""
    from registry.tracking import Tracking

    settings = _settings(home, monkeypatch)
    instance = _instance(settings, monkeypatch)
    assert _slots(instance) == 0
    statuses = [run.status.value for run in instance.get_runs()]
    assert sorted(statuses) == ["FAILURE", "SUCCESS"]
    tracking = Tracking(settings)
    running = tracking.client.search_runs([tracking.experiment_id], "attributes.status = 'RUNNING'")
    assert list(running) == []
    epochs = tracking.client.get_metric_history(
        tracking.client.get_model_version("tradewind.transformer.POOLED", "1").run_id,
        "train_loss",
    )
    assert {metric.step for metric in epochs} == set(range(1, 7))
    assert sum(metric.step == 1 for metric in epochs) == 1, "epoch 1 was not continued from"
    assert list(settings.home.glob("work/**/*.tmp")) == []
