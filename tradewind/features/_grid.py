"""The regular grid of bar opens: a bar that does not exist is NaN there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
COLUMNS = ("high", "low", "close", "volume")


@dataclass(frozen=True, eq=False)
class Grid:
    """Bars on their grid: m grid points, of which n have a bar.

    Parameters
    ----------
    ts
        Every open time from the first bar to the last, shape (m,).
    at
        Place of each existing bar in ``ts``, shape (n,).
    rows
        high, low, close, volume of the bars that exist, shape (4, n).
    table
        The same on the grid, shape (4, m), NaN where there is no bar.
    place
        Number of the first grid point in absolute time.
    """

    ts: IntArray
    at: IntArray
    rows: FloatArray
    table: FloatArray
    place: int

    @classmethod
    def of(cls, frame: pl.DataFrame, step_ms: int) -> Grid:
        """Return the grid of bars that are sorted, unique and on it."""
        rows = np.empty((len(COLUMNS), frame.height))
        for row, name in zip(rows, COLUMNS, strict=True):
            row[:] = frame[name].to_numpy()
        return cls._spread_out(frame["ts"].to_numpy(), rows, step_ms)

    @classmethod
    def _spread_out(cls, ts: IntArray, rows: FloatArray, step_ms: int) -> Grid:
        first = int(ts[0]) if len(ts) else 0
        at = (ts - first) // step_ms
        count = int(at[-1]) + 1 if len(ts) else 0
        table = rows
        if count > len(ts):
            table = np.full((len(COLUMNS), count), np.nan)
            table[:, at] = rows
        grid = first + step_ms * np.arange(count, dtype=np.int64)
        return cls(grid, at, rows, table, first // step_ms)

    def slower(self, span_ms: int, *, whole: bool = True) -> Grid:
        """Return bars of a longer timeframe made of these, the newest perhaps unfinished.

        ``whole`` leaves out a first one whose beginning is not held.
        """
        ts = self.rows_ts
        opens = ts // span_ms * span_ms
        begins = np.flatnonzero(np.diff(opens, prepend=-1))
        ends = np.append(begins[1:], len(ts))[: len(begins)]
        high, low, close, volume = self.rows
        rows = np.stack(
            [
                np.maximum.reduceat(high, begins),
                np.minimum.reduceat(low, begins),
                close[ends - 1],
                np.add.reduceat(volume, begins),
            ]
        )
        cut = int(whole and len(ts) > 0 and opens[0] < ts[0])
        return self._spread_out(opens[begins][cut:], np.ascontiguousarray(rows[:, cut:]), span_ms)

    @property
    def rows_ts(self) -> IntArray:
        """Open times of the bars that exist, shape (n,)."""
        return self.ts[self.at]

    def spread(self, values: FloatArray) -> FloatArray:
        """Return one value per bar as one per grid point, NaN where there is no bar."""
        if len(self.at) == len(self.ts):
            return values
        out = np.full(len(self.ts), np.nan)
        out[self.at] = values
        return out

    def picked(self, table: FloatArray) -> FloatArray:
        """Return the columns of a table on the grid where there is a bar, shape (…, n)."""
        return table if len(self.at) == len(self.ts) else np.ascontiguousarray(table[:, self.at])

    def run_starts(self, max_gap: int) -> IntArray:
        """Return, for each bar, the row after the last hole of more than ``max_gap`` bars."""
        rows = np.arange(len(self.at), dtype=np.int64)
        breaks = np.concatenate([[True], np.diff(self.at) - 1 > max_gap])[: len(rows)]
        starts: IntArray = np.maximum.accumulate(np.where(breaks, rows, 0))
        return starts
