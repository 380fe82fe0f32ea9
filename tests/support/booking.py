"""Short ways to decisions, orders and fills, for tests of the books."""

from __future__ import annotations

from decimal import Decimal

from tests.support.synthetic import START_MS
from tradewind.contracts import (
    Action,
    BrokerOrder,
    Decision,
    Fill,
    Leg,
    OrderRequest,
    OrderStatus,
    OrderType,
    Reason,
    Side,
    client_order_id,
    decision_id,
)
from tradewind.ledger import Ledger

STEP = 900_000
TYPES = {Leg.STOP: OrderType.STOP_MARKET, Leg.TARGET: OrderType.TAKE_PROFIT_MARKET}


def request(
    symbol: str = "BTCUSDT",
    bar: int = 0,
    side: Side = Side.BUY,
    leg: Leg = Leg.ENTRY,
    quantity: str = "1",
    trigger: str | None = None,
    parent: str | None = None,
    decided_bar: int | None = None,
    **changes: object,
) -> OrderRequest:
    """Return an order of the decision of bar ``decided_bar`` (``bar`` unless given)."""
    bar_ts = START_MS + bar * STEP
    owner = START_MS + (bar if decided_bar is None else decided_bar) * STEP
    values: dict[str, object] = {
        "client_id": client_order_id(symbol, bar_ts, side, leg),
        "decision_id": decision_id("tradewind", symbol, "15m", owner),
        "symbol": symbol,
        "side": side,
        "type": TYPES.get(leg, OrderType.MARKET),
        "leg": leg,
        "quantity": Decimal(quantity),
        "trigger_price": None if trigger is None else Decimal(trigger),
        "reduce_only": leg is not Leg.ENTRY,
        "parent_id": parent,
        "created_ms": bar_ts + STEP,
    }
    return OrderRequest.model_validate(values | changes)


def entry_with_exits(
    symbol: str = "BTCUSDT",
    bar: int = 0,
    side: Side = Side.BUY,
    quantity: str = "1",
    stop: str = "95",
    target: str = "110",
) -> tuple[OrderRequest, OrderRequest, OrderRequest]:
    """Return an entry with the two orders that protect it."""
    entry = request(symbol, bar, side, quantity=quantity)
    close = side.opposite
    return (
        entry,
        request(symbol, bar, close, Leg.STOP, quantity, stop, entry.client_id),
        request(symbol, bar, close, Leg.TARGET, quantity, target, entry.client_id),
    )


def decision(
    symbol: str = "BTCUSDT", bar: int = 0, orders: tuple[OrderRequest, ...] = ()
) -> Decision:
    """Return a decision with these orders (HOLD without any)."""
    action = Action.HOLD
    if orders:
        action = Action.BUY if orders[0].side is Side.BUY else Action.SELL
    bar_ts = START_MS + bar * STEP
    return Decision(
        decision_id=decision_id("tradewind", symbol, "15m", bar_ts),
        strategy="tradewind",
        policy_version="test",
        symbol=symbol,
        timeframe="15m",
        bar_ts=bar_ts,
        action=action,
        reasons=(Reason(step="risk gate", text="allowed", figures={"drawdown": 0.0125}),),
        orders=orders,
        created_ms=bar_ts + STEP,
    )


def answer(
    order: OrderRequest,
    status: OrderStatus = OrderStatus.FILLED,
    *,
    filled: str | None = None,
    updated_ms: int | None = None,
    detail: str = "",
) -> BrokerOrder:
    """Return what a broker says of an order; a filled one is filled whole unless told."""
    done = order.quantity if status is OrderStatus.FILLED else Decimal(0)
    return BrokerOrder(
        client_id=order.client_id,
        broker_id=f"b-{order.client_id}",
        symbol=order.symbol,
        side=order.side,
        type=order.type,
        leg=order.leg,
        quantity=order.quantity,
        status=status,
        filled_quantity=done if filled is None else Decimal(filled),
        reduce_only=order.reduce_only,
        detail=detail,
        updated_ms=order.created_ms if updated_ms is None else updated_ms,
    )


def fill(
    order: OrderRequest,
    price: str,
    *,
    quantity: str | None = None,
    fee: str = "0",
    ts: int | None = None,
    number: int = 1,
) -> Fill:
    """Return an execution of an order, whole unless ``quantity`` is given."""
    return Fill(
        fill_id=f"f-{order.client_id}-{number}",
        client_id=order.client_id,
        symbol=order.symbol,
        side=order.side,
        leg=order.leg,
        quantity=order.quantity if quantity is None else Decimal(quantity),
        price=Decimal(price),
        fee=Decimal(fee),
        ts=order.created_ms if ts is None else ts,
    )


def open_position(
    ledger: Ledger,
    symbol: str = "BTCUSDT",
    bar: int = 0,
    side: Side = Side.BUY,
    quantity: str = "1",
    price: str = "100",
    fee: str = "0.04",
    stop: str = "95",
    target: str = "110",
) -> tuple[OrderRequest, OrderRequest, OrderRequest]:
    """Decide, intend and book a filled entry with working protection; return its orders."""
    ledger.open_account(Decimal(10_000), START_MS)
    orders = entry_with_exits(symbol, bar, side, quantity, stop, target)
    ledger.record_decision(decision(symbol, bar, orders))
    ledger.add_intents(orders)
    for child in orders[1:]:
        ledger.book(answer(child, OrderStatus.ACCEPTED))
    ledger.book(answer(orders[0]), [fill(orders[0], price, fee=fee)])
    return orders
