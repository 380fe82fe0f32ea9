"""The job `supervise` on logged answers: from a member that always says BUY to its retraining."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, build_sensor_context
from typer.testing import CliRunner

from pipelines.cli.members import members_app
from pipelines.sensors import REASON_TAG, retrain_when_needed
from pipelines.status import collect
from registry.aliases import promote
from registry.tracking import Tracking
from registry.versions import register_bundle
from tests.pipelines.test_jobs import _run
from tests.support.members import START, Market, always_buy, market
from tests.support.predictions import prediction
from tests.support.registered import EXAMPLE, OUTPUT, write_bundle
from tradewind.contracts import Action, Outcome, Vote
from tradewind.ledger import (
    Ledger,
    MemberCode,
    MemberStatus,
    PredictionRecord,
    open_ledger,
    set_replay_clock,
)
from tradewind.settings import MS_PER_DAY, Settings, load_settings

ONE_SIDED, SOUND = "lightgbm", "xgboost"
DATA_END_MS = 1_735_689_600_000
SYMBOLS = ("BTCUSDT", "ETHUSDT")
HORIZON = 16


def _name(family: str) -> str:
    return f"tradewind.{family}.POOLED"


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two champions and two weeks of their answers, one of them always BUY."""
    root = tmp_path_factory.mktemp("supervised")
    settings = load_settings(home=root / "home", data=None)
    tracking = Tracking(settings)
    for family in (ONE_SIDED, SOUND):
        with tracking.start_run("train") as run:
            version = register_bundle(
                tracking,
                write_bundle(root / family, _name(family)),
                run_id=run.run_id,
                name=_name(family),
                input_example=EXAMPLE,
                output_example=OUTPUT,
                tags={"gates": "passed"},
            )
        promote(tracking, _name(family), version.version, who="test", why="to be judged")
    with open_ledger(settings) as ledger:
        _speak(ledger, market(load_settings(), 2, 1, symbols=2))
    return root / "home"


def _vote(family: str, p_up: float) -> Vote:
    return Vote(
        family=family,
        model_version=f"{_name(family)}/1",
        action=Action.HOLD,
        p_up=p_up,
        mu=0.0,
        confidence=0.5,
        weight=0.5,
        latency_ms=12.0,
    )


def _speak(ledger: Ledger, seen: Market) -> None:
    """Log what the two members said of every bar, and what came of it."""
    buy = always_buy(seen.p_up)
    said, known = [], []
    for ts, number, p_up, other, rose in zip(*seen[:3], buy, seen.y, strict=True):
        bar, symbol = int(ts) - START + DATA_END_MS, SYMBOLS[int(number)]
        votes = (_vote(ONE_SIDED, float(other)), _vote(SOUND, float(p_up)))
        answer = prediction(
            symbol=symbol, bar_ts=bar, model_type="ensemble", model_version="e", votes=votes
        )
        said.append(PredictionRecord(answer, "champion", 20.0, f"{symbol}-{bar}"))
        up = bool(rose)
        known.append(
            Outcome(
                symbol=symbol,
                bar_ts=bar,
                horizon=HORIZON,
                fwd_ret=0.01 if up else -0.01,
                y_up=up,
            )
        )
    assert ledger.record_predictions(said) == len(said)
    assert ledger.record_outcomes(known) == len(known)


@pytest.fixture
def settings(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    shutil.copytree(registered, tmp_path / "home")
    monkeypatch.delenv("TRADEWIND_DATA", raising=False)
    for name, value in {
        "TRADEWIND_HOME": str(tmp_path / "home"),
        "TRADEWIND_CLOCK": "replay",
        "TRADEWIND_MARKET": json.dumps({"symbols": SYMBOLS}),
        "TRADEWIND_RETRAIN_TRIGGERS": '{"pause_hours": 0}',
        "TRADEWIND_REGISTRY": '{"max_model_age_days": 30, "model_expiry_days": 60}',
        "TRADEWIND_TRAINING": json.dumps({"horizon": HORIZON, "families": [ONE_SIDED, SOUND]}),
    }.items():
        monkeypatch.setenv(name, value)
    return load_settings()


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as held:
        yield held


def _supervise(settings: Settings, instance: DagsterInstance, day: float) -> Any:
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, DATA_END_MS + int(day * MS_PER_DAY))
    done = _run(instance, "supervise")
    assert done.success
    return done


def _rows(done: Any, name: str) -> list[dict[str, Any]]:
    (event,) = [
        e for e in done.all_events if e.is_successful_output and e.step_key == "judge_members"
    ]
    table = event.step_output_data.metadata[name]
    return [dict(record.data) for record in table.records]


def test_a_one_sided_member_is_disabled_and_a_retraining_asked_for(
    settings: Settings, instance: DagsterInstance
) -> None:
    first = _supervise(settings, instance, 9)
    warned, sound = _rows(first, "members")
    assert (warned["member"], warned["state"]) == ("lightgbm.POOLED", "warned")
    assert (sound["member"], sound["state"]) == ("xgboost.POOLED", "enabled")
    assert "BUY is 100% of" in warned["why"]
    assert {row["figure"] for row in _rows(first, "figures")} >= {"bias", "ece_score", "flips"}
    observed = [e for e in first.all_events if e.event_type_value == "ASSET_OBSERVATION"]
    assert len(observed) == 2

    disabled, _ = _rows(_supervise(settings, instance, 10.5), "members")
    assert (disabled["state"], disabled["retrain"]) == ("disabled", "asked")
    _supervise(settings, instance, 10.6)
    with open_ledger(settings) as ledger:
        changes = ledger.member_changes()
        assert [c.after.state for c in changes] == [MemberStatus.DISABLED, MemberStatus.WARNED]
        assert ledger.member_state()["xgboost", "POOLED"][0]

    tick = retrain_when_needed(build_sensor_context(instance=instance))
    (request,) = tick.run_requests
    assert request.run_config["ops"]["plan_units"]["config"]["families"] == [ONE_SIDED]
    assert "the supervisor asks: " in request.tags[REASON_TAG]


def test_a_person_s_word_stands_against_the_job(
    settings: Settings, instance: DagsterInstance
) -> None:
    runner = CliRunner()
    _supervise(settings, instance, 9)
    named = ["--reason", "a test of the desk", "--json"]
    told = runner.invoke(members_app, ["enable", "lightgbm.POOLED", *named])
    assert told.exit_code == 0, told.output
    _supervise(settings, instance, 10.5)
    shown = json.loads(runner.invoke(members_app, ["--json"]).stdout)
    held = shown["members"][0]
    assert (held["name"], held["state"], held["held"]) == ("lightgbm.POOLED", "enabled", True)
    assert shown["history"][0]["why"] == "a test of the desk"

    assert runner.invoke(members_app, ["release", "lightgbm.POOLED", *named]).exit_code == 0
    again = runner.invoke(members_app, ["release", "lightgbm.POOLED", *named])
    assert again.exit_code == 2
    assert "nobody holds" in again.output
    judged = json.loads(runner.invoke(members_app, ["judge", "--json"]).stdout)
    assert judged["members"][0]["state"] == "warned"
    assert "lightgbm.POOLED" in runner.invoke(members_app, []).output


def test_a_member_that_is_none_here_is_refused(settings: Settings) -> None:
    found = CliRunner().invoke(members_app, ["disable", "gru.POOLED", "--reason", "x", "--json"])
    assert found.exit_code == 2
    assert "no member of an ensemble" in json.loads(found.stdout)["detail"]


def test_failures_of_a_member_are_read_from_the_answers(
    settings: Settings, instance: DagsterInstance
) -> None:
    with open_ledger(settings) as ledger:
        bars = range(DATA_END_MS + 9 * MS_PER_DAY, DATA_END_MS + 10 * MS_PER_DAY, 900_000)
        lost = [
            prediction(
                symbol="XRPUSDT",
                bar_ts=bar,
                model_type="ensemble",
                model_version="e",
                failed_members=(SOUND,),
            )
            for bar in bars
        ]
        ledger.record_predictions(
            [PredictionRecord(x, "champion", 1.0, str(x.bar_ts)) for x in lost]
        )
    other = _rows(_supervise(settings, instance, 10), "members")[1]
    assert other["state"] == "enabled", "XRPUSDT is not one of its symbols"
    with open_ledger(settings) as ledger:
        own = [x.model_copy(update={"symbol": "BTCUSDT"}) for x in lost]
        ledger.record_predictions(
            [PredictionRecord(x, "champion", 1.0, f"b{x.bar_ts}") for x in own]
        )
    failing = _rows(_supervise(settings, instance, 10), "members")[1]
    assert (failing["state"], failing["code"]) == ("warned", MemberCode.ERRORS.value)


def test_status_names_a_champion_that_is_too_old_and_one_that_has_expired(
    settings: Settings,
) -> None:
    def problems(day: float) -> list[str]:
        with open_ledger(settings) as ledger:
            set_replay_clock(ledger, DATA_END_MS + int(day * MS_PER_DAY))
        found = collect(settings)
        assert {row["expired"] for row in found["models"]} == {day > 60}
        return [text for text in found["problems"] if _name(SOUND) in text]

    assert problems(30) == []
    assert problems(60) == [f"{_name(SOUND)}: the champion is too old (60.0 days)"]
    (said,) = problems(60.5)
    assert "the champion has expired (60.5 days) and answers no more" in said
    assert "tradewind train" in said
