"""Features of one symbol over one stretch of time, computed once and sliced many times."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features._cross import references
from tradewind.features._indicators import average_true_range
from tradewind.features.compute import compute_features
from tradewind.features.definitions import (
    ANCHOR_BARS,
    DEEP,
    REQUIRED_FEATURES,
    WIDE,
    history_rows,
)
from tradewind.features.reading import read_funding, reference_bars
from tradewind.features.samples import warm_streak
from tradewind.market.store import BarStore
from tradewind.settings import TIMEFRAME_MS, Settings

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RiskBars:
    """High, low and close of the risk timeframe; ``ends`` is when each bucket closes."""

    ends: NDArray[np.int64]
    high: FloatArray
    low: FloatArray
    close: FloatArray
    span_ms: int

    def atr(self, close_ms: int) -> float:
        """Return ATR(14) over the buckets closed at ``close_ms``, NaN if there are too few."""
        end = int(np.searchsorted(self.ends, close_ms, side="right"))
        start = int(np.searchsorted(self.ends, close_ms - self.span_ms, side="right"))
        part = slice(start, end)
        return average_true_range(self.high[part], self.low[part], self.close[part])


@dataclass(frozen=True, eq=False)
class FeatureBlock:
    """Rows of one anchor block (and the window before it), ready to be sliced by time.

    ``streak`` counts the warm rows without a hole that end at each row.
    """

    ts: NDArray[np.int64]
    close: FloatArray
    atr: FloatArray
    wide: FloatArray
    deep: NDArray[np.float32]
    history: NDArray[np.int64]
    streak: NDArray[np.int64]
    regime: list[str]
    regime_computed: list[bool]
    risk: RiskBars

    def row_at(self, ts: int) -> int:
        """Return the newest row opening at or before ``ts``, −1 if there is none."""
        return int(np.searchsorted(self.ts, ts, side="right")) - 1

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
    risk_ms = _risk_ms(settings)
    blocks = 1 + math.ceil((window - 1) / ANCHOR_BARS)
    rows = history_rows(settings) + blocks * ANCHOR_BARS
    # One bucket more at either end: the oldest may be cut, the newest be unfinished.
    risk_rows = ANCHOR_BARS + window + (settings.features.risk_atr_bars + 2) * (risk_ms // step)
    held = store.read_bars(
        symbol, settings.market.timeframe, until_ms=end, last=max(rows, risk_rows)
    )
    own = held.tail(rows)
    first = int(own["ts"][0]) if own.height else start
    bars = {symbol: own}
    for name in references(settings):
        if name not in bars:
            bars[name] = reference_bars(settings, store, name, start_ms=first, until_ms=end)
    frame = compute_features(
        bars,
        symbol,
        settings,
        funding=read_funding(store, symbol, start_ms=first, until_ms=end),
    )
    streak = warm_streak(frame, step)
    # One row before the block is kept too: the newest bar, when the block has none yet.
    keep = max(int(np.searchsorted(frame["ts"].to_numpy(), start)) - window, 0)
    frame, streak = frame[keep:], streak[keep:]
    wide = np.ascontiguousarray(frame.select(WIDE).to_numpy())
    return FeatureBlock(
        ts=frame["ts"].to_numpy(),
        close=frame["close"].to_numpy(),
        atr=frame["atr"].to_numpy(),
        wide=wide,
        deep=wide[:, : len(DEEP)].astype(np.float32),
        history=frame["history"].to_numpy(),
        streak=streak,
        regime=frame["regime"].to_list(),
        regime_computed=frame["regime_computed"].to_list(),
        risk=_risk_bars(held, risk_ms, settings.features.risk_atr_bars),
    )


def _risk_ms(settings: Settings) -> int:
    risk_ms = TIMEFRAME_MS[settings.sizing.risk_atr_timeframe]
    if risk_ms % settings.market.timeframe_ms:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"sizing.risk_atr_timeframe = {settings.sizing.risk_atr_timeframe} "
            f"cannot be made of {settings.market.timeframe} bars",
            "Choose a timeframe that is a multiple of market.timeframe",
        )
    return risk_ms


def _risk_bars(bars: pl.DataFrame, risk_ms: int, count: int) -> RiskBars:
    buckets = (
        bars.group_by(((pl.col("ts") // risk_ms + 1) * risk_ms).alias("end"), maintain_order=True)
        .agg(pl.col("high").max(), pl.col("low").min(), pl.col("close").last())
        .rechunk()
    )
    return RiskBars(
        ends=buckets["end"].to_numpy(),
        high=buckets["high"].to_numpy(),
        low=buckets["low"].to_numpy(),
        close=buckets["close"].to_numpy(),
        span_ms=count * risk_ms,
    )
