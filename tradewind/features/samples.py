"""Rows ready for a model: what features hand to training and to serving.

Shapes: ``n`` rows, ``F`` wide features, ``W`` bars in a deep window, ``D`` deep features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.definitions import WIDE
from tradewind.regimes.kinds import RegimeReading

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class DeepWindows:
    """Windows of the deep features, as views into one array per symbol (never copied whole).

    Parameters
    ----------
    rows
        Per symbol code, the deep features of consecutive bars, shape (T, D), float32.
    symbol
        Symbol code of each sample, shape (n,).
    end
        Row in ``rows[symbol]`` of each sample's LAST bar, shape (n,); its window is rows
        ``end − width + 1 … end``.
    width
        Bars in a window.
    """

    rows: tuple[Float32Array, ...]
    symbol: IntArray
    end: IntArray
    width: int

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.end)

    def take(self, index: IntArray) -> Float32Array:
        """Return windows ``index`` as one array of shape (len(index), W, D)."""
        depth = self.rows[0].shape[1] if self.rows else 0
        out = np.empty((len(index), self.width, depth), dtype=np.float32)
        offsets = np.arange(-self.width + 1, 1)
        for code in np.unique(self.symbol[index]):
            mask = self.symbol[index] == code
            out[mask] = self.rows[code][self.end[index][mask][:, None] + offsets]
        return out

    def subset(self, index: IntArray) -> DeepWindows:
        """Return the windows ``index``, sharing the same rows."""
        return DeepWindows(self.rows, self.symbol[index], self.end[index], self.width)


@dataclass(frozen=True)
class Samples:
    """Rows ready for fitting or predicting, sorted by (ts, symbol).

    ``y_up`` and ``fwd_ret`` are NaN where the future bar does not exist yet. ``scale`` is
    the trailing volatility of the H-bar return (vol_20 × sqrt(H)), the unit in which mu
    and sigma are learnt; ``ts`` is the bar's open in epoch milliseconds. ``reverted`` is the
    label of `tradewind.features.reversion`, NaN where there is none; None in rows that were
    made without it.
    """

    ts: IntArray
    symbol: IntArray
    symbols: tuple[str, ...]
    wide: FloatArray
    wide_names: tuple[str, ...]
    deep: DeepWindows
    y_up: FloatArray
    fwd_ret: FloatArray
    scale: FloatArray
    reverted: FloatArray | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ts)

    def subset(self, index: IntArray | BoolArray) -> Samples:
        """Return the rows ``index`` (positions or a mask), in the given order."""
        positions = np.flatnonzero(index) if index.dtype == np.bool_ else index
        return Samples(
            ts=self.ts[positions],
            symbol=self.symbol[positions],
            symbols=self.symbols,
            wide=self.wide[positions],
            wide_names=self.wide_names,
            deep=self.deep.subset(positions.astype(np.int64)),
            y_up=self.y_up[positions],
            fwd_ret=self.fwd_ret[positions],
            scale=self.scale[positions],
            reverted=None if self.reverted is None else self.reverted[positions],
        )


@dataclass(frozen=True, eq=False)
class FeatureRow:
    """What one symbol looks like as of one closed bar.

    ``close``, ``atr`` (ATR(14) of the trading timeframe) and ``risk_atr`` (ATR(14) of
    `sizing.risk_atr_timeframe`, NaN when there are too few closed bars of it) are prices.
    ``volatility`` is daily (vol_20 × sqrt(bars a day)), ``scale`` that of the H-bar return.
    ``wide`` has shape (F,) and may be NaN only in nullable features; ``deep`` (W, D) never
    is. ``regime`` is the view of the trading timeframe's regime, ``regimes`` what the detector
    says, that timeframe first, then slower ones. ``fingerprint`` hashes the bytes of ``wide`` and
    ``deep``: two processes that saw the same bars agree.
    """

    symbol: str
    bar_ts: int
    close: float
    atr: float
    risk_atr: float
    volatility: float
    scale: float
    wide: FloatArray
    deep: Float32Array
    staleness_s: float
    fingerprint: str
    feature_version: str
    regime: str
    regime_computed: bool
    regimes: tuple[RegimeReading, ...]


def rows_to_samples(rows: Sequence[FeatureRow]) -> Samples:
    """Return the rows as one batch IN THE ORDER GIVEN, labels NaN.

    Raises
    ------
    TradewindError
        ``bad_input`` when there is no row.
    """
    if not rows:
        raise TradewindError(
            ErrorCode.BAD_INPUT, "rows = [] has no feature row", "Pass at least one row"
        )
    symbols = tuple(dict.fromkeys(row.symbol for row in rows))
    width = rows[0].deep.shape[0]
    windows: list[list[Float32Array]] = [[] for _ in symbols]
    code = np.array([symbols.index(row.symbol) for row in rows], dtype=np.int64)
    end = np.empty(len(rows), dtype=np.int64)
    for place, row in enumerate(rows):
        own = windows[code[place]]
        own.append(row.deep)
        end[place] = len(own) * width - 1
    unknown = np.full(len(rows), np.nan)
    return Samples(
        ts=np.array([row.bar_ts for row in rows], dtype=np.int64),
        symbol=code,
        symbols=symbols,
        wide=np.stack([row.wide for row in rows]),
        wide_names=WIDE,
        deep=DeepWindows(tuple(np.concatenate(own) for own in windows), code, end, width),
        y_up=unknown,
        fwd_ret=unknown.copy(),
        scale=np.array([row.scale for row in rows]),
    )


def warm_streak(frame: pl.DataFrame, step_ms: int) -> IntArray:
    """Return, for each row, how many warm rows on consecutive bars end there."""
    ts, warm = frame["ts"].to_numpy(), frame["warm"].to_numpy()
    rows = np.arange(len(ts), dtype=np.int64)
    joined = np.concatenate([[False], np.diff(ts) == step_ms])
    before = np.where(~warm, rows, np.where(joined, -1, rows - 1))
    streak: IntArray = rows - np.maximum.accumulate(before)
    return streak
