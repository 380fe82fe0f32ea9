"""Features that a symbol takes from others: reference markets and the funding rate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features._rolling import divide, lagged, log_return, rolling_moments
from tradewind.settings import TIMEFRAME_MS, Settings

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
FUNDING_MAX_AGE_MS = 2 * TIMEFRAME_MS["8h"]
"""An older rate is no longer the market's: one settlement was missed."""


def references(settings: Settings) -> tuple[str, str, str]:
    """Return the three reference symbols.

    Raises
    ------
    TradewindError
        ``bad_setting`` when there are fewer.
    """
    symbols = settings.market.reference_symbols
    if len(symbols) < 3:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"market.reference_symbols = {list(symbols)} has {len(symbols)} symbols",
            "Give three: the cross-asset features compare the 1st with the 2nd, 2nd with the 3rd",
        )
    return symbols[0], symbols[1], symbols[2]


def cross_features(
    bars: Mapping[str, pl.DataFrame], symbol: str, grid: IntArray, settings: Settings
) -> dict[str, FloatArray]:
    """Return the ratio and lead features on ``grid`` (open times, every step).

    On one grid the as-of join on closed bars is the join on equal open times; a reference
    without the bar gives NaN, never an older one.
    """
    first, second, third = references(settings)
    close = {name: _close_on(bars, name, grid) for name in (first, second, third)}
    lead = second if symbol == first else first
    window = settings.features.ratio_window
    return {
        "ratio_BTC_ETH": _z_score(np.log(close[first] / close[second]), window),
        "ratio_ETH_SOL": _z_score(np.log(close[second] / close[third]), window),
        "lead_ret_BTC": lagged(log_return(close[lead]), 1),
    }


def funding_on(funding: pl.DataFrame | None, ts: IntArray, step_ms: int) -> FloatArray:
    """Return the last rate settled strictly before each bar's close, NaN if none or too old."""
    if funding is None or funding.is_empty():
        return np.full(len(ts), np.nan)
    known = funding.select("ts", "funding_rate").drop_nulls().sort("ts")
    settled, rates = known["ts"].to_numpy(), known["funding_rate"].to_numpy()
    place = np.searchsorted(settled, ts + step_ms, side="left") - 1
    fresh = (place >= 0) & (ts + step_ms - settled[place] <= FUNDING_MAX_AGE_MS)
    return np.where(fresh, rates[place], np.nan)


def _close_on(bars: Mapping[str, pl.DataFrame], name: str, grid: IntArray) -> FloatArray:
    if name not in bars:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"bars of reference symbol {name} are missing; given: {', '.join(bars) or 'none'}",
            "Pass the bars of every symbol in market.reference_symbols",
        )
    frame = bars[name].filter(pl.col("ts").is_between(int(grid[0]), int(grid[-1])))
    out = np.full(len(grid), np.nan)
    out[np.searchsorted(grid, frame["ts"].to_numpy())] = frame["close"].to_numpy()
    return out


def _z_score(x: FloatArray, window: int) -> FloatArray:
    mean, std = rolling_moments(x, window, ddof=1)
    return divide(x - mean, std, if_zero=0.0)
