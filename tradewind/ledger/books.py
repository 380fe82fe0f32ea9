"""Money and positions: every change is one transaction, every repeat changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from tradewind.contracts import (
    BrokerOrder,
    Fill,
    IntentStatus,
    Leg,
    OrderRequest,
    OrderStatus,
    Side,
)
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger.accounting import ZERO, OpenTrade, apply_fill
from tradewind.ledger.database import Database
from tradewind.ledger.decisions import OPEN_INTENTS, request_of
from tradewind.ledger.records import FundingPayment, Position, Snapshot
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

ACCOUNT = 1
MS_PER_MINUTE = 60_000
FINAL = (OrderStatus.FILLED.value, OrderStatus.CANCELED.value, OrderStatus.REJECTED.value)


class MoneyBook:
    """Orders, fills, positions, cash and trades."""

    db: Database

    def open_account(self, initial_cash: Decimal, now_ms: int) -> None:
        """Pay in the initial cash; once, whatever is asked later."""
        row = {
            "id": ACCOUNT,
            "initial_cash": initial_cash,
            "cash": initial_cash,
            "fill_count": 0,
            "opened_ms": now_ms,
        }
        with self.db.write() as connection:
            self.db.insert_ignore(connection, account, [row])

    def cash(self) -> Decimal:
        """Return the wallet balance, without open profit; 0 before the account is open."""
        with self.db.read() as connection:
            found = connection.execute(select(account.c.cash)).scalar()
        return ZERO if found is None else found

    def initial_cash(self) -> Decimal:
        """Return what was paid in; 0 before the account is open."""
        with self.db.read() as connection:
            found = connection.execute(select(account.c.initial_cash)).scalar()
        return ZERO if found is None else found

    def book(self, order: BrokerOrder, executions: Sequence[Fill] = ()) -> int:
        """Record what the broker said of an order, in one transaction.

        The order's state, new fills (a known ``fill_id`` changes nothing), positions, money,
        trades and the intent's end. Return how many fills were new.

        Raises
        ------
        TradewindError
            ``ledger_unbalanced`` when no intent stands behind the order.
        """
        with self.db.write() as connection:
            intent = self._intent(connection, order.client_id)
            cash, count = self._lock_account(connection)
            self._write_order(connection, order)
            new = 0
            for fill in sorted(executions, key=lambda f: (f.ts, f.fill_id)):
                row = {**_fill_row(fill), "seq": count + new + 1}
                if self.db.insert_ignore(connection, fills, [row]) == 0:
                    continue
                new += 1
                cash += self._apply(connection, intent, fill)
            connection.execute(update(account).values(cash=cash, fill_count=count + new))
            rejected = order.status is OrderStatus.REJECTED
            status = IntentStatus.REJECTED if rejected else IntentStatus.BOOKED
            connection.execute(
                update(intents)
                .where(intents.c.client_id == order.client_id)
                .values(status=status.value, detail=order.detail)
            )
        return new

    @staticmethod
    def _intent(connection: Connection, client_id: str) -> Row[Any]:
        row = connection.execute(select(intents).where(intents.c.client_id == client_id)).first()
        if row is None:
            raise TradewindError(
                ErrorCode.LEDGER_UNBALANCED,
                f"the broker reports order {client_id}, which has no intent",
                "Find who sent it, then run `tradewind ledger check`",
            )
        return row

    @staticmethod
    def _lock_account(connection: Connection) -> tuple[Decimal, int]:
        query = select(account.c.cash, account.c.fill_count).with_for_update()
        row = connection.execute(query).first()
        if row is None:
            raise TradewindError(
                ErrorCode.LEDGER_UNBALANCED,
                "money is to be booked before the account is open",
                "Start the engine, which opens the account with engine.initial_cash",
            )
        return row.cash, row.fill_count

    def _write_order(self, connection: Connection, order: BrokerOrder) -> None:
        query = select(orders.c.status, orders.c.filled_quantity).where(
            orders.c.client_id == order.client_id
        )
        stored = connection.execute(query).first()
        if stored is not None and (
            (stored.status in FINAL and order.status is OrderStatus.ACCEPTED)
            or stored.filled_quantity > order.filled_quantity
        ):
            return  # an older answer that arrived late
        row = order.model_dump(exclude={"side", "type", "leg", "status"})
        row |= {
            "side": order.side.value,
            "type": order.type.value,
            "leg": order.leg.value,
            "status": order.status.value,
        }
        self.db.upsert(connection, orders, row)

    def _apply(self, connection: Connection, intent: Row[Any], fill: Fill) -> Decimal:
        """Apply a new fill to positions, trades and flows; return the change of cash."""
        held = connection.execute(
            select(positions).where(positions.c.symbol == fill.symbol)
        ).first()
        applied = apply_fill(
            _open_trade(held) if held else None,
            fill_id=fill.fill_id,
            signed=fill.side.sign * fill.quantity,
            price=fill.price,
            fee=fill.fee,
        )
        if held is not None and applied.closed is not None:
            connection.execute(delete(positions).where(positions.c.symbol == fill.symbol))
            connection.execute(
                insert(trades).values(_trade_row(held, applied.closed, intent, fill))
            )
            held = None
        if applied.opened is not None:
            frozen = _frozen(held) if held else self._entry(connection, intent, fill)
            row = {"symbol": fill.symbol, **asdict(applied.opened), **frozen}
            self.db.upsert(connection, positions, row)
        self._flow(connection, "fee", fill.fill_id, fill.symbol, -fill.fee, fill.ts)
        if applied.realised != 0:
            self._flow(connection, "pnl", fill.fill_id, fill.symbol, applied.realised, fill.ts)
        return applied.realised - fill.fee

    @staticmethod
    def _entry(connection: Connection, intent: Row[Any], fill: Fill) -> dict[str, Any]:
        """Return what is frozen when a position opens."""
        stop = connection.execute(
            select(intents.c.trigger_price)
            .where(intents.c.decision_id == intent.decision_id)
            .where(intents.c.leg == Leg.STOP.value)
        ).scalar()
        return {
            "decision_id": intent.decision_id,
            "leverage": intent.leverage,
            "stop_distance": ZERO if stop is None else abs(fill.price - stop),
            "opened_ms": fill.ts,
        }

    def _flow(
        self,
        connection: Connection,
        kind: str,
        source: str,
        symbol: str,
        amount: Decimal,
        ts: int,
    ) -> bool:
        row = {
            "flow_id": f"{kind}:{source}",
            "kind": kind,
            "symbol": symbol,
            "amount": amount,
            "ts": ts,
        }
        return self.db.insert_ignore(connection, flows, [row]) == 1

    def book_funding(self, payments: Sequence[FundingPayment]) -> int:
        """Record funding, each payment once; return how many were new.

        A payment belongs to the open position, or to the trade that was open at its time.
        """
        if not payments:
            return 0
        with self.db.write() as connection:
            cash, _ = self._lock_account(connection)
            new = 0
            for payment in sorted(payments, key=lambda p: (p.ts, p.payment_id)):
                fresh = self._flow(
                    connection,
                    "funding",
                    payment.payment_id,
                    payment.symbol,
                    payment.amount,
                    payment.ts,
                )
                if fresh:
                    new += 1
                    cash += payment.amount
                    _attribute_funding(connection, payment)
            connection.execute(update(account).values(cash=cash))
        return new

    def positions(self) -> list[Position]:
        """Return the open positions, by symbol, with their working stop and target."""
        with self.db.read() as connection:
            return _positions(connection, _working(connection))

    def snapshot(self) -> Snapshot:
        """Return the account as of one moment, in one read."""
        unsent = (
            select(intents)
            .where(intents.c.status.in_(OPEN_INTENTS))
            .order_by(intents.c.created_ms, intents.c.symbol, intents.c.position)
        )
        with self.db.read() as connection:
            cash = connection.execute(select(account.c.cash)).scalar()
            working = _working(connection)
            return Snapshot(
                cash=ZERO if cash is None else cash,
                positions=tuple(_positions(connection, working)),
                working=tuple(working),
                unsent=tuple(request_of(row) for row in connection.execute(unsent)),
            )

    def working_orders(self) -> list[OrderRequest]:
        """Return the orders that the broker has accepted and not finished, oldest first."""
        with self.db.read() as connection:
            return _working(connection)


def _working(connection: Connection) -> list[OrderRequest]:
    query = (
        select(intents)
        .join(orders, orders.c.client_id == intents.c.client_id)
        .where(orders.c.status == OrderStatus.ACCEPTED.value)
        .order_by(intents.c.created_ms, intents.c.symbol, intents.c.position)
    )
    return [request_of(row) for row in connection.execute(query)]


def _positions(connection: Connection, working: Sequence[OrderRequest]) -> list[Position]:
    query = (
        select(positions, decisions.c.bar_ts)
        .join(decisions, decisions.c.decision_id == positions.c.decision_id)
        .order_by(positions.c.symbol)
    )
    return [_position(row, working) for row in connection.execute(query)]


def _position(row: Row[Any], working: Sequence[OrderRequest]) -> Position:
    triggers = {order.leg: order.trigger_price for order in working if order.symbol == row.symbol}
    return Position(
        symbol=row.symbol,
        quantity=row.quantity,
        entry_price=_open_trade(row).open_price,
        decision_id=row.decision_id,
        entry_bar_ts=row.bar_ts,
        opened_ms=row.opened_ms,
        stop_distance=row.stop_distance,
        leverage=row.leverage,
        realised=row.realised,
        fees=row.fees,
        funding=row.funding,
        stop_price=triggers.get(Leg.STOP),
        target_price=triggers.get(Leg.TARGET),
    )


def _open_trade(row: Row[Any]) -> OpenTrade:
    return OpenTrade(**{name: getattr(row, name) for name in OpenTrade.__dataclass_fields__})


def _frozen(row: Row[Any]) -> dict[str, Any]:
    names = ("decision_id", "leverage", "stop_distance", "opened_ms")
    return {name: getattr(row, name) for name in names}


def _fill_row(fill: Fill) -> dict[str, Any]:
    row = fill.model_dump(exclude={"side", "leg"})
    return row | {"side": fill.side.value, "leg": fill.leg.value}


def realised_r(pnl: Decimal, stop_distance: Decimal, quantity: Decimal) -> float:
    """Return a net result in multiples of the initial risk, 0 where there was no stop."""
    risk = stop_distance * quantity
    return float(pnl / risk) if risk > 0 else 0.0


def _trade_row(held: Row[Any], closed: OpenTrade, intent: Row[Any], fill: Fill) -> dict[str, Any]:
    return {
        "trade_id": closed.trade_id,
        "decision_id": held.decision_id,
        "symbol": fill.symbol,
        "side": (Side.BUY if held.quantity > 0 else Side.SELL).value,
        "quantity": closed.opened_quantity,
        "entry_price": closed.entry_price,
        "exit_price": closed.exit_price,
        "pnl": closed.pnl,
        "fees": closed.fees,
        "funding": closed.funding,
        "realised_r": realised_r(closed.pnl, held.stop_distance, closed.opened_quantity),
        "stop_distance": held.stop_distance,
        "leverage": held.leverage,
        "exit_reason": intent.reason or fill.leg.value,
        "opened_ms": held.opened_ms,
        "closed_ms": fill.ts,
        "minutes_held": (fill.ts - held.opened_ms) / MS_PER_MINUTE,
    }


def _attribute_funding(connection: Connection, payment: FundingPayment) -> None:
    held = connection.execute(select(positions).where(positions.c.symbol == payment.symbol)).first()
    if held is not None and held.opened_ms <= payment.ts:
        total = held.funding + payment.amount
        connection.execute(
            update(positions).where(positions.c.symbol == payment.symbol).values(funding=total)
        )
        return
    trade = connection.execute(
        select(trades)
        .where(trades.c.symbol == payment.symbol)
        .where(trades.c.opened_ms <= payment.ts)
        .where(trades.c.closed_ms >= payment.ts)
        .order_by(trades.c.closed_ms.desc())
    ).first()
    if trade is None:
        return  # the money is booked all the same; no trade of ours was open
    pnl = trade.pnl + payment.amount
    connection.execute(
        update(trades)
        .where(trades.c.trade_id == trade.trade_id)
        .values(
            pnl=pnl,
            funding=trade.funding + payment.amount,
            realised_r=realised_r(pnl, trade.stop_distance, trade.quantity),
        )
    )
