"""What persons, and the engine for them, did by hand to the safety rules: who, why and when."""

from __future__ import annotations

import time

from sqlalchemy import Connection, desc, insert, select

from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger.database import Database
from tradewind.ledger.records import Intervention, InterventionKind
from tradewind.ledger.schema import interventions


def wall_ms() -> int:
    """Return the wall clock's time: what a person did happened then, replay or not."""
    return time.time_ns() // 1_000_000


def record(
    connection: Connection,
    kind: InterventionKind,
    *,
    who: str,
    why: str,
    at_ms: int,
    market_ms: int | None = None,
) -> None:
    """Append an intervention within the transaction of what it changes.

    Raises
    ------
    TradewindError
        ``bad_input`` without a name or a reason.
    """
    for name, value in (("who", who), ("why", why)):
        if not value.strip():
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"{name} = {value!r} says nothing",
                "Say who does this and why; both are recorded",
            )
    row = {"kind": kind, "who": who, "why": why, "wall_ms": at_ms, "market_ms": market_ms}
    connection.execute(insert(interventions).values(row))


class InterventionBook:
    """The record of interventions, and the moment since which the peak counts."""

    db: Database

    def interventions(self, kind: InterventionKind | None = None) -> list[Intervention]:
        """Return every intervention, oldest first."""
        found = interventions.c
        query = select(found.kind, found.who, found.why, found.wall_ms, found.market_ms)
        if kind is not None:
            query = query.where(found.kind == kind)
        with self.db.read() as connection:
            return [Intervention(*row) for row in connection.execute(query.order_by(found.id))]

    def reset_peak(self, market_ms: int, *, who: str, why: str) -> None:
        """Let the peak of equity count from market time ``market_ms`` on.

        Raises
        ------
        TradewindError
            ``bad_input`` without a name or a reason.
        """
        with self.db.write() as connection:
            record(connection, "peak_reset", who=who, why=why, at_ms=wall_ms(), market_ms=market_ms)

    def peak_since(self, now_ms: int) -> int | None:
        """Return the market time of the last reset up to ``now_ms``, None without one.

        A reset later than ``now_ms`` belongs to a replay that was set back: it does not count.
        """
        found = interventions.c
        query = (
            select(found.market_ms)
            .where(found.kind == "peak_reset", found.market_ms <= now_ms)
            .order_by(desc(found.id))
            .limit(1)
        )
        with self.db.read() as connection:
            return connection.execute(query).scalar()
