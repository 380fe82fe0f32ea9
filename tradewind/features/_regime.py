"""Regimes of a symbol's bars, on the trading timeframe and on slower ones made of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features._grid import Grid
from tradewind.features._indicators import average_true_range, recursive_indicators
from tradewind.features._rolling import divide, lagged, rolling_extremes, rolling_mean
from tradewind.features.definitions import ANCHOR_BARS
from tradewind.regimes.detector import RegimeSeries, detect
from tradewind.settings import TIMEFRAME_MS, RegimeSettings, Settings

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SLOW_ANCHOR_BARS = 128
"""Indicators of a slower timeframe restart at multiples of this many of its bars."""


@dataclass(frozen=True, eq=False)
class RiskBars:
    """Buckets of the risk timeframe: when each closes, and high, low and close, shape (4, n)."""

    ends: IntArray
    bars: FloatArray
    span_ms: int

    def atr(self, close_ms: int) -> float:
        """Return ATR(14) over the buckets closed at ``close_ms``, NaN if there are too few."""
        end = int(np.searchsorted(self.ends, close_ms, side="right"))
        start = int(np.searchsorted(self.ends, close_ms - self.span_ms, side="right"))
        return average_true_range(self.bars, start, end)


RiskAtr = Callable[[int], float]
"""ATR of the risk timeframe as of a moment."""


def risk_ms(settings: Settings) -> int:
    """Return the length of a bucket of `sizing.risk_atr_timeframe`.

    Raises
    ------
    TradewindError
        ``bad_setting`` when it cannot be made of the trading timeframe's bars.
    """
    length = TIMEFRAME_MS[settings.sizing.risk_atr_timeframe]
    if length % settings.market.timeframe_ms:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"sizing.risk_atr_timeframe = {settings.sizing.risk_atr_timeframe} "
            f"cannot be made of {settings.market.timeframe} bars",
            "Choose a timeframe that is a multiple of market.timeframe",
        )
    return length


def risk_bars(bars: pl.DataFrame, settings: Settings) -> RiskBars:
    """Return the buckets of the risk timeframe, the newest perhaps unfinished."""
    length = risk_ms(settings)
    grid = Grid.of(_buckets(bars, length), length)
    return RiskBars(
        ends=grid.rows_ts + length,
        bars=grid.rows,
        span_ms=settings.features.risk_atr_bars * length,
    )


def slower_timeframes(settings: Settings) -> tuple[str, ...]:
    """Return the regime timeframes beside the trading one: its multiples."""
    step = settings.market.timeframe_ms
    slower = (t for t in settings.regimes.timeframes if TIMEFRAME_MS[t] > step)
    return tuple(sorted(set(slower), key=lambda t: TIMEFRAME_MS[t]))


def regime_rows(settings: Settings) -> int:
    """Return how many trading bars before one decide its regimes, at most."""
    cfg, step = settings.regimes, settings.market.timeframe_ms
    slowest = max((TIMEFRAME_MS[t] for t in slower_timeframes(settings)), default=0)
    windows = cfg.memory_bars + max(cfg.range_bars + cfg.average_bars, cfg.volume_average_bars)
    pieces = 1 + -(-windows // SLOW_ANCHOR_BARS)
    slow = (pieces * SLOW_ANCHOR_BARS + cfg.warmup_bars + 2) * (slowest // step)
    # One bucket more at either end: the oldest may be cut, the newest be unfinished.
    risk = (settings.features.risk_atr_bars + 2) * (risk_ms(settings) // step)
    return max(slow, risk + cfg.memory_bars)


def symbol_regimes(
    symbol: str,
    long: pl.DataFrame,
    grid: Grid,
    indicators: FloatArray,
    settings: Settings,
) -> dict[str, RegimeSeries]:
    """Return the regimes by timeframe, the trading one first, one value for each bar of ``grid``.

    Parameters
    ----------
    long
        Bars of the symbol that end with the grid's and go back as far as the slow ones need.
    grid, indicators
        Bars, and what `recursive_indicators` says of them.
    """
    step, trading = settings.market.timeframe_ms, settings.market.timeframe
    ts = grid.rows_ts
    risk = functools.cache(risk_bars(long, settings).atr)
    own = _detected(symbol, trading, grid, indicators, risk, settings, ANCHOR_BARS)
    found: dict[str, RegimeSeries] = {trading: own.take(grid.at)}
    for timeframe in slower_timeframes(settings):
        span = TIMEFRAME_MS[timeframe]
        rows, slow = _slow_regimes(symbol, timeframe, long, risk, settings)
        place = np.searchsorted(rows, (ts + step) // span * span - span)
        known = place < len(rows)
        known[known] = rows[place[known]] == ((ts + step) // span * span - span)[known]
        # A bucket that does not exist, or was not whole, is not replaced by an older one.
        found[timeframe] = slow.take(np.where(known, place, -1))
    return found


def _slow_regimes(
    symbol: str, timeframe: str, long: pl.DataFrame, risk: RiskAtr, settings: Settings
) -> tuple[IntArray, RegimeSeries]:
    """Return open times of the buckets of a slower timeframe, and their regimes."""
    span = TIMEFRAME_MS[timeframe]
    buckets = _buckets(long, span)
    if buckets.height and int(buckets["ts"][0]) < int(long["ts"][0]):
        buckets = buckets[1:]  # its beginning is not known
    grid = Grid.of(buckets, span)
    indicators = recursive_indicators(
        grid.rows_ts,
        grid.rows,
        grid.run_starts(settings.features.max_gap_bars * settings.market.timeframe_ms // span),
        step_ms=span,
        warmup=settings.regimes.warmup_bars,
        anchor_bars=SLOW_ANCHOR_BARS,
    )
    series = _detected(symbol, timeframe, grid, indicators, risk, settings, SLOW_ANCHOR_BARS)
    return grid.rows_ts, series.take(grid.at)


def _detected(
    symbol: str,
    timeframe: str,
    grid: Grid,
    indicators: FloatArray,
    risk: RiskAtr,
    settings: Settings,
    anchor_bars: int,
) -> RegimeSeries:
    cfg, length = settings.regimes, TIMEFRAME_MS[timeframe]
    risk_atr = _risk_atr_at(grid.ts + length, risk, risk_ms(settings))
    metrics = regime_metrics(grid, indicators, risk_atr, cfg)
    return detect(
        timeframe,
        grid.ts // length,
        metrics,
        cfg.of(symbol),
        confirm_bars=cfg.confirm_bars,
        memory_bars=cfg.memory_bars,
        anchor_bars=anchor_bars,
    )


def regime_metrics(
    grid: Grid,
    indicators: FloatArray,
    risk_atr: FloatArray,
    cfg: RegimeSettings,
) -> dict[str, FloatArray]:
    """Return `regimes.kinds.METRICS` of bars on their grid, NaN where there are too few."""
    from tradewind.features import _kernel

    high, low, close, volume = grid.table
    of = dict(zip(_kernel.INDICATORS, map(grid.spread, indicators), strict=True))
    fast, middle, slow, atr = (of[name] for name in ("ema_fast", "ema_middle", "ema_slow", "atr"))
    mean = functools.partial(rolling_mean, place=grid.place)

    def over_average(x: FloatArray) -> FloatArray:
        return divide(x, mean(x, cfg.average_bars), if_zero=1.0)

    def present_over_usual(x: FloatArray) -> FloatArray:
        usual = mean(x, cfg.volume_average_bars)
        return divide(mean(x, cfg.volume_bars), usual, if_zero=0.0)

    rising = (fast > middle) & (middle > slow)
    falling = (fast < middle) & (middle < slow)
    least, greatest = rolling_extremes(low, high, cfg.range_bars)
    spread = (greatest - least) / close
    return {
        "adx": of["adx"],
        "di_diff": of["di_diff"],
        "alignment": np.where(np.isnan(slow), np.nan, rising * 1.0 - falling * 1.0),
        "atr_ratio": over_average(atr),
        "risk_atr_pct": risk_atr / close,
        "range_ratio": over_average(spread),
        "momentum": divide(close - lagged(close, cfg.momentum_bars), atr, if_zero=0.0),
        "volume_ratio": present_over_usual(volume),
        "liquidity_ratio": divide(
            present_over_usual(volume * close), present_over_usual(high - low), if_zero=1.0
        ),
    }


def _risk_atr_at(closes: IntArray, risk: RiskAtr, bucket_ms: int) -> FloatArray:
    """Return the risk ATR at each moment: it changes only where a bucket may close."""
    if not len(closes):
        return np.empty(0)
    moments, place = np.unique(closes // bucket_ms * bucket_ms, return_inverse=True)
    values = np.array([risk(int(moment)) for moment in moments])
    return values[place]


def _buckets(bars: pl.DataFrame, length_ms: int) -> pl.DataFrame:
    """Return bars of a longer timeframe; ts is the open of each."""
    return (
        bars.group_by((pl.col("ts") // length_ms * length_ms).alias("ts_"), maintain_order=True)
        .agg(
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
        .rename({"ts_": "ts"})
    )
