"""Reading and writing the paper exchange's tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from policy.brokers.matching import Exchange, Holding, PaperOrder
from policy.brokers.paper_schema import account, cursors, fills, funding, orders, positions
from tradewind.contracts import Fill, Leg, OrderStatus, OrderType, Side
from tradewind.ledger.records import FundingPayment
from tradewind.settings import Settings

ACCOUNT = 1


def to_order(row: Row[Any]) -> PaperOrder:
    """Return the order of a row."""
    values = dict(row._mapping)
    values |= {
        "side": Side(row.side),
        "type": OrderType(row.type),
        "leg": Leg(row.leg),
        "status": OrderStatus(row.status),
    }
    return PaperOrder(**values)


def to_fill(row: Row[Any]) -> Fill:
    """Return the fill of a row."""
    return Fill(
        fill_id=row.fill_id,
        client_id=row.client_id,
        symbol=row.symbol,
        side=Side(row.side),
        leg=Leg(row.leg),
        quantity=row.quantity,
        price=row.price,
        fee=row.fee,
        ts=row.ts,
    )


def to_payment(row: Row[Any]) -> FundingPayment:
    """Return the funding payment of a row."""
    return FundingPayment(row.payment_id, row.symbol, row.amount, row.rate, row.ts)


def order_row(order: PaperOrder) -> dict[str, Any]:
    """Return the row of an order."""
    return asdict(order) | {
        "side": order.side.value,
        "type": order.type.value,
        "leg": order.leg.value,
        "status": order.status.value,
    }


def load(connection: Connection, settings: Settings, *, lock: bool = False) -> Exchange:
    """Return the exchange as stored; ``lock`` keeps other writers out until the commit."""
    query = select(account.c.cash)
    cash = connection.execute(query.with_for_update() if lock else query).scalar_one()
    accepted = OrderStatus.ACCEPTED.value
    parents = select(orders.c.parent_id).where(orders.c.status == accepted)
    rows = connection.execute(
        select(orders)
        .where(or_(orders.c.status == accepted, orders.c.client_id.in_(parents)))
        .order_by(orders.c.seq)
    ).all()
    held = connection.execute(select(positions).order_by(positions.c.symbol)).all()
    return Exchange(
        costs=settings.costs,
        tick=settings.risk.price_tick,
        cash=cash,
        orders={row.client_id: to_order(row) for row in rows},
        holdings={row.symbol: Holding(**row._mapping) for row in held},
    )


def read_cursors(connection: Connection) -> dict[str, int]:
    """Return, by symbol, the first bar that has not been met."""
    return {row.symbol: row.next_ts for row in connection.execute(select(cursors))}


def save(connection: Connection, exchange: Exchange) -> None:
    """Store the exchange whole."""
    connection.execute(update(account).values(cash=exchange.cash))
    for order in exchange.orders.values():
        row = order_row(order)
        connection.execute(update(orders).where(orders.c.client_id == order.client_id).values(row))
    connection.execute(delete(positions))
    for holding in exchange.holdings.values():
        connection.execute(insert(positions).values(asdict(holding)))
    add_fills(connection, exchange.new_fills)
    for payment in exchange.new_funding:
        connection.execute(insert(funding).values(asdict(payment)))


def add_fills(connection: Connection, new: Iterable[Fill]) -> None:
    """Append executions in order."""
    last = connection.execute(select(func.max(fills.c.seq))).scalar() or 0
    for place, fill in enumerate(new, last + 1):
        row = fill.model_dump() | {"side": fill.side.value, "leg": fill.leg.value, "seq": place}
        connection.execute(insert(fills).values(row))


def next_seq(connection: Connection) -> int:
    """Return the place of the next order."""
    return int(connection.execute(select(func.max(orders.c.seq))).scalar() or 0) + 1
