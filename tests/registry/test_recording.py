"""What a retraining leaves in a real MLflow store: folds, resumed runs, data sets, texts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from registry.datasets import DatasetSlice, log_datasets
from registry.folds import FoldLog
from registry.names import fold_name, relocatable, retrain_name
from registry.series import SeriesLog
from registry.tracking import PARENT_TAG, Tracking
from tradewind.models.walk_forward import FoldResult

DAY = 86_400_000
START = 1_777_000_000_000
TAGS = {"family": "lightgbm", "model_key": "POOLED"}
FOLD = FoldResult(
    number=3,
    token="03-abc",
    spans={name: (START + i * DAY, START + (i + 1) * DAY) for i, name in enumerate(
        ("fit", "valid", "calib", "test"))},
    rows={"fit": 400, "valid": 100, "calib": 100, "test": 100},
    metrics={"auc": 0.53, "log_loss": 0.69, "log_loss_base_rate": 0.693, "seconds": 12.5},
    started_ms=START,
    seconds=12.5,
)  # fmt: skip
SLICE = DatasetSlice(
    context="train",
    key="POOLED",
    store="binance_usdm_perp/15m",
    source="folder bars",
    fingerprint="f" * 64,
    feature_version="v1",
    symbols=("BTCUSDT", "ETHUSDT"),
    columns=("ret_1",),
    rows=10,
    start_ms=START,
    end_ms=START + DAY,
)


def folds_of(tracking: Tracking, run_id: str) -> list:
    return tracking.search(f"tags.`{PARENT_TAG}` = '{run_id}'")


def test_a_fold_is_a_nested_finished_run_and_is_logged_once(tracking: Tracking) -> None:
    with tracking.start_run("unit", tags=TAGS) as unit:
        FoldLog(tracking, unit.run_id, TAGS)(FOLD)
        FoldLog(tracking, unit.run_id, TAGS)(FOLD)  # as after a kill: a new process, a new log
        FoldLog(tracking, unit.run_id, TAGS)(replace(FOLD, number=4, token="04-def"))
    logged = folds_of(tracking, unit.run_id)
    assert sorted(run.data.tags["fold"] for run in logged) == ["3", "4"]
    (third,) = (run for run in logged if run.data.tags["fold"] == "3")
    assert third.info.run_name == fold_name(3, *FOLD.spans["test"])
    assert third.info.status == "FINISHED"
    assert third.info.end_time - third.info.start_time == 12_500
    assert third.data.metrics == FOLD.metrics
    assert third.data.params["test_span"].endswith("UTC")
    assert len(tracking.client.get_metric_history(third.info.run_id, "auc")) == 1


def test_a_fold_whose_logging_was_cut_off_is_completed_in_place(tracking: Tracking) -> None:
    with tracking.start_run("unit", tags=TAGS) as unit:
        FoldLog(tracking, unit.run_id, TAGS)(FOLD)
        (cut,) = folds_of(tracking, unit.run_id)
        tracking.client.set_terminated(cut.info.run_id, "KILLED")
        FoldLog(tracking, unit.run_id, TAGS)(replace(FOLD, started_ms=START + 5))
    (again,) = folds_of(tracking, unit.run_id)
    assert len(tracking.client.get_metric_history(again.info.run_id, "auc")) == 1
    assert again.info.run_id == cut.info.run_id
    assert again.info.status == "FINISHED"


def test_a_series_told_again_logs_only_the_points_that_are_missing(tracking: Tracking) -> None:
    with tracking.start_run("unit", tags=TAGS) as run:
        first = SeriesLog(run)
        assert first(1, {"loss": 3.0})
        assert first(3, {"loss": 1.0})  # epoch 2 was lost
    with tracking.start_run("unit", run_id=run.run_id, tags=TAGS) as run:
        again = SeriesLog(run)
        told = [again(step, {"loss": float(4 - step)}) for step in (1, 2, 3, 4)]
    assert told == [False, True, False, True]
    points = tracking.client.get_metric_history(run.run_id, "loss")
    assert sorted((p.step, p.value) for p in points) == [(1, 3.0), (2, 2.0), (3, 1.0), (4, 0.0)]


def test_a_resumed_run_keeps_who_began_it_and_lists_who_went_on(tracking: Tracking) -> None:
    first = {"dagster_run_id": "dag-1", "git_commit": "aaa"}
    second = {"dagster_run_id": "dag-2", "git_commit": "bbb"}
    with tracking.start_run("unit", tags=first) as run:
        pass
    for tags in (second, second, first):
        with tracking.start_run("unit", run_id=run.run_id, tags=tags):
            pass
    tags = tracking.run_tags(run.run_id)
    assert (tags["dagster_run_id"], tags["git_commit"]) == ("dag-1", "aaa")
    assert (tags["dagster_run_ids"], tags["git_commits"]) == ("dag-1 dag-2", "aaa bbb")


def test_a_first_start_that_did_not_know_is_corrected(tracking: Tracking) -> None:
    with tracking.start_run("unit") as run:
        pass
    with tracking.start_run("unit", run_id=run.run_id, tags={"dagster_run_id": "dag-2"}):
        pass
    assert tracking.run_tags(run.run_id)["dagster_run_id"] == "dag-2"


def test_data_sets_are_inputs_with_role_digest_schema_and_profile(tracking: Tracking) -> None:
    test = replace(SLICE, context="test", rows=4)
    with tracking.start_run("unit") as run:
        log_datasets(run, [SLICE, test])
        log_datasets(run, [SLICE, test])
    inputs = tracking.client.get_run(run.run_id).inputs.dataset_inputs
    found = {item.tags[0].value: item.dataset for item in inputs}
    assert len(inputs) == 2
    assert found["train"].digest.startswith("f" * 20)
    assert found["train"].digest != found["test"].digest
    assert json.loads(found["test"].profile)["num_rows"] == 4
    assert json.loads(found["train"].source)["fingerprint"] == "f" * 64
    columns = json.loads(found["train"].schema)["mlflow_colspec"]
    assert [column["name"] for column in columns] == ["ts", "symbol", "ret_1", "y_up", "fwd_ret"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("folder /srv/data/bars, set x", "folder bars, set x"),
        ("ccxt binanceusdm, bybit/okx", "ccxt binanceusdm, bybit/okx"),
        ("https://example.com/a/b", "https://example.com/a/b"),
        ("simulated seed 7", "simulated seed 7"),
    ],
)
def test_absolute_paths_are_cut_from_what_is_logged(given: str, kept: str) -> None:
    assert relocatable(given) == kept


def test_names_say_what_and_when() -> None:
    assert retrain_name(START, 2) == "retrain 2026-04-24 03:06 · 2 units"
    assert retrain_name(START, 1).endswith("· 1 unit")
    assert fold_name(3, START, START + 14 * DAY) == "fold 3 · 2026-04-24…2026-05-08"
