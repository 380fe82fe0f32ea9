"""Decisions and intents: once, in order, and never lost between the two."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.support.booking import STEP, answer, decision, entry_with_exits, open_position, request
from tests.support.synthetic import START_MS
from tradewind.contracts import IntentStatus, Leg, Side
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import Ledger


def test_the_first_decision_of_a_bar_rules(ledger: Ledger) -> None:
    first = decision(orders=entry_with_exits())
    assert ledger.record_decision(first)
    assert not ledger.record_decision(decision())
    assert ledger.decision(first.decision_id) == first
    assert ledger.count_decisions() == 1
    assert ledger.decided([first.decision_id, "another"]) == {first.decision_id}


def test_a_decision_that_is_not_there_is_none(ledger: Ledger) -> None:
    assert ledger.decision("missing") is None
    assert ledger.decided([]) == set()


def test_a_decision_killed_before_its_intents_is_found_again(ledger: Ledger) -> None:
    orders = entry_with_exits()
    ledger.record_decision(decision(orders=orders))
    ledger.record_decision(decision("ETHUSDT"))
    assert [d.orders for d in ledger.unfinished_decisions()] == [orders]
    assert ledger.add_intents(orders) == 3
    assert ledger.unfinished_decisions() == []
    assert ledger.add_intents(orders) == 0


def test_an_exit_added_later_is_no_part_of_the_decision_itself(ledger: Ledger) -> None:
    orders = entry_with_exits()
    ledger.record_decision(decision(orders=orders))
    leave = request(bar=5, side=Side.SELL, leg=Leg.EXIT, decided_bar=0)
    ledger.add_intents([leave], "time exit")
    assert [d.orders for d in ledger.unfinished_decisions()] == [orders]


def test_intents_come_entries_first_and_keep_every_digit(ledger: Ledger) -> None:
    for symbol in ("ETHUSDT", "BTCUSDT"):
        orders = entry_with_exits(symbol, quantity="0.10000", stop="95.10")
        ledger.record_decision(decision(symbol, orders=orders))
        ledger.add_intents(orders)
    found = ledger.open_intents()
    assert [(s.intent.order.symbol, s.intent.order.leg) for s in found] == [
        (symbol, leg)
        for symbol in ("BTCUSDT", "ETHUSDT")
        for leg in (Leg.ENTRY, Leg.STOP, Leg.TARGET)
    ]
    assert str(found[0].intent.order.quantity) == "0.10000"
    assert str(found[1].intent.order.trigger_price) == "95.10"
    assert (found[0].bar_ts, found[0].timeframe) == (START_MS, "15m")


def test_an_intent_moves_on_and_is_no_longer_open(ledger: Ledger) -> None:
    entry, stop, target = entry_with_exits()
    ledger.record_decision(decision(orders=(entry, stop, target)))
    ledger.add_intents((entry, stop, target))
    ledger.mark_intent(entry.client_id, IntentStatus.SENDING)
    ledger.mark_intent(stop.client_id, IntentStatus.EXPIRED, "late")
    assert [s.intent.status for s in ledger.open_intents()] == [
        IntentStatus.SENDING,
        IntentStatus.NEW,
    ]
    ended = ledger.intent(stop.client_id)
    assert ended is not None
    assert ended.detail == "late"


def test_an_intent_without_a_decision_is_refused(ledger: Ledger) -> None:
    with pytest.raises(TradewindError, match="which is not stored") as caught:
        ledger.add_intents(entry_with_exits())
    assert caught.value.code is ErrorCode.LEDGER_UNBALANCED
    with pytest.raises(TradewindError, match="is not stored"):
        ledger.mark_intent("nobody", IntentStatus.EXPIRED)


def test_the_database_itself_refuses_what_hangs_in_the_air(ledger: Ledger) -> None:
    """Foreign keys hold even against code that forgets to look."""
    from tradewind.ledger.schema import fills

    row = {"fill_id": "x", "client_id": "nobody", "symbol": "BTCUSDT", "side": "buy"}
    numbers = {"quantity": Decimal(1), "price": Decimal(1), "fee": Decimal(0)}
    with (
        pytest.raises(TradewindError, match="ledger refuses a row"),
        ledger.db.write() as connection,
    ):
        connection.execute(fills.insert().values(**row, **numbers, leg="entry", ts=1, seq=1))


def test_settings_have_one_version_each(ledger: Ledger) -> None:
    first = ledger.record_settings({"risk": {"daily_loss": 0.03}}, START_MS)
    assert ledger.record_settings({"risk": {"daily_loss": 0.03}}, START_MS + 9) == first
    assert ledger.record_settings({"risk": {"daily_loss": 0.04}}, START_MS) != first


def test_a_story_goes_from_prediction_to_result(ledger: Ledger) -> None:
    from tests.support.booking import fill
    from tests.support.trading_day import prediction
    from tradewind.contracts import Outcome
    from tradewind.ledger import PredictionRecord

    seen = prediction("BTCUSDT", START_MS, 0.6234)
    made = decision(orders=entry_with_exits()).model_copy(update={"prediction": seen})
    logged = seen.model_copy(update={"decision_id": made.decision_id})
    ledger.record_predictions([PredictionRecord(logged, "champion", 12.0, "r1")])
    ledger.record_decision(made)
    _, stop, _ = open_position(ledger, fee="0.04")
    ledger.book(answer(stop), [fill(stop, "95", fee="0.04", ts=START_MS + 4 * STEP)])
    ledger.record_outcomes(
        [Outcome(symbol="BTCUSDT", bar_ts=START_MS, horizon=16, fwd_ret=-0.05, y_up=False)]
    )
    story = ledger.explain(made.decision_id[:8])
    assert story.to_dict()["decision_id"] == made.decision_id
    lines = story.text().splitlines()
    order = ["p_up 0.6234", "1. risk gate: allowed (drawdown 0.0125)", "entry: buy 1 BTCUSDT",
             "stop: sell 1 BTCUSDT stop_market at 95", "entry: buy 1 at 100, fee 0.04",
             "stop: sell 1 at 95", "outcome: -0.050000 over 16 bars (not up)",
             "trade: buy 1 from 100 to 95, net -5.0800 (-1.02 R"]  # fmt: skip
    places = [next(i for i, line in enumerate(lines) if part in line) for part in order]
    assert places == sorted(places)
    assert str(ledger.explain("latest")) == story.text()


@pytest.mark.parametrize("wanted", ["missing", "ab", ""])
def test_a_story_of_nothing_is_an_error(ledger: Ledger, wanted: str) -> None:
    with pytest.raises(TradewindError, match="is not in the ledger"):
        ledger.explain(wanted)
