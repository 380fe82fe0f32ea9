"""The regular grid of bar opens: a bar that does not exist is NaN there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
COLUMNS = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, eq=False)
class Grid:
    """Bars on their grid: m grid points, of which n have a bar.

    Parameters
    ----------
    ts
        Every open time from the first bar to the last, shape (m,).
    at
        Place of each existing bar in ``ts``, shape (n,).
    bars
        open, high, low, close, volume, shape (m,), NaN where there is no bar.
    """

    ts: IntArray
    at: IntArray
    bars: dict[str, FloatArray]

    @classmethod
    def of(cls, frame: pl.DataFrame, step_ms: int) -> Grid:
        """Return the grid of bars that are sorted, unique and on it."""
        rows = frame["ts"].to_numpy()
        at = (rows - rows[0]) // step_ms if len(rows) else np.empty(0, dtype=np.int64)
        count = int(at[-1]) + 1 if len(rows) else 0
        first = int(rows[0]) if len(rows) else 0
        ts = first + step_ms * np.arange(count, dtype=np.int64)
        grid = cls(ts, at, {})
        for name in COLUMNS:
            grid.bars[name] = grid.spread(frame[name].to_numpy())
        return grid

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

    def run_starts(self, max_gap: int) -> IntArray:
        """Return, for each bar, the row after the last hole of more than ``max_gap`` bars."""
        rows = np.arange(len(self.at), dtype=np.int64)
        breaks = np.concatenate([[True], np.diff(self.at) - 1 > max_gap])[: len(rows)]
        starts: IntArray = np.maximum.accumulate(np.where(breaks, rows, 0))
        return starts
