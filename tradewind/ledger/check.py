"""Do the books balance? Every sum is made again from the first entries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Select, func, select

from tradewind.ledger.accounting import ZERO
from tradewind.ledger.database import Database
from tradewind.ledger.decisions import OPEN_INTENTS
from tradewind.ledger.records import BrokerBook, LedgerCheck
from tradewind.ledger.schema import (
    account,
    decisions,
    fills,
    flows,
    intents,
    orders,
    positions,
    trades,
)

SHOWN = 5


class _Findings:
    def __init__(self) -> None:
        self.ok = True
        self.lines: list[str] = []

    def compare(self, name: str, held: Any, expected: Any) -> None:
        if held == expected:
            self.lines.append(f"✓ {name}: {_show(held)}")
        else:
            self.ok = False
            self.lines.append(f"✗ {name}: {_show(held)}, expected {_show(expected)}")

    def none(self, name: str, found: Iterable[Any]) -> None:
        items = [str(item) for item in found]
        if not items:
            self.lines.append(f"✓ no {name}")
            return
        self.ok = False
        more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
        self.lines.append(f"✗ {len(items)} {name}: {', '.join(items[:SHOWN])}{more}")


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_show(item)}" for key, item in value.items()) or "none"
    return format(value.normalize(), "f") if isinstance(value, Decimal) else str(value)


def _column(connection: Connection, query: Select[Any]) -> list[Any]:
    return list(connection.execute(query).scalars())


def _signed_sums(connection: Connection) -> dict[str, Decimal]:
    totals: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for symbol, side, quantity in connection.execute(
        select(fills.c.symbol, fills.c.side, fills.c.quantity)
    ):
        totals[symbol] += quantity if side == "buy" else -quantity
    return {symbol: total for symbol, total in sorted(totals.items()) if total != 0}


def _check_money(connection: Connection, found: _Findings) -> None:
    row = connection.execute(select(account)).first()
    moved = sum(_column(connection, select(flows.c.amount)), ZERO)
    if row is None:
        found.compare("money moved before the account was opened", moved, ZERO)
        return
    found.compare("cash = initial cash + Σ flows", row.cash, row.initial_cash + moved)
    fees = sum(_column(connection, select(flows.c.amount).where(flows.c.kind == "fee")), ZERO)
    charged = sum(_column(connection, select(fills.c.fee)), ZERO)
    found.compare("fees paid = Σ fees of fills", -fees, charged)
    closed = sum(_column(connection, select(trades.c.pnl)), ZERO)
    still_open = sum(
        (r.realised - r.fees + r.funding for r in connection.execute(select(positions))), ZERO
    )
    orphan = moved - closed - still_open
    strays = _stray_funding(connection)
    found.compare("Σ flows = Σ results of trades and open positions", orphan, strays)


def _stray_funding(connection: Connection) -> Decimal:
    """Return funding that was paid while no trade of ours was open (normally none)."""
    total = ZERO
    for row in connection.execute(select(flows).where(flows.c.kind == "funding")):
        spans = (
            select(func.count())
            .select_from(trades)
            .where(trades.c.symbol == row.symbol)
            .where(trades.c.opened_ms <= row.ts)
            .where(trades.c.closed_ms >= row.ts)
        )
        held = (
            select(func.count())
            .select_from(positions)
            .where(positions.c.symbol == row.symbol)
            .where(positions.c.opened_ms <= row.ts)
        )
        if not connection.execute(spans).scalar() and not connection.execute(held).scalar():
            total += row.amount
    return total


def _check_positions(connection: Connection, found: _Findings) -> None:
    held = {
        row.symbol: row.quantity
        for row in connection.execute(select(positions).order_by(positions.c.symbol))
    }
    found.compare("positions = Σ fills", held, _signed_sums(connection))
    by_order: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for client_id, quantity in connection.execute(select(fills.c.client_id, fills.c.quantity)):
        by_order[client_id] += quantity
    wrong = [
        f"{row.client_id} ({row.filled_quantity} against {by_order[row.client_id]})"
        for row in connection.execute(select(orders))
        if row.filled_quantity != by_order[row.client_id]
    ]
    found.none("orders whose filled quantity is not the sum of their fills", wrong)


def _check_chain(connection: Connection, found: _Findings, engine_alive: bool) -> None:
    found.none(
        "fills without an order",
        _column(
            connection,
            select(fills.c.fill_id)
            .outerjoin(orders, orders.c.client_id == fills.c.client_id)
            .where(orders.c.client_id.is_(None)),
        ),
    )
    found.none(
        "orders without an intent",
        _column(
            connection,
            select(orders.c.client_id)
            .outerjoin(intents, intents.c.client_id == orders.c.client_id)
            .where(intents.c.client_id.is_(None)),
        ),
    )
    found.none(
        "intents without a decision",
        _column(
            connection,
            select(intents.c.client_id)
            .outerjoin(decisions, decisions.c.decision_id == intents.c.decision_id)
            .where(decisions.c.decision_id.is_(None)),
        ),
    )
    found.none(
        "booked intents without an order",
        _column(
            connection,
            select(intents.c.client_id)
            .outerjoin(orders, orders.c.client_id == intents.c.client_id)
            .where(intents.c.status.in_(("booked", "rejected")))
            .where(intents.c.detail.not_like("refused:%"))
            .where(orders.c.client_id.is_(None)),
        ),
    )
    twice = select(orders.c.broker_id).group_by(orders.c.broker_id).having(func.count() > 1)
    found.none("broker orders booked twice", _column(connection, twice))
    if engine_alive:
        found.lines.append("✓ intents without an end: not asked while an engine is running")
        return
    unfinished = select(intents.c.client_id).where(intents.c.status.in_(OPEN_INTENTS))
    found.none("intents without an end", _column(connection, unfinished))


def _check_broker(connection: Connection, found: _Findings, broker: BrokerBook) -> None:
    cash = connection.execute(select(account.c.cash)).scalar()
    found.compare("the broker's cash", broker.cash, ZERO if cash is None else cash)
    held = {row.symbol: row.quantity for row in connection.execute(select(positions))}
    found.compare(
        "the broker's positions", dict(sorted(broker.positions.items())), dict(sorted(held.items()))
    )
    counts: dict[str, int] = defaultdict(int)
    for client_id in broker.client_ids:
        counts[client_id] += 1
    found.none("client ids twice at the broker", [k for k, n in counts.items() if n > 1])
    known = set(_column(connection, select(orders.c.client_id)))
    found.none("orders at the broker that are not booked", sorted(set(counts) - known))


def check_books(
    db: Database, *, broker: BrokerBook | None = None, engine_alive: bool = False
) -> LedgerCheck:
    """Compare every balance with the entries it comes from, and with the broker's book."""
    found = _Findings()
    with db.read() as connection:
        _check_positions(connection, found)
        _check_money(connection, found)
        _check_chain(connection, found, engine_alive)
        if broker is not None:
            _check_broker(connection, found, broker)
    return LedgerCheck(ok=found.ok, lines=tuple(found.lines))
