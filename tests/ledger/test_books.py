"""Money and positions: exact, once, and in agreement whatever is delivered how often."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.booking import (
    STEP,
    answer,
    decision,
    entry_with_exits,
    fill,
    open_position,
    request,
)
from tests.support.synthetic import START_MS
from tradewind.contracts import IntentStatus, Leg, OrderStatus, Side
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import FundingPayment, Ledger
from tradewind.ledger.accounting import OpenTrade, apply_fill

D = Decimal
Execution = tuple[str, int, Decimal, Decimal, Decimal]

prices = st.decimals("0.01", "90000", places=2)
quantities = st.decimals("0.001", "50", places=3)
executions = st.lists(
    st.tuples(
        st.sampled_from(["BTCUSDT", "ETHUSDT"]),
        st.sampled_from([1, -1]),
        quantities,
        prices,
        st.decimals("0", "5", places=8),
    ),
    min_size=1,
    max_size=12,
)


def test_a_stopped_trade_is_booked_to_the_cent(ledger: Ledger) -> None:
    _, stop, target = open_position(ledger, quantity="2", price="100.5", fee="0.08", stop="95.5")
    held = ledger.positions()[0]
    assert (held.quantity, held.entry_price, held.stop_distance) == (D(2), D("100.5"), D(5))
    assert (held.stop_price, held.target_price) == (D("95.5"), D("110"))
    later = START_MS + 4 * STEP
    ledger.book(answer(stop), [fill(stop, "95.4", fee="0.07", ts=later)])
    ledger.book(answer(target, OrderStatus.CANCELED))
    assert ledger.positions() == []
    assert ledger.cash() == D(10_000) - D("10.2") - D("0.15")
    trade = ledger.trades().row(0, named=True)
    assert trade["pnl"] == pytest.approx(-10.35)
    assert trade["realised_r"] == pytest.approx(-10.35 / 10)
    assert trade["exit_reason"] == "stop"
    assert trade["minutes_held"] == 45
    assert (trade["side"], trade["entry_price"], trade["exit_price"]) == ("buy", 100.5, 95.4)
    assert ledger.check().ok


def test_a_full_stop_is_minus_one_r_before_costs_for_a_short_too(ledger: Ledger) -> None:
    _, stop, _ = open_position(ledger, side=Side.SELL, stop="104", target="90", fee="0")
    ledger.book(answer(stop), [fill(stop, "104")])
    assert ledger.trades()["realised_r"].to_list() == [-1.0]


def test_an_exit_keeps_its_reason(ledger: Ledger) -> None:
    open_position(ledger)
    leave = request(bar=3, side=Side.SELL, leg=Leg.EXIT, decided_bar=0)
    ledger.add_intents([leave], "time exit: held 32 bars of at most 32")
    ledger.book(answer(leave), [fill(leave, "103")])
    assert ledger.trades()["exit_reason"].to_list() == ["time exit: held 32 bars of at most 32"]


def test_a_partial_close_leaves_the_rest_at_its_entry_price(ledger: Ledger) -> None:
    open_position(ledger, quantity="3", fee="0")
    half = request(bar=2, side=Side.SELL, leg=Leg.REDUCE, quantity="1", decided_bar=0)
    ledger.add_intents([half])
    ledger.book(answer(half), [fill(half, "104")])
    held = ledger.positions()[0]
    assert (held.quantity, held.entry_price, held.realised) == (D(2), D(100), D(4))
    assert ledger.cash() == D(10_004)
    assert ledger.trades().is_empty()
    assert ledger.check().ok


def test_what_is_booked_twice_changes_nothing(ledger: Ledger) -> None:
    entry, stop, _ = open_position(ledger)
    first = ledger.snapshot()
    for _ in range(3):
        assert ledger.book(answer(entry), [fill(entry, "100", fee="0.04")]) == 0
    assert ledger.snapshot() == first
    closing = [fill(stop, "95", fee="0.04")]
    assert ledger.book(answer(stop), closing) == 1
    cash = ledger.cash()
    assert ledger.book(answer(stop), closing) == 0
    assert ledger.cash() == cash
    assert ledger.trades().height == 1


def test_an_older_answer_that_arrives_late_does_not_undo_the_newer(ledger: Ledger) -> None:
    entry, *_ = open_position(ledger)
    ledger.book(answer(entry, OrderStatus.ACCEPTED))
    rows = {row["client_id"]: row for row in ledger.orders().to_dicts()}
    assert rows[entry.client_id]["status"] == "filled"
    assert rows[entry.client_id]["filled_quantity"] == 1
    assert ledger.check().ok


def test_an_order_without_an_intent_is_refused_and_nothing_is_written(ledger: Ledger) -> None:
    open_position(ledger)
    before = ledger.snapshot()
    stranger = request(bar=9)
    with pytest.raises(TradewindError, match="no intent") as caught:
        ledger.book(answer(stranger), [fill(stranger, "100")])
    assert caught.value.code is ErrorCode.LEDGER_UNBALANCED
    assert ledger.snapshot() == before


def test_a_fill_that_cannot_be_booked_takes_the_whole_answer_with_it(ledger: Ledger) -> None:
    _, stop, _ = open_position(ledger)
    before = ledger.snapshot()
    good = fill(stop, "95")
    stray = fill(request(bar=7, side=Side.SELL, leg=Leg.STOP, trigger="1"), "95")
    with pytest.raises(TradewindError):
        ledger.book(answer(stop), [good, stray])
    assert ledger.snapshot() == before
    assert ledger.check().ok


def test_a_rejected_order_ends_its_intent(ledger: Ledger) -> None:
    ledger.open_account(D(10_000), START_MS)
    orders = entry_with_exits()
    ledger.record_decision(decision(orders=orders))
    ledger.add_intents(orders)
    ledger.book(answer(orders[0], OrderStatus.REJECTED, detail="insufficient_margin: …"))
    intent = ledger.intent(orders[0].client_id)
    assert intent is not None
    assert (intent.status, intent.detail) == (IntentStatus.REJECTED, "insufficient_margin: …")


def test_a_fill_larger_than_the_position_turns_it_round(ledger: Ledger) -> None:
    open_position(ledger, quantity="1", fee="0")
    turn = request(bar=4, side=Side.SELL, quantity="3")
    ledger.record_decision(decision(bar=4, orders=(turn,)))
    ledger.add_intents([turn])
    ledger.book(answer(turn), [fill(turn, "110", fee="0.3")])
    held = ledger.positions()[0]
    assert (held.quantity, held.entry_price, held.fees) == (D(-2), D(110), D("0.2"))
    assert held.decision_id == turn.decision_id
    assert ledger.trades()["pnl"].to_list() == pytest.approx([9.9])
    assert ledger.check().ok


@pytest.mark.parametrize("late", [False, True])
def test_funding_belongs_to_the_trade_that_was_open(ledger: Ledger, late: bool) -> None:
    _, stop, _ = open_position(ledger, fee="0")
    payment = FundingPayment("p1", "BTCUSDT", D("-0.5"), D("0.0001"), START_MS + 2 * STEP)
    closing = [fill(stop, "95", ts=START_MS + 3 * STEP)]
    if late:
        ledger.book(answer(stop), closing)
    assert ledger.book_funding([payment, payment]) == 1
    if not late:
        ledger.book(answer(stop), closing)
    assert ledger.book_funding([payment]) == 0
    trade = ledger.trades().row(0, named=True)
    assert (trade["funding"], trade["pnl"]) == (-0.5, -5.5)
    assert trade["realised_r"] == pytest.approx(-1.1)
    assert ledger.cash() == D("9994.5")
    assert ledger.check().ok


def test_funding_without_a_trade_is_still_money(ledger: Ledger) -> None:
    ledger.open_account(D(100), START_MS)
    ledger.book_funding([FundingPayment("p", "BTCUSDT", D("-1"), D("0.001"), START_MS)])
    assert ledger.cash() == D(99)
    assert ledger.check().ok


def test_money_before_the_account_is_open_is_refused(ledger: Ledger) -> None:
    with pytest.raises(TradewindError, match="before the account is open"):
        ledger.book_funding([FundingPayment("p", "BTCUSDT", D("-1"), D("0.001"), START_MS)])
    assert ledger.cash() == 0


def test_the_account_is_opened_once(ledger: Ledger) -> None:
    ledger.open_account(D(10_000), START_MS)
    ledger.open_account(D(99), START_MS + 1)
    assert (ledger.cash(), ledger.initial_cash()) == (D(10_000), D(10_000))


@given(executions)
def test_realised_results_add_up_to_what_was_received_minus_what_was_paid(
    fills: list[Execution],
) -> None:
    trade: OpenTrade | None = None
    realised = fees = flow = position = D(0)
    ended = []
    for number, (_, sign, quantity, price, fee) in enumerate(fills):
        applied = apply_fill(
            trade, fill_id=str(number), signed=sign * quantity, price=price, fee=fee
        )
        trade = applied.opened
        realised += applied.realised
        fees += fee
        flow -= sign * quantity * price
        position += sign * quantity
        ended += [applied.closed] if applied.closed else []
    open_cost = trade.cost if trade else D(0)
    assert (trade.quantity if trade else 0) == position
    assert realised == flow + open_cost
    done = [*ended, *([trade] if trade else [])]
    assert sum(t.realised for t in done) == realised
    assert sum(t.fees for t in done) == fees
    assert all(t.quantity == 0 and t.cost == 0 for t in ended)


@settings(
    max_examples=25,
    deadline=None,
    phases=(
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
    ),  # each example is a database: no shrinking
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(executions, st.randoms(use_true_random=False))
def test_books_balance_for_any_fills_delivered_in_any_way(
    fresh_ledger: Callable[[], Ledger],
    fills: list[Execution],
    rng: random.Random,
) -> None:
    with fresh_ledger() as ledger:
        ledger.open_account(D(10_000), START_MS)
        expected: dict[str, Decimal] = {}
        value = D(0)
        for number, (symbol, sign, quantity, price, fee) in enumerate(fills):
            side = Side.BUY if sign > 0 else Side.SELL
            order = request(symbol, number, side, quantity=str(quantity))
            ledger.record_decision(decision(symbol, number, (order,)))
            ledger.add_intents([order])
            parts = _parts(order.quantity, rng)
            sent = [
                fill(order, str(price), quantity=str(part), fee=str(fee), number=i)
                for i, part in enumerate(parts)
            ]
            for _ in range(rng.randint(1, 3)):  # duplicates, and one part at a time
                ledger.book(answer(order), rng.sample(sent, rng.randint(0, len(sent))))
            ledger.book(answer(order), sent)
            expected[symbol] = expected.get(symbol, D(0)) + sign * quantity
            value -= sign * quantity * price + fee * len(parts)
        held = {p.symbol: p.quantity for p in ledger.positions()}
        assert held == {symbol: total for symbol, total in expected.items() if total != 0}
        open_value = sum((p.quantity * p.entry_price for p in ledger.positions()), D(0))
        assert abs(ledger.cash() - D(10_000) - value - open_value) < D("1e-8")
        found = ledger.check()
        assert found.ok, found.lines


def _parts(quantity: Decimal, rng: random.Random) -> list[Decimal]:
    steps = int(quantity * 1000)
    first = rng.randint(1, steps)
    return [D(n) / 1000 for n in (first, steps - first) if n]
