"""The kill switch: durable over restarts, lifted only by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import desc, select

from tradewind.ledger.interventions import record, wall_ms
from tradewind.ledger.records import KillState
from tradewind.ledger.schema import interventions, kill_switch

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tradewind.ledger.database import Database

ROW = 1
ENGINE = "engine"
KINDS = ("kill_on", "kill_lift")


class KillSwitch:
    """Stops every new entry within one engine cycle; ``flatten`` closes positions too."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def state(self) -> KillState:
        """Return whether it is on, who said so last, and why."""
        with self._db.read() as connection:
            return _state(connection)

    def engage(self, reason: str, *, flatten: bool = False, who: str = ENGINE) -> None:
        """Stop new entries until someone lifts it; a wish to flatten is never weakened.

        Raises
        ------
        TradewindError
            ``bad_input`` without a name or a reason.
        """
        with self._db.write() as connection:
            before = _state(connection)
            flat = flatten or (before.engaged and before.flatten)
            now = wall_ms()
            row = {"engaged": True, "flatten": flat, "reason": reason, "changed_ms": now}
            self._db.upsert(connection, kill_switch, {"id": ROW, **row})
            record(connection, "kill_on", who=who, why=reason, at_ms=now)

    def lift(self, reason: str, *, who: str) -> None:
        """Allow entries again.

        Raises
        ------
        TradewindError
            ``bad_input`` without a name or a reason.
        """
        with self._db.write() as connection:
            now = wall_ms()
            row = {"engaged": False, "flatten": False, "reason": reason, "changed_ms": now}
            self._db.upsert(connection, kill_switch, {"id": ROW, **row})
            record(connection, "kill_lift", who=who, why=reason, at_ms=now)


def _state(connection: Connection) -> KillState:
    row = connection.execute(select(kill_switch).where(kill_switch.c.id == ROW)).first()
    if row is None:
        return KillState(engaged=False)
    by = (
        select(interventions.c.who)
        .where(interventions.c.kind.in_(KINDS))
        .order_by(desc(interventions.c.id))
        .limit(1)
    )
    who = connection.execute(by).scalar() or ""
    return KillState(row.engaged, row.flatten, row.reason, row.changed_ms, who)
