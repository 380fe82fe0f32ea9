"""The exchange's time: it may start in the past, run fast, stand still and jump."""

from __future__ import annotations

import time


class ReplayClock:
    """Market time that runs ``speed`` times as fast as the machine's.

    Parameters
    ----------
    start_ms
        UTC epoch milliseconds at which it starts.
    speed
        Market seconds per second; 900 runs a bar of 15m a second, 0 stands still.
    """

    def __init__(self, start_ms: int, speed: float = 1.0) -> None:
        self._ms = start_ms
        self._speed = speed
        self._since = time.monotonic()
        self._paused = False

    def now_ms(self) -> int:
        """Return market time in UTC epoch milliseconds."""
        passed = 0.0 if self._paused else time.monotonic() - self._since
        return self._ms + int(passed * self._speed * 1000)

    def pause(self) -> None:
        """Stand still until `resume`."""
        self.set(self.now_ms())
        self._paused = True

    def resume(self) -> None:
        """Run on from where it stands."""
        self.set(self.now_ms())
        self._paused = False

    def set(self, ms: int) -> None:
        """Jump to ``ms``; running or paused, it stays so."""
        self._ms, self._since = ms, time.monotonic()

    def set_speed(self, speed: float) -> None:
        """Run ``speed`` times as fast from now on."""
        self.set(self.now_ms())
        self._speed = speed
