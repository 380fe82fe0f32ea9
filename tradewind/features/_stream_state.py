"""What a stream of bars remembers: the newest bars, and its recursive averages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tradewind.features._indicators import PERIODS
from tradewind.features.definitions import ANCHOR_BARS

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Tail:
    """The newest columns of a table that grows, ``keep`` of them at least: `table[:, :end]`."""

    def __init__(self, rows: int, keep: int) -> None:
        self._keep = keep
        self.table: FloatArray = np.empty((rows, 2 * keep))
        self.end = 0

    def append(self, *values: float) -> None:
        """Add a column."""
        if self.end == self.table.shape[1]:
            self.hold(self.table[:, self._keep :].copy())
        self.table[:, self.end] = values
        self.end += 1

    def hold(self, columns: FloatArray) -> None:
        """Hold the last of these columns and nothing else."""
        kept = columns[:, -self._keep :]
        self.end = kept.shape[1]
        self.table[:, : self.end] = kept

    def clear(self) -> None:
        """Forget everything."""
        self.end = 0


class Recursion:
    """Recursive indicators of the newest bar, begun anew wherever the batch begins them anew.

    ``out`` has the rows of `_kernel.INDICATORS`, shape (8, 1); ``history`` counts the unbroken
    bars before the newest.
    """

    def __init__(self, step_ms: int, warmup: int) -> None:
        from tradewind.features import _kernel

        self._kernel = _kernel
        self._warmup = warmup
        self._anchor_ms = ANCHOR_BARS * step_ms
        self.rows = Tail(3, warmup + 1)
        self.out: FloatArray = np.empty((len(_kernel.INDICATORS), 1))
        self.break_off()

    def break_off(self) -> None:
        """End the history: the next bar is the first of a new one."""
        self.rows.clear()
        self.history = -1
        self._block = -1
        self._averages = self._kernel.BEGINNING
        self._seen = 0

    def push(self, ts: int, high: float, low: float, close: float) -> None:
        """Add a bar."""
        self.rows.append(high, low, close)
        self.history += 1
        begin = last = self.rows.end - 1
        if ts // self._anchor_ms != self._block:
            self._block = ts // self._anchor_ms
            self._averages, self._seen = self._kernel.BEGINNING, 0
            begin = max(0, last - self._warmup)
        self._run(self.rows.table, begin, last, last + 1)

    def prime(self, ts: IntArray, rows: FloatArray, run_start: int) -> None:
        """Continue after these bars (open times; high, low, close), unbroken since a row."""
        self.break_off()
        self.rows.hold(rows[:3, run_start:])
        self.history = len(ts) - 1 - run_start
        self._block = int(ts[-1]) // self._anchor_ms
        first = int(np.searchsorted(ts, self._block * self._anchor_ms))
        self._run(rows, max(run_start, first - self._warmup), len(ts), len(ts))

    def _run(self, rows: FloatArray, begin: int, first: int, end: int) -> None:
        self._averages = self._kernel.indicators(
            self._averages, PERIODS, rows, begin - self._seen, begin, first, end, first, self.out
        )
        self._seen += end - begin
