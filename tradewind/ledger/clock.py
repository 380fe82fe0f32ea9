"""The clock of all processes: one row says what time the market has."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import literal_column, select

from tradewind.clock import Clock, WallClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger.schema import clock as clock_table

if TYPE_CHECKING:
    from tradewind.ledger.ledger import Ledger
    from tradewind.settings import Settings

ROW = 1
CACHE_S = 0.01  # at most so long may a process believe an older clock
_COLUMNS = clock_table.c
_LOOK = str(
    select(_COLUMNS.market_ms, _COLUMNS.wall_ms, _COLUMNS.speed).where(
        _COLUMNS.id == literal_column(str(ROW))
    )
)


@dataclass(frozen=True)
class ClockRow:
    """Market time ``market_ms`` held at wall time ``wall_ms``; it runs ``speed`` times as fast."""

    market_ms: int
    wall_ms: int
    speed: float

    def at(self, wall_ms: int) -> int:
        """Return the market time at a wall time; it never runs backwards from its anchor."""
        return self.market_ms + round(max(0, wall_ms - self.wall_ms) * self.speed)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def read_clock(ledger: Ledger) -> ClockRow | None:
    """Return the clock row, None when no replay was ever set."""
    row = ledger.db.glance(_LOOK)
    return None if row is None else ClockRow(*row)


def set_replay_clock(ledger: Ledger, ms: int, speed: float = 0) -> None:
    """Set market time for every process; ``speed`` 0 holds it, 900 runs a 15m bar a second.

    It returns when no process can still believe the clock that was before.
    """
    if ms < 0 or speed < 0:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"clock ms = {ms}, speed = {speed}: neither may be negative",
            "Give UTC epoch milliseconds and a speed of 0 or more",
        )
    row = {"id": ROW, "market_ms": ms, "wall_ms": _wall_ms(), "speed": float(speed)}
    with ledger.db.write() as connection:
        ledger.db.upsert(connection, clock_table, row)
    time.sleep(CACHE_S)


@dataclass
class LedgerClock:
    """Market time of a replay, read from the ledger again after some milliseconds."""

    ledger: Ledger
    # The row and when its reading began, in one attribute: threads swap both at once.
    _seen: tuple[ClockRow | None, float] = field(default=(None, float("-inf")), init=False)

    def now_ms(self) -> int:
        """Return market time.

        Raises
        ------
        TradewindError
            ``bad_setting`` when no replay clock was ever set.
        """
        row, at = self._seen
        # What was read counts from before the reading: a slow read may bring an older row.
        began = time.monotonic()
        if began - at >= CACHE_S:
            row = read_clock(self.ledger)
            self._seen = row, began
        if row is None:
            raise TradewindError(
                ErrorCode.BAD_SETTING,
                "clock = 'replay', but the ledger's clock was never set",
                "Set it with `tradewind clock set 2025-10-01T00:00`, or use TRADEWIND_CLOCK=wall",
            )
        return row.at(_wall_ms())

    def set(self, ms: int, speed: float = 0) -> None:
        """Set market time for every process; this one sees it at once."""
        set_replay_clock(self.ledger, ms, speed)
        self._seen = None, float("-inf")


def open_clock(settings: Settings, ledger: Ledger | None = None) -> Clock:
    """Return the one clock: the wall's, or the replay's from the ledger.

    A ledger is opened from the settings where none is given.
    """
    if settings.clock == "wall":
        return WallClock()
    if ledger is None:
        from tradewind.ledger.ledger import open_ledger

        ledger = open_ledger(settings)
    return LedgerClock(ledger)
