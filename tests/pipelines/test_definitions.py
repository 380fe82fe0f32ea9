"""A snapshot of what Dagster loads: keys, jobs, schedules, checks, partitions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from dagster import AssetsDefinition, DefaultScheduleStatus, DefaultSensorStatus

from pipelines.definitions import defs
from tradewind.models.gates import GATE_NAMES as DOMAIN_GATES

STAGES = ("training_set", "model", "evaluation", "drift", "promotion")
FAMILIES = ("lightgbm", "transformer")


def _graph() -> Any:
    return defs.resolve_asset_graph()


def test_asset_keys() -> None:
    data = {"bars", "funding", "open_interest", "long_short_ratio", "features"}
    data.add("history_evaluation")
    expected = data | {f"{f}/{stage}" for f in FAMILIES for stage in STAGES}
    assert {key.to_user_string() for key in _graph().get_all_asset_keys()} == expected


def test_jobs_and_schedules() -> None:
    jobs = {job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}
    assert jobs == {
        "ingest",
        "store_upkeep",
        "retrain",
        "search",
        "evaluate",
        "evaluate_champions",
        "drift",
        "outcomes",
        "recalibrate",
        "review_challengers",
        "supervise",
        "promote",
        "rollback",
    }
    schedules = {item.name: item for item in defs.schedules or ()}
    assert set(schedules) == {
        "ingest_15m",
        "store_upkeep_weekly",
        "outcomes_hourly",
        "drift_daily",
        "recalibrate_weekly",
        "review_weekly",
        "supervise_hourly",
        "retrain_weekly",
    }
    weekly: Any = schedules["retrain_weekly"]
    assert weekly.cron_schedule == "0 0 * * 0"
    assert weekly.execution_timezone == "UTC"
    assert weekly.job_name == "retrain"
    assert weekly.default_status is DefaultScheduleStatus.STOPPED


def test_the_weekly_schedule_fires_on_sunday_at_midnight_utc() -> None:
    from datetime import UTC, datetime

    from dagster._utils.schedules import schedule_execution_time_iterator

    ticks = schedule_execution_time_iterator(
        datetime(2026, 4, 29, 12, tzinfo=UTC).timestamp(), "0 0 * * 0", "UTC", False
    )
    first = next(ticks)
    assert (first.isoweekday(), first.hour, first.minute) == (7, 0, 0)


def test_checks() -> None:
    found = {(key.asset_key.to_user_string(), key.name) for key in _graph().asset_check_keys}
    bars = ("schema", "unique", "monotone", "ohlc", "values")
    soft = ("gaps", "staleness", "zero_volume", "outliers", "alignment")
    expected = {("bars", name) for name in (*bars, *soft)}
    expected |= {("features", "finite"), ("features", "look_ahead")}
    for family in FAMILIES:
        expected |= {(f"{family}/evaluation", name) for name in DOMAIN_GATES}
        expected |= {(f"{family}/drift", "psi"), (f"{family}/drift", "concept")}
    assert found == expected


def test_gate_names_of_the_graph_are_the_domains() -> None:
    from assets.checks import GATE_NAMES

    assert GATE_NAMES == DOMAIN_GATES


def test_gates_block_and_drift_does_not() -> None:
    graph = _graph()
    for key in graph.asset_check_keys:
        spec = graph.get(key)
        blocking = key.name in DOMAIN_GATES and key.asset_key.path[-1] == "evaluation"
        if key.asset_key.path[-1] in ("evaluation", "drift"):
            assert spec.blocking is blocking, key


@pytest.mark.parametrize("asset", list(defs.assets or ()))
def test_every_asset_says_what_it_is(asset: AssetsDefinition) -> None:
    for spec in asset.specs:
        assert spec.description
        assert spec.owners
        assert spec.kinds
        assert spec.code_version
        assert spec.group_name in ("market", "evaluation", *FAMILIES)
        everything_at_once = spec.key.to_user_string() == "history_evaluation"
        assert (spec.partitions_def is None) is everything_at_once


def test_partitions() -> None:
    graph = _graph()
    by_name = {
        key.to_user_string(): graph.get(key).partitions_def for key in graph.get_all_asset_keys()
    }
    assert by_name["bars"].get_partition_keys() == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    assert by_name["lightgbm/model"].get_partition_keys() == [
        "BTCUSDT",
        "ETHUSDT",
        "SOLUSDT",
        "POOLED",
    ]


def test_the_ingest_schedule_asks_for_one_run_a_symbol() -> None:
    from datetime import UTC, datetime

    from dagster import build_schedule_context

    from pipelines.schedules import ingest_15m

    context = build_schedule_context(scheduled_execution_time=datetime(2026, 4, 1, tzinfo=UTC))
    requests: Any = ingest_15m(context)
    assert [request.partition_key for request in requests] == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    assert len({request.run_key for request in requests}) == 3


def test_every_job_schedule_and_sensor_says_what_it_is() -> None:
    jobs = [job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")]
    for item in (*jobs, *(defs.schedules or ()), *(defs.sensors or ())):
        assert len(item.description or "") > 40, item.name
    for job in jobs:
        assert job.tags["tradewind/owner"].startswith("team:"), job.name
        assert job.run_tags["tradewind/job"] == job.name
        assert job.tags["tradewind/job"] == job.name


def test_the_sensor_sleeps_until_it_is_switched_on() -> None:
    (sensor,) = defs.sensors or ()
    assert sensor.name == "retrain_when_needed"
    assert sensor.default_status is DefaultSensorStatus.STOPPED
    assert sensor.minimum_interval_seconds == 300


@pytest.mark.parametrize(
    ("job", "op", "shown"),
    [
        (
            "retrain",
            "plan_units",
            {
                "symbols": [],
                "families": ["lightgbm", "transformer"],
                "days_back": 180,
                "epochs": 30,
                "seed": 7,
                "allow_failed_gates": False,
            },
        ),
        (
            "search",
            "search_hyperparameters",
            {
                "family": "lightgbm",
                "symbol": "",
                "trials": 20,
                "days_back": 180,
                "holdout_days": 28,
            },
        ),
        ("drift", "measure_drift", {"symbols": [], "families": ["lightgbm", "transformer"]}),
        (
            "recalibrate",
            "recalibrate_champions",
            {"symbols": [], "families": ["lightgbm", "transformer"]},
        ),
        (
            "review_challengers",
            "compare_challengers",
            {"symbols": [], "families": ["lightgbm", "transformer"]},
        ),
        (
            "evaluate_champions",
            "measure_champions",
            {"symbols": [], "families": ["lightgbm", "transformer"]},
        ),
        (
            "promote",
            "promote_version",
            {"name": "tradewind.lightgbm.POOLED", "version": 1, "to": "champion", "why": ""},
        ),
        ("rollback", "roll_back", {"name": "tradewind.lightgbm.POOLED", "why": ""}),
        (
            "evaluate",
            "history_evaluation",
            {
                "symbols": [],
                "families": ["lightgbm", "transformer"],
                "since": "2025-01-01",
                "refit_days": 7,
                "deep_refit_months": 3,
                "days_back_max": None,
                "horizon": 16,
                "per_symbol": False,
                "shuffle_labels": False,
            },
        ),
    ],
)
def test_forms_are_filled_in(job: str, op: str, shown: dict[str, Any]) -> None:
    assert defs.resolve_job_def(job).run_config == {"ops": {op: {"config": shown}}}


def test_freshness_follows_the_timeframe_and_the_model_age() -> None:
    graph = _graph()
    found = {
        key.to_user_string(): graph.get(key).freshness_policy_or_from_metadata
        for key in graph.get_all_asset_keys()
    }
    assert found["bars"].fail_window.to_timedelta() == timedelta(hours=1)
    assert found["features"].warn_window.to_timedelta() == timedelta(minutes=30)
    for family in FAMILIES:
        for stage in ("training_set", "model", "evaluation", "drift"):
            policy = found[f"{family}/{stage}"]
            assert policy.fail_window.to_timedelta() == timedelta(days=8)
            assert policy.warn_window.to_timedelta() == timedelta(days=7)
        assert found[f"{family}/promotion"] is None  # a candidate may rightly not be promoted


def test_every_check_says_what_it_looks_at() -> None:
    graph = _graph()
    for key in graph.asset_check_keys:
        assert graph.get(key).description, key


def test_the_queue_limits_retrainings_by_the_tag_their_runs_carry() -> None:
    from pathlib import Path

    import yaml

    settings = yaml.safe_load((Path(__file__).parents[2] / "dagster.yaml").read_text())
    (limit,) = settings["concurrency"]["runs"]["tag_concurrency_limits"]
    run_tags = defs.resolve_job_def("retrain").run_tags
    assert run_tags[limit["key"]] == limit["value"]
    assert limit["limit"] == 2
    assert settings["freshness"]["enabled"] is True


def test_no_run_is_tried_again_after_a_failed_step() -> None:
    from pathlib import Path

    import yaml
    from dagster._core.storage.tags import RETRY_ON_ASSET_OR_OP_FAILURE_TAG

    settings = yaml.safe_load((Path(__file__).parents[2] / "dagster.yaml").read_text())
    assert settings["run_retries"]["retry_on_asset_or_op_failure"] is False
    retried = {
        job.name
        for job in defs.resolve_all_job_defs()
        if job.run_tags.get(RETRY_ON_ASSET_OR_OP_FAILURE_TAG) == "true"
    }
    assert retried == set()  # ingest itself asks again, after network errors only
