"""What serving logs, what it becomes, and which members may speak."""

from __future__ import annotations

from tests.support.booking import STEP
from tests.support.synthetic import START_MS
from tests.support.trading_day import prediction
from tradewind.contracts import Outcome
from tradewind.ledger import Ledger, PredictionRecord


def records(count: int, request_id: str = "r") -> list[PredictionRecord]:
    return [
        PredictionRecord(
            prediction("BTCUSDT", START_MS + i * STEP, 0.6, decision_id=f"d{i}"),
            "champion",
            1.5,
            f"{request_id}{i}",
        )
        for i in range(count)
    ]


def test_a_prediction_is_logged_once_and_needs_no_decision(ledger: Ledger) -> None:
    assert ledger.record_predictions(records(3)) == 3
    assert ledger.record_predictions(records(5)) == 2
    assert ledger.record_predictions([]) == 0
    assert ledger.predictions().height == 5


def test_champion_and_shadow_stand_side_by_side(ledger: Ledger) -> None:
    champion = records(1)[0]
    shadow = PredictionRecord(champion.prediction, "shadow", 9.0, champion.request_id)
    assert ledger.record_predictions([champion, shadow]) == 2
    found = ledger.predictions(decision_id="d0", role="shadow")
    assert found.select("role", "p_up", "latency_ms", "decision_id").rows() == [
        ("shadow", 0.6, 9.0, "d0")
    ]


def test_predictions_are_found_by_time_symbol_and_model(ledger: Ledger) -> None:
    ledger.record_predictions(records(4))
    since, until = START_MS + STEP, START_MS + 3 * STEP
    assert ledger.predictions(since_ms=since, until_ms=until)["bar_ts"].to_list() == [
        since,
        since + STEP,
    ]
    assert ledger.predictions(symbol="ETHUSDT").is_empty()
    assert ledger.predictions(model_type="scripted").height == 4
    assert ledger.predictions(model_type="ensemble").is_empty()


def test_an_outcome_once_known_stays(ledger: Ledger) -> None:
    outcome = Outcome(symbol="BTCUSDT", bar_ts=START_MS, horizon=16, fwd_ret=0.01, y_up=True)
    assert ledger.record_outcomes([outcome]) == 1
    assert ledger.record_outcomes([outcome.model_copy(update={"fwd_ret": 9.0})]) == 0
    assert ledger.record_outcomes([]) == 0
    assert ledger.outcomes(symbol="BTCUSDT").rows() == [("BTCUSDT", START_MS, 16, 0.01, True)]


def test_a_member_is_disabled_and_enabled_again(ledger: Ledger) -> None:
    assert ledger.member_state() == {}
    ledger.set_member_state("lightgbm", "BTCUSDT", enabled=False, why="PSI 0.31")
    assert ledger.member_state() == {("lightgbm", "BTCUSDT"): (False, "PSI 0.31")}
    ledger.set_member_state("lightgbm", "BTCUSDT", enabled=True, why="retrained")
    assert ledger.member_state() == {("lightgbm", "BTCUSDT"): (True, "retrained")}
