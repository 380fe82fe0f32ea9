"""Features of one symbol over one stretch of time, computed once and sliced many times."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tradewind.features._cross import references
from tradewind.features._grid import Grid
from tradewind.features._regime import risk_atr
from tradewind.features.compute import features_and_regimes
from tradewind.features.definitions import (
    ANCHOR_BARS,
    DEEP,
    REQUIRED_FEATURES,
    WIDE,
    history_rows,
)
from tradewind.features.reading import read_companions, reference_bars
from tradewind.features.samples import warm_streak
from tradewind.market.store import BarStore
from tradewind.market.timeframes import regime_rows
from tradewind.regimes.detector import RegimeSeries
from tradewind.regimes.kinds import RegimeReading
from tradewind.settings import Settings

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureBlock:
    """Rows of one anchor block (and the window before it), ready to be sliced by time.

    ``streak`` counts the warm rows without a hole that end at each row.
    """

    ts: NDArray[np.int64]
    close: FloatArray
    atr: FloatArray
    risk_atr: FloatArray
    wide: FloatArray
    deep: NDArray[np.float32]
    history: NDArray[np.int64]
    streak: NDArray[np.int64]
    regime: list[str]
    regime_computed: list[bool]
    regimes: tuple[RegimeSeries, ...]

    def row_at(self, ts: int) -> int:
        """Return the newest row opening at or before ``ts``, −1 if there is none."""
        return int(np.searchsorted(self.ts, ts, side="right")) - 1

    def readings(self, row: int) -> tuple[RegimeReading, ...]:
        """Return the regimes as of ``row``, the trading timeframe's first."""
        return tuple(series.reading(row) for series in self.regimes)

    def missing(self, row: int) -> list[str]:
        """Return the required features that are not finite at ``row``."""
        values = dict(zip(WIDE, self.wide[row], strict=True))
        return [name for name in REQUIRED_FEATURES if not math.isfinite(values[name])]


def block_span(settings: Settings, ts: int) -> tuple[int, int]:
    """Return the first and past-the-end open time of the anchor block that holds ``ts``."""
    length = ANCHOR_BARS * settings.market.timeframe_ms
    start = ts // length * length
    return start, start + length


def read_block(settings: Settings, store: BarStore, symbol: str, ts: int) -> FeatureBlock:
    """Compute the block of ``ts`` from whatever the store holds of it.

    Raises
    ------
    TradewindError
        ``no_bars`` when the symbol was never stored.
    """
    step, window = settings.market.timeframe_ms, settings.features.window
    start, end = block_span(settings, ts)
    blocks = 1 + math.ceil((window - 1) / ANCHOR_BARS)
    rows = history_rows(settings) + blocks * ANCHOR_BARS
    # What decides the oldest row's regime, for every row of the block and of its window.
    regime = ANCHOR_BARS + window + regime_rows(settings)
    held = store.read_bars(symbol, settings.market.timeframe, until_ms=end, last=max(rows, regime))
    own = held.tail(rows)
    first = int(own["ts"][0]) if own.height else start
    bars = {symbol: own}
    for name in references(settings):
        if name not in bars:
            bars[name] = reference_bars(settings, store, name, start_ms=first, until_ms=end)
    frame, regimes = features_and_regimes(
        bars,
        symbol,
        settings,
        long=held,
        **read_companions(store, symbol, start_ms=first, until_ms=end),
    )
    streak = warm_streak(frame, step)
    # One row before the block is kept too: the newest bar, when the block has none yet.
    keep = max(int(np.searchsorted(frame["ts"].to_numpy(), start)) - window, 0)
    kept = np.arange(keep, frame.height)
    frame, streak = frame[keep:], streak[keep:]
    wide = np.ascontiguousarray(frame.select(WIDE).to_numpy())
    return FeatureBlock(
        ts=frame["ts"].to_numpy(),
        close=frame["close"].to_numpy(),
        atr=frame["atr"].to_numpy(),
        risk_atr=risk_atr(Grid.of(held, step), settings).at(frame["ts"].to_numpy() + step),
        wide=wide,
        deep=wide[:, : len(DEEP)].astype(np.float32),
        history=frame["history"].to_numpy(),
        streak=streak,
        regime=frame["regime"].to_list(),
        regime_computed=frame["regime_computed"].to_list(),
        regimes=tuple(series.take(kept) for series in regimes.values()),
    )
