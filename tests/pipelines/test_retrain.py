"""The retrain job, run as a person runs it, on real bars in tiny sizes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
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


def test_gates_that_fail_leave_a_run_that_succeeds(home: Path, tradewind: Run) -> None:
    strict = {**TINY, "TRADEWIND_GATES": '{"min_accuracy": 0.99}'}
    done = tradewind("train", "-f", "lightgbm", "--json", home=home, **strict)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout)
    assert outcome["success"]
    (candidate,) = outcome["candidates"]
    assert candidate["gates"] == "failed"
    assert candidate["alias"] is None
    assert any("6000 walk-forward rows" in reason for reason in candidate["failed"])


def test_a_broken_unit_does_not_stop_the_others(home: Path, tradewind: Run) -> None:
    folder = next(path.parent for path in home.glob("store/**/ETHUSDT/*.parquet"))
    newest = sorted(folder.glob("*.parquet"))[-1]
    # ETH is no reference here, so only what is trained on ETH itself can notice.
    market = {"symbols": ["BTCUSDT", "ETHUSDT"], "reference_symbols": ["BTCUSDT", "SOLUSDT"]}
    newest.write_bytes(b"not parquet")
    variables = {**TINY, "TRADEWIND_MARKET": json.dumps(market)}
    training = json.loads(TINY["TRADEWIND_TRAINING"])
    variables["TRADEWIND_TRAINING"] = json.dumps({**training, "pooled_families": []})
    done = tradewind("train", "-f", "lightgbm", "--json", home=home, **variables)
    assert done.returncode == 1
    outcome = json.loads(done.stdout)
    assert [item["name"] for item in outcome["candidates"]] == ["tradewind.lightgbm.BTCUSDT"]
    assert len(outcome["errors"]) == 1
    assert "lightgbm_ETHUSDT" in outcome["errors"][0]
    assert "corrupt_file" in outcome["errors"][0]


def test_killed_in_the_middle_of_a_fit_and_run_again(
    home: Path, tradewind: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {**json.loads(TINY["TRADEWIND_TRAINING"]), "epochs": 6, "max_epoch_samples": 3000}
    variables = {**TINY, "TRADEWIND_TRAINING": json.dumps(training)}
    with subprocess.Popen(
        command("train", "-f", "transformer", "--allow-failed-gates"),
        cwd=ROOT,
        env=environment(home, **variables),
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
        os.killpg(process.pid, signal.SIGKILL)
    time.sleep(1)
    done = tradewind(
        "train", "-f", "transformer", "--allow-failed-gates", "--json", home=home, **variables
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout)
    assert outcome["success"]

    settings = _settings(home, monkeypatch)
    instance = _instance(settings, monkeypatch)
    assert _slots(instance) == 0
    statuses = [run.status.value for run in instance.get_runs()]
    assert sorted(statuses) == ["FAILURE", "SUCCESS"]
    from registry.tracking import Tracking

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
