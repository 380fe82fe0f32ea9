"""Regimes of a symbol's bars, on the trading timeframe and on slower ones made of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tradewind.features._grid import Grid
from tradewind.features._indicators import recursive_indicators, trailing_atr
from tradewind.features._rolling import divide, lagged, rolling_extremes, rolling_mean
from tradewind.features.definitions import ANCHOR_BARS
from tradewind.market.timeframes import SLOW_ANCHOR_BARS, risk_ms, slower_timeframes
from tradewind.regimes.detector import RegimeSeries, detect
from tradewind.settings import TIMEFRAME_MS, RegimeSettings, Settings

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RiskAtr:
    """ATR(14), price units, of the risk timeframe as of every moment at which a bucket may close.

    ``values[0]`` is of ``first_ms``, each later one of a bucket later; NaN if there are too few.
    """

    first_ms: int
    bucket_ms: int
    values: FloatArray

    def at(self, moments: IntArray) -> FloatArray:
        """Return the ATR over the buckets closed at each moment."""
        place = (moments - self.first_ms) // self.bucket_ms
        known = (place >= 0) & (place < len(self.values))
        return np.append(self.values, np.nan)[np.where(known, place, -1)]


def risk_atr(bars: Grid, settings: Settings) -> RiskAtr:
    """Return the ATR of `sizing.risk_atr_timeframe`, each over `features.risk_atr_bars` buckets."""
    length, span = risk_ms(settings), settings.features.risk_atr_bars
    buckets = bars.slower(length, whole=False)
    ends = np.arange(1, len(buckets.ts) + span + 1)
    held = np.searchsorted(buckets.at, np.stack([ends - span, ends]))
    first = int(buckets.ts[0]) + length if len(buckets.ts) else 0
    return RiskAtr(first, length, trailing_atr(buckets.rows, *held))


def symbol_regimes(
    symbol: str, long: Grid, grid: Grid, indicators: FloatArray, settings: Settings
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
    risk = risk_atr(long, settings)
    own = _detected(symbol, trading, grid, indicators, risk, settings, ANCHOR_BARS)
    found: dict[str, RegimeSeries] = {trading: own.take(grid.at)}
    for timeframe in slower_timeframes(settings):
        span = TIMEFRAME_MS[timeframe]
        slow = long.slower(span)
        series = _slow_regimes(symbol, timeframe, slow, risk, settings)
        # A bucket that does not exist, or was not whole, is not replaced by an older one.
        newest = (grid.rows_ts + step) // span - 1 - slow.place
        known = (newest >= 0) & (newest < len(slow.ts))
        found[timeframe] = series.take(np.where(known, newest, -1))
    return found


def _slow_regimes(
    symbol: str, timeframe: str, grid: Grid, risk: RiskAtr, settings: Settings
) -> RegimeSeries:
    span = TIMEFRAME_MS[timeframe]
    indicators = recursive_indicators(
        grid.rows_ts,
        grid.rows,
        grid.run_starts(settings.features.max_gap_bars * settings.market.timeframe_ms // span),
        step_ms=span,
        warmup=settings.regimes.warmup_bars,
        anchor_bars=SLOW_ANCHOR_BARS,
    )
    return _detected(symbol, timeframe, grid, indicators, risk, settings, SLOW_ANCHOR_BARS)


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
    metrics = regime_metrics(grid, indicators, risk.at(grid.ts + length), cfg)
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
    risk: FloatArray,
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
        "risk_atr_pct": risk / close,
        "range_ratio": over_average(spread),
        "momentum": divide(close - lagged(close, cfg.momentum_bars), atr, if_zero=0.0),
        "volume_ratio": present_over_usual(volume),
        "liquidity_ratio": divide(
            present_over_usual(volume * close), present_over_usual(high - low), if_zero=1.0
        ),
    }
