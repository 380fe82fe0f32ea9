"""How a simulated exchange fills: pessimistic, at the open over gaps, never twice."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.brokers.matching import Bar, Exchange, Holding, PaperOrder, touched_price
from tradewind.contracts import Leg, OrderStatus, OrderType, Side
from tradewind.settings import CostSettings

D = Decimal
LAST = 899_999
FREE = CostSettings(taker=D(0), slippage_min=D(0), slippage_max=D(0), slippage_per_volatility=D(0))


def order(
    name: str,
    side: Side = Side.BUY,
    kind: OrderType = OrderType.MARKET,
    quantity: str = "1",
    trigger: str | None = None,
    *,
    parent: str | None = None,
    reduce: bool | None = None,
    active_from: int = 0,
    seq: int = 0,
) -> PaperOrder:
    conditional = kind is not OrderType.MARKET
    return PaperOrder(
        client_id=name,
        seq=seq,
        symbol="BTCUSDT",
        side=side,
        type=kind,
        leg=Leg.STOP if kind is OrderType.STOP_MARKET else Leg.TARGET if conditional else Leg.ENTRY,
        quantity=D(quantity),
        trigger_price=None if trigger is None else D(trigger),
        reduce_only=conditional if reduce is None else reduce,
        parent_id=parent,
        leverage=D(3),
        status=OrderStatus.ACCEPTED,
        filled_quantity=D(0),
        average_price=None,
        detail="",
        active_from=active_from,
        updated_ms=active_from,
    )


def bar(first: str, high: str, low: str, last: str, volume: float = 1.0, ts: int = 0) -> Bar:
    return Bar(ts, D(first), D(high), D(low), D(last), volume)


def exchange(
    *orders: PaperOrder, costs: CostSettings = FREE, quantity: str | None = None
) -> Exchange:
    holdings = {}
    if quantity is not None:
        size = D(quantity)
        holdings["BTCUSDT"] = Holding("BTCUSDT", size, size * 100, D(3), 0)
    return Exchange(costs, D("0.01"), D(10_000), {o.client_id: o for o in orders}, holdings)


@pytest.mark.parametrize(
    ("side", "kind", "trigger", "shape", "price"),
    [
        (Side.SELL, OrderType.STOP_MARKET, "95", ("100", "101", "96", "97"), None),
        (Side.SELL, OrderType.STOP_MARKET, "95", ("100", "101", "95", "97"), "95"),
        (Side.SELL, OrderType.STOP_MARKET, "95", ("93", "99", "92", "97"), "93"),
        (Side.BUY, OrderType.STOP_MARKET, "105", ("100", "106", "99", "100"), "105"),
        (Side.BUY, OrderType.STOP_MARKET, "105", ("108", "109", "99", "100"), "108"),
        (Side.BUY, OrderType.STOP_MARKET, "105", ("100", "104", "99", "100"), None),
        (Side.SELL, OrderType.TAKE_PROFIT_MARKET, "105", ("100", "105", "99", "100"), "105"),
        (Side.SELL, OrderType.TAKE_PROFIT_MARKET, "105", ("107", "108", "99", "100"), "107"),
        (Side.BUY, OrderType.TAKE_PROFIT_MARKET, "95", ("100", "101", "94", "100"), "95"),
        (Side.BUY, OrderType.TAKE_PROFIT_MARKET, "95", ("93", "101", "92", "100"), "93"),
        (Side.BUY, OrderType.MARKET, None, ("93", "101", "92", "100"), None),
    ],
)
def test_where_a_trigger_fills(
    side: Side, kind: OrderType, trigger: str | None, shape: tuple[str, ...], price: str | None
) -> None:
    found = touched_price(order("o", side, kind, trigger=trigger), bar(*shape))  # type: ignore[arg-type]
    assert found == (None if price is None else D(price))


def test_a_bar_that_touches_both_ends_at_the_stop() -> None:
    stop = order("s", Side.SELL, OrderType.STOP_MARKET, trigger="95", parent="e", seq=2)
    target = order("t", Side.SELL, OrderType.TAKE_PROFIT_MARKET, trigger="105", parent="e", seq=1)
    venue = exchange(order("e"), stop, target)
    venue.meet("BTCUSDT", bar("100", "106", "94", "100"), volatility=0, last_ms=LAST)
    assert [(f.client_id, f.price, f.ts) for f in venue.new_fills] == [
        ("e", D(100), 0),
        ("s", D(95), LAST),
    ]
    assert (target.status, target.detail) == (OrderStatus.CANCELED, "stop filled")
    assert venue.cash == 9_995
    assert venue.holdings == {}


def test_without_volume_nothing_trades() -> None:
    stop = order("s", Side.SELL, OrderType.STOP_MARKET, trigger="95")
    venue = exchange(order("e"), stop, quantity="1")
    venue.meet("BTCUSDT", bar("90", "90", "90", "90", volume=0), volatility=0, last_ms=LAST)
    assert venue.new_fills == []


def test_an_order_does_not_meet_a_bar_before_its_time() -> None:
    venue = exchange(order("e", active_from=900_000))
    venue.meet("BTCUSDT", bar("100", "101", "99", "100"), volatility=0, last_ms=LAST)
    assert venue.new_fills == []


def test_fills_cost_slippage_towards_the_worse_tick_and_the_taker_fee() -> None:
    costs = CostSettings(slippage_per_volatility=D(0), slippage_per_notional=D(0))
    buy, sell = exchange(order("b"), costs=costs), exchange(order("s", Side.SELL), costs=costs)
    for venue in (buy, sell):
        venue.meet("BTCUSDT", bar("100.30", "101", "99", "100"), volatility=0, last_ms=LAST)
    # 2 bps of 100.30 is 0.02006: a buyer pays 100.33, a seller gets 100.27.
    assert buy.new_fills[0].price == D("100.33")
    assert sell.new_fills[0].price == D("100.27")
    assert buy.new_fills[0].fee == D("0.04013200")
    assert buy.cash == D(10_000) - D("0.040132")


def test_longs_pay_and_shorts_receive_a_positive_rate() -> None:
    for quantity, change in (("2", "-0.02"), ("-2", "0.02")):
        venue = exchange(quantity=quantity)
        venue.pay_funding("BTCUSDT", 0, D(100), D("0.0001"))
        assert venue.cash == D(10_000) + D(change)
        assert venue.new_funding[0].amount == D(change)
    venue = exchange()
    venue.pay_funding("BTCUSDT", 0, D(100), D("0.0001"))
    assert venue.new_funding == []


steps = st.integers(-300, 300).map(lambda n: D(n) / 100)
orders = st.lists(
    st.tuples(
        st.sampled_from(list(OrderType)),
        st.sampled_from(list(Side)),
        st.integers(1, 5),
        st.integers(9500, 10500),
        st.booleans(),
    ),
    max_size=8,
)
walks = st.lists(st.tuples(steps, steps, st.booleans()), min_size=1, max_size=8)


@given(orders, walks)
def test_whatever_happens_money_and_positions_follow_from_the_fills(
    wanted: list[tuple[OrderType, Side, int, int, bool]],
    walk: list[tuple[Decimal, Decimal, bool]],
) -> None:
    book = [
        order(
            f"o{i}",
            side,
            kind,
            str(size),
            None if kind is OrderType.MARKET else str(D(trigger) / 100),
            reduce=reduce,
            seq=i,
        )
        for i, (kind, side, size, trigger, reduce) in enumerate(wanted)
    ]
    venue = exchange(*book, costs=CostSettings())
    price = D(100)
    for place, (move, width, trades) in enumerate(walk):
        first, price = price, max(price + move, D(1))
        high, low = max(first, price) + abs(width), max(min(first, price) - abs(width), D("0.5"))
        shape = Bar(place * 900_000, first, high, low, price, 1.0 if trades else 0.0)
        before = {s: h.quantity for s, h in venue.holdings.items()}
        done = len(venue.new_fills)
        venue.meet("BTCUSDT", shape, volatility=0.02, last_ms=shape.ts + LAST)
        held = before.get("BTCUSDT", D(0))
        for fill in venue.new_fills[done:]:
            after = held + fill.side.sign * fill.quantity
            if venue.orders[fill.client_id].reduce_only:
                assert abs(after) < abs(held)
                assert after * held >= 0
            held = after
    names = [fill.client_id for fill in venue.new_fills]
    assert len(names) == len(set(names))
    total = sum((f.side.sign * f.quantity for f in venue.new_fills), D(0))
    holding = venue.holdings.get("BTCUSDT")
    assert (holding.quantity if holding else 0) == total
    paid = sum((f.side.sign * f.quantity * f.price + f.fee for f in venue.new_fills), D(0))
    still_open = holding.cost if holding else D(0)
    assert venue.cash == D(10_000) - paid + still_open
