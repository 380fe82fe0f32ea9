"""One clock for all processes: market time, either the wall's or a replay's.

What closes after ``now_ms()`` does not exist yet: ingestion, staleness, model age and
decisions all ask here. Durations, timeouts and leases use ``time.monotonic`` instead.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import TIMEFRAME_MS

DAY, MINUTE, SECOND = "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"


class Clock(Protocol):
    """Anything that tells market time."""

    def now_ms(self) -> int:
        """Return UTC epoch milliseconds of market time."""
        ...


@dataclass(frozen=True)
class WallClock:
    """The machine's own time."""

    def now_ms(self) -> int:
        """Return the wall's UTC epoch milliseconds."""
        return time.time_ns() // 1_000_000


@dataclass
class ManualClock:
    """A clock that only moves when told to; for tests and single-process replays."""

    ms: int

    def now_ms(self) -> int:
        """Return the time last set."""
        return self.ms

    def set(self, ms: int) -> None:
        """Move to ``ms``."""
        self.ms = ms


def utc_text(ms: int, form: str = MINUTE) -> str:
    """Return epoch milliseconds as UTC text, to the minute by default."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime(form)


def parse_day(text: str, name: str = "date") -> int:
    """Return the first epoch millisecond of a UTC date such as 2025-01-31.

    Raises
    ------
    TradewindError
        ``bad_input``, naming the field and its text.
    """
    try:
        day = datetime.strptime(text, DAY).replace(tzinfo=UTC)
    except ValueError as error:
        raise TradewindError(
            ErrorCode.BAD_INPUT, f"{name} = {text!r} is not a date", "Write it as 2025-01-31 (UTC)"
        ) from error
    return int(day.timestamp() * 1000)


def parse_moment(text: str, name: str = "time") -> int:
    """Return epoch milliseconds of an ISO time such as 2025-10-01T00:00; UTC unless it says.

    Raises
    ------
    TradewindError
        ``bad_input``, naming the field and its text.
    """
    try:
        given = datetime.fromisoformat(text)
    except ValueError as error:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"{name} = {text!r} is not a time",
            "Write it as 2025-10-01T00:00 (UTC)",
        ) from error
    aware = given if given.tzinfo else given.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def last_closed_bar(now_ms: int, timeframe: str) -> int:
    """Return the open time of the newest bar that has closed at ``now_ms``."""
    step = TIMEFRAME_MS[timeframe]
    return now_ms // step * step - step


def staleness_s(now_ms: int, last_ts: int, timeframe: str) -> float:
    """Return how late, in seconds, the first bar is that should exist but does not."""
    return max(0, now_ms - (last_ts + 2 * TIMEFRAME_MS[timeframe])) / 1000
