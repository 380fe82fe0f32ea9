"""The sensor on a real ledger, a real registry and a real instance."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    AssetObservation,
    DagsterInstance,
    DagsterRunStatus,
    build_sensor_context,
)

from pipelines.sensors import REASON_TAG, retrain_when_needed
from registry.aliases import promote
from registry.tracking import Tracking
from registry.versions import register_bundle
from tests.support.booking import STEP, answer, fill, open_position
from tests.support.registered import EXAMPLE, OUTPUT, write_bundle
from tests.support.synthetic import START_MS
from tradewind.contracts import OrderStatus
from tradewind.ledger import Ledger, open_ledger
from tradewind.ledger.clock import set_replay_clock
from tradewind.settings import MS_PER_DAY, Settings, load_settings

NAME = "tradewind.lightgbm.POOLED"
DATA_END_MS = 1_735_689_600_000


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose registry has one champion."""
    root = tmp_path_factory.mktemp("registered")
    tracking = Tracking(load_settings(home=root / "home", data=None))
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
    return root / "home"


@pytest.fixture
def settings(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A copy of it, whose market time is three days after the champion's evidence."""
    shutil.copytree(registered, tmp_path / "home")
    monkeypatch.delenv("TRADEWIND_DATA", raising=False)
    for name, value in {
        "TRADEWIND_HOME": str(tmp_path / "home"),
        "TRADEWIND_CLOCK": "replay",
        "TRADEWIND_RETRAIN_TRIGGERS": '{"new_trades": 3, "win_rate_trades": 2}',
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    _now(settings, days=3)
    return settings


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """An instance in memory."""
    with DagsterInstance.ephemeral() as held:
        yield held


def _now(settings: Settings, days: float) -> None:
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, DATA_END_MS + int(days * MS_PER_DAY))


def _tick(instance: DagsterInstance, cursor: str | None = None) -> Any:
    return retrain_when_needed(build_sensor_context(instance=instance, cursor=cursor))


def _skipped(result: Any) -> str:
    assert not result.run_requests
    return str(result.skip_reason.skip_message)


def _lose(ledger: Ledger, times: int) -> None:
    first = (DATA_END_MS - START_MS) // STEP + 1
    for bar in range(first, first + 2 * times, 2):
        _, stop, target = open_position(ledger, bar=bar)
        ledger.book(answer(stop), [fill(stop, "95", ts=START_MS + (bar + 1) * STEP)])
        ledger.book(answer(target, OrderStatus.CANCELED))


def _observe_drift(
    instance: DagsterInstance, status: str, version: str, **more: str | float
) -> None:
    seen: dict[str, Any] = {
        **{"version": version, "status": status, "psi_rsi": 0.31, "psi_p_up": 0.02},
        **more,
    }
    instance.report_runless_asset_event(
        AssetObservation(AssetKey(["lightgbm", "drift"]), partition="POOLED", metadata=seen)
    )


def test_a_sound_champion_is_left_alone_with_what_was_looked_at(
    settings: Settings, instance: DagsterInstance
) -> None:
    said = _skipped(_tick(instance))
    assert f"{NAME}/1: drift not measured" in said
    assert "3.0 of 8 days old, 0 of 3 new trades, win rate no trades" in said


def test_drift_of_this_version_asks_and_of_another_does_not(
    settings: Settings, instance: DagsterInstance
) -> None:
    _observe_drift(instance, "alert", f"{NAME}/7")
    assert "drift not measured" in _skipped(_tick(instance))
    _observe_drift(instance, "alert", f"{NAME}/1")
    (request,) = _tick(instance).run_requests
    assert request.tags[REASON_TAG] == f"{NAME}/1 drift alarm, worst PSI 0.310"
    assert request.run_config == {
        "ops": {"plan_units": {"config": {"symbols": [], "families": ["lightgbm"]}}}
    }
    _observe_drift(instance, "fine", f"{NAME}/1")
    assert "drift fine (PSI 0.310)" in _skipped(_tick(instance))


def test_an_alarm_of_outcomes_asks_once_an_episode(
    settings: Settings, instance: DagsterInstance
) -> None:
    def again(cursor: str) -> Any:
        return _tick(instance, json.dumps({**json.loads(cursor), "last_s": 0}))

    alarm = {"concept": "alert", "concept_z": 4.25}
    _observe_drift(instance, "fine", f"{NAME}/1", **alarm)
    first = _tick(instance)
    (request,) = first.run_requests
    reason = "concept drift alarm, log-loss over its expectation by z 4.2"
    assert request.tags[REASON_TAG] == f"{NAME}/1 {reason}"
    _ended(instance, request.run_key, DagsterRunStatus.SUCCESS)

    _observe_drift(instance, "fine", f"{NAME}/1", **alarm)
    same = again(first.cursor)
    assert "nothing new" in _skipped(same)
    _observe_drift(instance, "fine", f"{NAME}/1", concept="none", concept_z=0.5)
    over = again(same.cursor)
    assert "outcomes none (z 0.5)" in _skipped(over)
    _observe_drift(instance, "fine", f"{NAME}/1", **alarm)
    (second,) = again(over.cursor).run_requests
    assert second.run_key != request.run_key


def test_losses_in_the_ledger_ask_once(settings: Settings, instance: DagsterInstance) -> None:
    with open_ledger(settings) as ledger:
        _lose(ledger, 2)
    result = _tick(instance)
    (request,) = result.run_requests
    assert request.tags[REASON_TAG].endswith("win rate 0.0% of the last 2 trades, limit 50%")
    memory = json.loads(result.cursor)
    assert memory["asked"] == {f"{NAME}/1": {"win_rate": request.run_key}}
    assert "since the last request" in _skipped(_tick(instance, result.cursor))

    _ended(instance, request.run_key, DagsterRunStatus.SUCCESS)
    after_the_pause = json.dumps({**memory, "last_s": 0})
    assert "nothing new" in _skipped(_tick(instance, after_the_pause))
    with open_ledger(settings) as ledger:
        _lose_more(ledger)
    (more,) = _tick(instance, after_the_pause).run_requests
    assert "3 new closed trades, limit 3" in more.tags[REASON_TAG]
    assert more.run_key != request.run_key


def _lose_more(ledger: Ledger) -> None:
    bar = (DATA_END_MS - START_MS) // STEP + 20
    _, stop, target = open_position(ledger, bar=bar)
    ledger.book(answer(stop), [fill(stop, "95", ts=START_MS + (bar + 1) * STEP)])
    ledger.book(answer(target, OrderStatus.CANCELED))


def test_age_asks(settings: Settings, instance: DagsterInstance) -> None:
    _now(settings, days=8.5)
    (request,) = _tick(instance).run_requests
    assert request.tags[REASON_TAG] == f"{NAME}/1 8.5 days old, limit 8"


def _ended(instance: DagsterInstance, key: str | None, status: DagsterRunStatus) -> None:
    from pipelines.launch import resolve_job

    assert key is not None
    tags = {"dagster/run_key": key}
    instance.create_run_for_job(resolve_job("retrain"), status=status, tags=tags)


@pytest.mark.parametrize("status", [DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED, None])
def test_a_retraining_that_did_not_end_well_is_asked_for_again(
    settings: Settings, instance: DagsterInstance, status: DagsterRunStatus | None
) -> None:
    _now(settings, days=9)
    first = _tick(instance)
    (request,) = first.run_requests
    if status is not None:  # None: the run was never created
        _ended(instance, request.run_key, status)
    assert "since the last request" in _skipped(_tick(instance, first.cursor))
    memory = json.loads(first.cursor)
    sent = {key: at_s - 7 * 3600 for key, at_s in memory["sent"].items()}
    after_the_pause = json.dumps({**memory, "last_s": 0, "sent": sent})
    (again,) = _tick(instance, after_the_pause).run_requests
    assert again.tags == request.tags
    assert (again.run_key == request.run_key) == (status is None), "a used key launches nothing"


def test_the_age_limit_is_the_one_of_the_registry(
    settings: Settings, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEWIND_REGISTRY__MAX_MODEL_AGE_DAYS", "2.5")
    (request,) = _tick(instance).run_requests
    assert request.tags[REASON_TAG] == f"{NAME}/1 3.0 days old, limit 2.5"


@pytest.mark.parametrize("status", [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])
def test_not_while_a_retraining_waits_or_runs(
    settings: Settings, instance: DagsterInstance, status: DagsterRunStatus
) -> None:
    from pipelines.launch import resolve_job

    _now(settings, days=9)
    run = instance.create_run_for_job(resolve_job("retrain"), status=status)
    assert f"retrain run {run.run_id} is {status.value}" in _skipped(_tick(instance))


def test_without_a_champion_it_says_so(
    settings: Settings, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEWIND_TRAINING__FAMILIES", '["transformer"]')
    assert "no champion" in _skipped(_tick(instance))


@pytest.mark.parametrize(
    ("status", "most", "asked", "words"),
    [
        (DagsterRunStatus.SUCCESS, 3, 3, "3 of 3 requests in seven days, free again in"),
        (DagsterRunStatus.SUCCESS, 99, 11, ""),  # what the pause alone lets through
        # 6, 12, 24, 48 and 96 hours after one another, to the next look.
        (DagsterRunStatus.FAILURE, 3, 5, "5 failed in a row"),
    ],
)
def test_a_week_of_flapping_alarms_asks_a_few_times(
    settings: Settings,
    instance: DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    status: DagsterRunStatus,
    most: int,
    asked: int,
    words: str,
) -> None:
    monkeypatch.setenv("TRADEWIND_RETRAIN_TRIGGERS", f'{{"most_a_week": {most}}}')
    hours, start_s, cursor, keys, said = 4, time.time(), None, [], ""
    for look in range(7 * 24 // hours):
        now_s = start_s + look * hours * 3600
        monkeypatch.setattr("pipelines.sensors.time.time", lambda now_s=now_s: now_s)
        alarm = look % 2 == 0
        _observe_drift(
            instance,
            "alert" if alarm else "fine",
            f"{NAME}/1",
            concept="alert" if alarm else "none",
            concept_z=4.0 if alarm else 0.0,
        )
        result = _tick(instance, cursor)
        cursor = result.cursor or cursor
        if result.skip_reason is not None and "held back" in result.skip_reason.skip_message:
            said = result.skip_reason.skip_message
        for request in result.run_requests or ():
            keys.append(request.run_key)
            _ended(instance, request.run_key, status)
    assert len(keys) == len(set(keys)) == asked
    if words:
        assert f"held back: {NAME}: {words}" in said
        assert f"{NAME}/1: drift alert" in said, "what was looked at is still told"


def test_a_cursor_that_was_reset_is_no_way_around_the_limit(
    settings: Settings, instance: DagsterInstance
) -> None:
    for number in range(3):
        _ended(instance, f"retrain {NAME}/1:trades attempt {number}", DagsterRunStatus.SUCCESS)
    _observe_drift(instance, "alert", f"{NAME}/1")
    assert "held back" in _skipped(_tick(instance, None))


def test_launches_by_hand_and_by_schedule_do_not_count(
    settings: Settings, instance: DagsterInstance
) -> None:
    from pipelines.launch import resolve_job

    for number in range(4):
        tags = {"dagster/run_key": f"2026-11-0{number}"} if number % 2 else {}
        instance.create_run_for_job(
            resolve_job("retrain"), status=DagsterRunStatus.FAILURE, tags=tags
        )
    _observe_drift(instance, "alert", f"{NAME}/1")
    assert len(_tick(instance).run_requests) == 1
