"""The kill switch: durable over restarts, lifted only by hand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import select

from tradewind.ledger.records import KillState
from tradewind.ledger.schema import kill_switch

if TYPE_CHECKING:
    from tradewind.ledger.database import Database

ROW = 1


class KillSwitch:
    """Stops every new entry within one engine cycle; ``flatten`` closes positions too."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def state(self) -> KillState:
        """Return whether it is on, and why."""
        query = select(kill_switch).where(kill_switch.c.id == ROW)
        with self._db.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            return KillState(engaged=False)
        return KillState(row.engaged, row.flatten, row.reason, row.changed_ms)

    def engage(self, reason: str, *, flatten: bool = False) -> None:
        """Stop new entries until someone lifts it."""
        self._write(engaged=True, flatten=flatten, reason=reason)

    def lift(self) -> None:
        """Allow entries again."""
        self._write(engaged=False, flatten=False, reason="")

    def _write(self, *, engaged: bool, flatten: bool, reason: str) -> None:
        row = {
            "id": ROW,
            "engaged": engaged,
            "flatten": flatten,
            "reason": reason,
            "changed_ms": time.time_ns() // 1_000_000,
        }
        with self._db.write() as connection:
            self._db.upsert(connection, kill_switch, row)
