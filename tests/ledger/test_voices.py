"""What models said, alone and as members, as the supervisor reads it from the log."""

from __future__ import annotations

from tests.support.predictions import prediction
from tests.support.synthetic import START_MS
from tradewind.contracts import Action, Outcome, Prediction, Vote
from tradewind.ledger import Ledger, PredictionRecord
from tradewind.ledger.records import Role
from tradewind.ledger.voices import Voices, voices

STEP, HORIZON = 900_000, 4
LABEL = "tradewind.lightgbm.POOLED/2"


def _ensemble(bar: int, p_up: float, **changes: object) -> Prediction:
    vote = Vote(
        family="lightgbm",
        model_version=LABEL,
        action=Action.HOLD,
        p_up=p_up,
        mu=0.0,
        confidence=0.5,
        weight=0.0,
        latency_ms=7.5,
    )
    values = {"model_type": "ensemble", "model_version": "ensemble-1", "votes": (vote,)}
    return prediction(bar_ts=START_MS + bar * STEP, **{**values, **changes})


def _log(ledger: Ledger, *said: Prediction, role: Role = "champion") -> None:
    first = len(ledger.predictions())
    ledger.record_predictions(
        [PredictionRecord(item, role, 1.0, str(first + i)) for i, item in enumerate(said)]
    )


def _read(ledger: Ledger, now_bar: int) -> Voices:
    now_ms = START_MS + now_bar * STEP
    return voices(
        ledger.db, horizon=HORIZON, timeframe_ms=STEP, since_ms=START_MS + STEP, now_ms=now_ms
    )


def test_votes_and_answers_alone_are_read_once_with_what_came_of_them(ledger: Ledger) -> None:
    alone = prediction(bar_ts=START_MS + 2 * STEP, p_up=0.7, model_version=LABEL)
    _log(ledger, _ensemble(0, 0.1), _ensemble(1, 0.3), _ensemble(1, 0.4), alone, _ensemble(9, 0.2))
    _log(ledger, prediction(bar_ts=START_MS + 3 * STEP, model_version=LABEL), role="shadow")
    ledger.record_outcomes(
        [
            Outcome(
                symbol="BTCUSDT",
                bar_ts=START_MS + bar * STEP,
                horizon=HORIZON,
                fwd_ret=0.01,
                y_up=True,
            )
            for bar in (1, 2)
        ]
    )
    heard = _read(ledger, now_bar=6).said
    assert heard.select("label", "bar_ts", "p_up", "y_up", "latency_ms").rows() == [
        (LABEL, START_MS + STEP, 0.3, 1.0, 7.5),
        # Its last bar closes at 7: a replay that was set back does not know it yet.
        (LABEL, START_MS + 2 * STEP, 0.7, None, None),
    ]
    assert _read(ledger, now_bar=7).said["y_up"].to_list() == [1.0, 1.0]


def test_failures_are_read_from_the_ensemble_s_answers(ledger: Ledger) -> None:
    _log(ledger, _ensemble(1, 0.3, failed_members=("gru", "nhits")), _ensemble(2, 0.3))
    failed = _read(ledger, now_bar=6).failed
    assert failed.rows() == [
        ("gru", "BTCUSDT", START_MS + STEP),
        ("nhits", "BTCUSDT", START_MS + STEP),
    ]
