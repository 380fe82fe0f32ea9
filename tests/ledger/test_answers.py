"""A model's own answers, alone or as a vote, beside their outcomes."""

from __future__ import annotations

import uuid

from tests.support.synthetic import START_MS
from tests.support.trading_day import prediction
from tradewind.contracts import Action, Outcome, Vote
from tradewind.ledger import Ledger, PredictionRecord
from tradewind.ledger.answers import realised_answers, spoken_answers

STEP = 900_000
NAME = "tradewind.xgboost.POOLED"
END = START_MS + 100 * STEP


def _vote(version: str, p_up: float) -> Vote:
    return Vote(
        family=version.split(".")[1],
        model_version=version,
        action=Action.HOLD,
        p_up=p_up,
        mu=0.0,
        confidence=0.1,
        weight=0.5,
    )


def _log(ledger: Ledger, bar: int, *, role: str = "champion", **changes: object) -> None:
    said = prediction("BTCUSDT", START_MS + bar * STEP, 0.6).model_copy(update=changes)
    record = PredictionRecord(said, role, 1.0, uuid.uuid4().hex)  # type: ignore[arg-type]
    ledger.record_predictions([record])


def _found(ledger: Ledger, now_ms: int = END) -> list[tuple[object, ...]]:
    frame = realised_answers(
        ledger, NAME, horizon=16, timeframe_ms=STEP, since_ms=START_MS, now_ms=now_ms
    )
    return frame.rows()


def _outcomes(ledger: Ledger, *known: tuple[int, int, int]) -> None:
    ledger.record_outcomes(
        [
            Outcome(
                symbol="BTCUSDT",
                bar_ts=START_MS + bar * STEP,
                horizon=horizon,
                fwd_ret=0.01 * sign,
                y_up=sign > 0,
            )
            for bar, horizon, sign in known
        ]
    )


def test_own_answers_and_votes_count_once_a_bar(ledger: Ledger) -> None:
    votes = (_vote("tradewind.lightgbm.POOLED/9", 0.4), _vote(f"{NAME}/2", 0.55))
    _log(ledger, 0, model_type="ensemble", model_version="ensemble-1", votes=votes)
    _log(ledger, 0, model_type="xgboost", model_version=f"{NAME}/2", p_up=0.56)
    _log(ledger, 1, model_type="xgboost", model_version=f"{NAME}/3", p_up=0.44)
    _log(ledger, 2, model_type="xgboost", model_version=f"{NAME}/3", p_up=0.4)
    _log(ledger, 3, model_type="xgboost", model_version=f"{NAME}/4", p_up=0.4, role="shadow")
    _log(ledger, 4, model_type="lightgbm", model_version="tradewind.lightgbm.POOLED/9")
    _log(ledger, 5, model_type="xgboost", model_version=f"{NAME}X/1")
    _outcomes(ledger, (0, 16, 1), (0, 4, -1), (1, 16, -1), (3, 16, 1), (4, 16, 1), (5, 16, 1))
    # Bar 2 has no outcome yet, 3 was the shadow's, 4 and 5 another model's.
    assert _found(ledger) == [
        ("BTCUSDT", START_MS, 2, 0.55, 1.0),
        ("BTCUSDT", START_MS + STEP, 3, 0.44, 0.0),
    ]


def test_an_outcome_counts_from_the_close_of_its_last_bar(ledger: Ledger) -> None:
    # The ledger knows both outcomes: the clock of a replay was set back.
    for bar in (0, 1):
        _log(ledger, bar, model_type="xgboost", model_version=f"{NAME}/1")
    _outcomes(ledger, (0, 16, 1), (1, 16, 1))
    assert len(_found(ledger, START_MS + 17 * STEP - 1)) == 0
    assert [row[1] for row in _found(ledger, START_MS + 17 * STEP)] == [START_MS]
    assert len(_found(ledger, START_MS + 18 * STEP)) == 2


def test_each_version_that_spoke_of_a_bar_counts(ledger: Ledger) -> None:
    for version, p_up in ((1, 0.6), (2, 0.55), (2, 0.54)):
        _log(ledger, 0, model_type="xgboost", model_version=f"{NAME}/{version}", p_up=p_up)
    _outcomes(ledger, (0, 16, 1))
    assert [row[2:4] for row in _found(ledger)] == [(1, 0.6), (2, 0.55)]


def test_nothing_said_gives_an_empty_table(ledger: Ledger) -> None:
    assert _found(ledger) == []


def test_every_answer_and_vote_is_told_by_alias(ledger: Ledger) -> None:
    votes = (_vote("tradewind.lightgbm.POOLED/9", 0.4), _vote(f"{NAME}/2", 0.55))
    _log(ledger, 0, model_type="ensemble", model_version="ensemble-1", votes=votes, mu_low=-0.1)
    _log(ledger, 0, role="shadow", served_by="challenger", model_version=f"{NAME}/3", p_up=0.7)
    _log(ledger, 0, role="shadow", served_by="challenger", model_version=f"{NAME}/3", p_up=0.8)
    _log(ledger, 1, model_version=f"{NAME}/2")  # no outcome yet
    _outcomes(ledger, (0, 16, 1))
    found = spoken_answers(ledger, horizon=16, timeframe_ms=STEP, since_ms=START_MS, now_ms=END)
    told = found.select("label", "alias", "p_up", "mu_low", "fwd_ret", "y_up", "members").rows()
    members = [vote.model_version for vote in votes]
    assert told == [
        ("ensemble-1", "champion", 0.6, -0.1, 0.01, 1.0, members),
        (members[0], "champion", 0.4, None, 0.01, 1.0, [members[0]]),
        (members[1], "champion", 0.55, None, 0.01, 1.0, [members[1]]),
        (f"{NAME}/3", "challenger", 0.7, None, 0.01, 1.0, [f"{NAME}/3"]),
    ]
    early = spoken_answers(
        ledger, horizon=16, timeframe_ms=STEP, since_ms=START_MS, now_ms=START_MS + 17 * STEP - 1
    )
    assert early.height == 0
