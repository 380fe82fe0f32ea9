"""The small jobs, run by Dagster itself on a registered bundle of a tiny world."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dagster import (
    AssetKey,
    AssetRecordsFilter,
    DagsterEventType,
    DagsterInstance,
    DagsterInvalidConfigError,
    ExecuteInProcessResult,
)

from registry.tracking import Tracking
from registry.versions import find_alias
from tests.support import serving
from tests.support.trading_day import prediction
from tradewind.ledger import PredictionRecord, open_ledger
from tradewind.ledger.clock import set_replay_clock
from tradewind.market.active import store_for
from tradewind.settings import MS_PER_DAY, Settings

NAME = "tradewind.lightgbm.POOLED"
VARIABLES = {
    "TRADEWIND_CLOCK": "replay",
    "TRADEWIND_MARKET": (
        '{"symbols": ["BTCUSDT", "ETHUSDT"],'
        ' "reference_symbols": ["BTCUSDT", "ETHUSDT", "SOLUSDT"]}'
    ),
    "TRADEWIND_FEATURES": '{"warmup_bars": 300, "window": 16, "ratio_window": 50}',
    "TRADEWIND_TRAINING": '{"days_back": 20, "judge_passes": 2}',
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> serving.World:
    """A home with bars and two registered versions; version 1 is the champion."""
    root = tmp_path_factory.mktemp("jobs")
    (root / "scratch").mkdir()
    settings = serving.world_settings(
        root / "home",
        market={
            "symbols": ("BTCUSDT", "ETHUSDT"),
            "reference_symbols": ("BTCUSDT", "ETHUSDT", "SOLUSDT"),
        },
    )
    serving.store_bars(settings)
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, serving.NOW_MS)
    world = serving.World(settings, Tracking(settings), root / "scratch")
    bundle = serving.fit_bundle(
        settings, serving.training_set(settings), "lightgbm", "POOLED", seed=1
    )
    # Its data ends early, so that enough bars are left that it has never seen.
    early = dataclasses.replace(
        bundle,
        meta=bundle.meta.model_copy(update={"data_end_ms": serving.NOW_MS - 8 * MS_PER_DAY}),
    )
    world.point(world.register(early))
    world.register(serving.reseeded(early, seed=2))
    return world


@pytest.fixture
def settings(world: serving.World, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The world's settings, which the jobs read from the environment as anywhere else."""
    monkeypatch.delenv("TRADEWIND_DATA", raising=False)
    for name, value in {**VARIABLES, "TRADEWIND_HOME": str(world.settings.home)}.items():
        monkeypatch.setenv(name, value)
    return world.settings


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """An instance in memory."""
    with DagsterInstance.ephemeral() as held:
        yield held


def _run(
    instance: DagsterInstance,
    job: str,
    op: str = "",
    config: dict[str, Any] | None = None,
    **more: Any,
) -> ExecuteInProcessResult:
    from pipelines.launch import resolve_job

    return resolve_job(job).execute_in_process(
        run_config={"ops": {op: {"config": config or {}}}} if op else {},
        instance=instance,
        raise_on_error=False,
        **more,
    )


def _failure(done: ExecuteInProcessResult) -> str:
    (event,) = [event for event in done.all_events if event.is_step_failure]
    error = event.step_failure_data.error
    assert error is not None
    return str((error.cause or error).message)


def test_evaluate_observes_each_champion(settings: Settings, instance: DagsterInstance) -> None:
    done = _run(instance, "evaluate_champions", "measure_champions")
    assert done.success
    (event,) = [
        event for event in done.all_events if event.event_type is DagsterEventType.ASSET_OBSERVATION
    ]
    seen = event.asset_observation_data.asset_observation
    assert (seen.asset_key.to_user_string(), seen.partition) == ("lightgbm/evaluation", "POOLED")
    assert seen.metadata["version"].value == f"{NAME}/1"
    assert 0 < float(str(seen.metadata["auc"].value)) < 1


def test_drift_checks_each_champion(settings: Settings, instance: DagsterInstance) -> None:
    done = _run(instance, "drift", "measure_drift")
    assert done.success
    check, concept = done.get_asset_check_evaluations()
    assert (check.asset_key.to_user_string(), check.check_name) == ("lightgbm/drift", "psi")
    assert concept.check_name == "concept"
    assert check.partition == concept.partition == "POOLED"
    assert check.metadata["drift"].value in ("neither", "data", "concept", "both")
    (observed,) = [
        event.asset_observation_data.asset_observation
        for event in done.all_events
        if event.event_type is DagsterEventType.ASSET_OBSERVATION
    ]
    assert observed.metadata["version"].value == f"{NAME}/1"
    assert float(str(check.metadata["psi_p_up"].value)) >= 0


def test_answers_that_were_wrong_raise_concept_drift(
    settings: Settings, instance: DagsterInstance
) -> None:
    start = serving.NOW_MS - 8 * MS_PER_DAY
    for symbol in ("BTCUSDT", "ETHUSDT"):
        bars = store_for(settings).read_bars(symbol, "15m", until_ms=serving.NOW_MS, start_ms=start)
        close = bars["close"].to_list()
        said = [
            prediction(symbol, ts, 0.3 if later > now else 0.7).model_copy(
                update={"model_version": f"{NAME}/1"}
            )
            for ts, now, later in zip(bars["ts"], close, close[16:], strict=False)
        ]
        with open_ledger(settings) as ledger:
            ledger.record_predictions(
                [PredictionRecord(p, "champion", 1.0, f"{symbol} {p.bar_ts}") for p in said]
            )
    shown = []
    for _ in range(2):  # the second look has a history
        done = _run(instance, "drift", "measure_drift")
        _, concept = done.get_asset_check_evaluations()
        assert not concept.passed
        shown.append(concept.metadata)
    assert shown[0]["concept"].value == "alert"
    assert shown[0]["drift"].value in ("concept", "both")
    assert "retrain" in str(shown[0]["advice"].value)
    assert shown[0]["concept_log_loss"].value == pytest.approx(-np.log(0.3))
    looks = AssetRecordsFilter(AssetKey(["lightgbm", "drift"]), asset_partitions=["POOLED"])
    (last, _) = instance.fetch_observations(looks, limit=5).records
    picture = last.asset_observation.metadata["drift_over_time"].value
    assert picture.startswith("![drift_over_time](data:image/png;base64,")
    assert shown[1]["concept_z"].value == shown[0]["concept_z"].value


def test_a_unit_without_a_champion_is_named(settings: Settings, instance: DagsterInstance) -> None:
    done = _run(instance, "evaluate_champions", "measure_champions")
    said = [entry.user_message for entry in instance.all_logs(done.run_id)]
    assert any("tradewind.transformer.POOLED has no champion" in line for line in said)


@pytest.mark.parametrize(
    ("job", "op"), [("evaluate_champions", "measure_champions"), ("drift", "measure_drift")]
)
def test_no_champion_at_all_fails(
    settings: Settings, instance: DagsterInstance, job: str, op: str
) -> None:
    done = _run(instance, job, op, {"families": ["transformer"]})
    assert not done.success
    assert "no_champion" in _failure(done)


def test_promote_then_roll_back(
    settings: Settings, world: serving.World, instance: DagsterInstance
) -> None:
    config = {"name": NAME, "version": 2, "why": "a better one"}
    assert _run(instance, "promote", "promote_version", config).success
    assert _alias(world, "champion") == 2
    assert _alias(world, "previous") == 1
    assert _run(instance, "rollback", "roll_back", {"name": NAME, "why": "it was not"}).success
    assert _alias(world, "champion") == 1
    assert _alias(world, "previous") == 2


@pytest.mark.parametrize(("change", "words"), [({"version": 99}, "99"), ({"why": ""}, "why = ''")])
def test_a_wrong_promotion_moves_nothing(
    settings: Settings,
    world: serving.World,
    instance: DagsterInstance,
    change: dict[str, Any],
    words: str,
) -> None:
    before = _alias(world, "champion")
    config = {"name": NAME, "version": 2, "why": "a test", **change}
    done = _run(instance, "promote", "promote_version", config)
    assert not done.success
    assert words in _failure(done)
    assert _alias(world, "champion") == before


def test_an_unknown_alias_is_refused_before_the_run(
    settings: Settings, instance: DagsterInstance
) -> None:
    config = {"name": NAME, "version": 2, "why": "a test", "to": "king"}
    with pytest.raises(DagsterInvalidConfigError, match="king"):
        _run(instance, "promote", "promote_version", config)


def test_a_retraining_out_of_bounds_fails_before_any_work(
    settings: Settings, instance: DagsterInstance
) -> None:
    done = _run(instance, "retrain", "plan_units", {"days_back": 19})
    assert not done.success
    assert {event.step_key for event in done.all_events if event.is_step_start} == {"plan_units"}
    said = _failure(done).strip()
    assert "days_back = 19" in said
    assert "20 to 3650" in said
    assert "\n" not in said


@pytest.mark.data
def test_ingest_and_again(
    data_root: Path, tmp_path: Path, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    for name, value in {
        "TRADEWIND_HOME": str(home),
        "TRADEWIND_DATA": str(data_root),
        "TRADEWIND_CLOCK": "replay",
    }.items():
        monkeypatch.setenv(name, value)
    from tradewind.settings import load_settings

    with open_ledger(load_settings()) as ledger:
        set_replay_clock(ledger, 1_777_372_200_000)
    since = {"bars": {"config": {"since": "2026-03-20"}}}
    found: list[dict[str, bytes]] = []
    for _ in range(2):
        from pipelines.launch import resolve_job

        done = resolve_job("ingest").execute_in_process(
            run_config={"ops": since}, partition_key="BTCUSDT", instance=instance
        )
        assert done.success
        made = {
            (event.asset_key.to_user_string(), event.partition)
            for event in done.all_events
            if event.asset_key and event.event_type is DagsterEventType.ASSET_MATERIALIZATION
        }
        kinds = ("bars", "funding", "open_interest", "long_short_ratio", "features")
        assert made == {(kind, "BTCUSDT") for kind in kinds}
        files = home.glob("store/**/*.parquet")
        found.append({str(path): path.read_bytes() for path in files})
    assert found[0]
    assert found[0] == found[1]


def _alias(world: serving.World, alias: str) -> int | None:
    version = find_alias(world.tracking, NAME, alias)
    return None if version is None else version.version
