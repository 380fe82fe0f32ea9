"""Decisions and the intents they become: durable before anything is sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from sqlalchemy import Connection, Row, func, select, update

from tradewind.contracts import (
    Decision,
    Intent,
    IntentStatus,
    Leg,
    OrderRequest,
    OrderType,
    Side,
)
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger.database import Database
from tradewind.ledger.frames import frame, window
from tradewind.ledger.records import StoredIntent
from tradewind.ledger.schema import decisions, intents, settings_history

OPEN_INTENTS = (IntentStatus.NEW.value, IntentStatus.SENDING.value)


def _intent_row(order: OrderRequest, reason: str, position: int) -> dict[str, Any]:
    return {
        **order.model_dump(exclude={"side", "type", "leg"}),
        "side": order.side.value,
        "type": order.type.value,
        "leg": order.leg.value,
        "status": IntentStatus.NEW.value,
        "reason": reason,
        "detail": "",
        "position": position,
    }


def request_of(row: Row[Any]) -> OrderRequest:
    """Return the order of an intent's row."""
    return OrderRequest(
        client_id=row.client_id,
        decision_id=row.decision_id,
        symbol=row.symbol,
        side=Side(row.side),
        type=OrderType(row.type),
        leg=Leg(row.leg),
        quantity=row.quantity,
        trigger_price=row.trigger_price,
        reduce_only=row.reduce_only,
        parent_id=row.parent_id,
        leverage=row.leverage,
        created_ms=row.created_ms,
    )


class DecisionBook:
    """Decisions, intents, and the settings they were made under."""

    db: Database

    def record_settings(self, values: Mapping[str, Any], now_ms: int) -> str:
        """Store the settings a policy runs under; return their version (a short hash)."""
        body = json.dumps(values, sort_keys=True, default=str)
        version = hashlib.sha256(body.encode()).hexdigest()[:12]
        with self.db.write() as connection:
            row = {"version": version, "body": body, "created_ms": now_ms}
            self.db.insert_ignore(connection, settings_history, [row])
        return version

    def record_decision(self, decision: Decision) -> bool:
        """Store a decision; False when one exists for its bar: the stored one rules."""
        row = {
            "decision_id": decision.decision_id,
            "strategy": decision.strategy,
            "policy_version": decision.policy_version,
            "symbol": decision.symbol,
            "timeframe": decision.timeframe,
            "bar_ts": decision.bar_ts,
            "action": decision.action.value,
            "refusal": decision.refusal.value if decision.refusal else None,
            "source": decision.source,
            "order_count": len(decision.orders),
            "created_ms": decision.created_ms,
            "body": decision.model_dump_json(),
        }
        with self.db.write() as connection:
            return self.db.insert_ignore(connection, decisions, [row]) == 1

    def decision(self, decision_id: str) -> Decision | None:
        """Return a stored decision whole, None when there is none."""
        query = select(decisions.c.body).where(decisions.c.decision_id == decision_id)
        with self.db.read() as connection:
            body = connection.execute(query).scalar()
        return None if body is None else Decision.model_validate_json(body)

    def decided(self, decision_ids: Sequence[str]) -> set[str]:
        """Return which of these decisions are stored already."""
        query = select(decisions.c.decision_id).where(decisions.c.decision_id.in_(decision_ids))
        with self.db.read() as connection:
            return set(connection.execute(query).scalars())

    def decisions(
        self,
        *,
        symbol: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> pl.DataFrame:
        """Return decisions without their story, oldest bar first, by bar_ts window."""
        columns = [column for column in decisions.c if column.name != "body"]
        query = select(*columns).order_by(decisions.c.bar_ts, decisions.c.symbol)
        query = window(
            query, decisions, "bar_ts", symbol=symbol, since_ms=since_ms, until_ms=until_ms
        )
        with self.db.read() as connection:
            return frame(connection, query)

    def count_decisions(self) -> int:
        """Return how many decisions are stored."""
        with self.db.read() as connection:
            return int(connection.execute(select(func.count()).select_from(decisions)).scalar_one())

    def unfinished_decisions(self) -> list[Decision]:
        """Return decisions whose orders did not all become intents (killed in between)."""
        made = (
            select(func.count())
            .where(intents.c.decision_id == decisions.c.decision_id)
            .where(intents.c.position < decisions.c.order_count)
            .correlate(decisions)
            .scalar_subquery()
        )
        query = (
            select(decisions.c.body)
            .where(decisions.c.order_count > 0)
            .where(decisions.c.order_count > made)
            .order_by(decisions.c.bar_ts, decisions.c.symbol)
        )
        with self.db.read() as connection:
            bodies = connection.execute(query).scalars().all()
        return [Decision.model_validate_json(body) for body in bodies]

    def add_intents(self, orders: Sequence[OrderRequest], reason: str = "") -> int:
        """Store orders to be, in one transaction; return how many were new.

        Raises
        ------
        TradewindError
            ``ledger_unbalanced`` when a decision is not stored.
        """
        if not orders:
            return 0
        with self.db.write() as connection:
            rows = self._numbered(connection, orders, reason)
            return self.db.insert_ignore(connection, intents, rows)

    def _numbered(
        self, connection: Connection, orders: Sequence[OrderRequest], reason: str
    ) -> list[dict[str, Any]]:
        """Number a decision's own orders from 0; what is added later comes after them."""
        identity = orders[0].decision_id
        query = select(decisions.c.body).where(decisions.c.decision_id == identity)
        body = connection.execute(query).scalar()
        if body is None:
            raise TradewindError(
                ErrorCode.LEDGER_UNBALANCED,
                f"order {orders[0].client_id} names decision {identity}, which is not stored",
                "Record the decision before its intents",
            )
        own = [order["client_id"] for order in json.loads(body)["orders"]]
        later = len(own)
        return [
            _intent_row(
                order, reason, own.index(order.client_id) if order.client_id in own else later
            )
            for order in orders
        ]

    def mark_intent(self, client_id: str, status: IntentStatus, detail: str = "") -> None:
        """Move an intent on in its life.

        Raises
        ------
        TradewindError
            ``ledger_unbalanced`` when there is no such intent.
        """
        with self.db.write() as connection:
            done = connection.execute(
                update(intents)
                .where(intents.c.client_id == client_id)
                .values(status=status.value, detail=detail)
            )
            if done.rowcount != 1:
                raise TradewindError(
                    ErrorCode.LEDGER_UNBALANCED,
                    f"intent {client_id} is not stored",
                    "Add the intent before marking it",
                )

    def open_intents(self) -> list[StoredIntent]:
        """Return intents without an end, entries before the orders that protect them."""
        query = (
            select(intents, decisions.c.bar_ts, decisions.c.timeframe)
            .join(decisions, decisions.c.decision_id == intents.c.decision_id)
            .where(intents.c.status.in_(OPEN_INTENTS))
            .order_by(intents.c.created_ms, intents.c.symbol, intents.c.position)
        )
        with self.db.read() as connection:
            rows = connection.execute(query).all()
        return [
            StoredIntent(
                intent=Intent(
                    order=request_of(row), status=IntentStatus(row.status), detail=row.detail
                ),
                bar_ts=row.bar_ts,
                timeframe=row.timeframe,
                reason=row.reason,
            )
            for row in rows
        ]

    def intent(self, client_id: str) -> Intent | None:
        """Return one intent, None when there is none."""
        query = select(intents).where(intents.c.client_id == client_id)
        with self.db.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return Intent(order=request_of(row), status=IntentStatus(row.status), detail=row.detail)
