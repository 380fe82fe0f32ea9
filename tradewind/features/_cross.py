"""Features that come from beside a symbol's bars: other markets, and its companion series."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import MS_PER_DAY, TIMEFRAME_MS, Settings

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
FUNDING_MAX_AGE_MS = 2 * TIMEFRAME_MS["8h"]
"""An older rate is no longer the market's: one settlement was missed."""

SURVEY_MAX_AGE_MS = 2 * TIMEFRAME_MS["4h"]
"""Open interest and account ratios are surveyed at least every 4 h: older, one was missed."""

OPEN_INTEREST_SPAN_MS = MS_PER_DAY
"""The change of the open interest is over a day: its rhythm within the day cancels out."""


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


def reference_closes(
    bars: Mapping[str, pl.DataFrame], grid: IntArray, settings: Settings
) -> FloatArray:
    """Return the references' closes on ``grid`` (open times, every step), shape (3, m).

    On one grid the as-of join on closed bars is the join on equal open times; a reference
    without the bar gives NaN, never an older one.
    """
    return np.stack([_close_on(bars, name, grid) for name in references(settings)])


def leader(symbol: str, settings: Settings) -> int:
    """Return the place of the reference whose previous return is a feature of ``symbol``."""
    return 1 if symbol == references(settings)[0] else 0


def companion_features(
    ts: IntArray,
    step_ms: int,
    *,
    funding: pl.DataFrame | None = None,
    open_interest: pl.DataFrame | None = None,
    long_short: pl.DataFrame | None = None,
) -> dict[str, FloatArray]:
    """Return what each bar knows of the companion series, NaN where that is nothing.

    A value counts from the moment after its own: strictly before the bar's close.
    """
    close = ts + step_ms
    now = _positive(_known_at(close, open_interest, "open_interest", SURVEY_MAX_AGE_MS))
    day_ago = _known_at(
        close - OPEN_INTEREST_SPAN_MS, open_interest, "open_interest", SURVEY_MAX_AGE_MS
    )
    ratio = _known_at(close, long_short, "long_short_ratio", SURVEY_MAX_AGE_MS)
    return {
        "funding_rate": _known_at(close, funding, "funding_rate", FUNDING_MAX_AGE_MS),
        "open_interest_change": np.log(now / _positive(day_ago)),
        "long_short_ratio": np.log(_positive(ratio)),
    }


def _known_at(
    moments: IntArray, series: pl.DataFrame | None, column: str, max_age_ms: int
) -> FloatArray:
    """Return the last value strictly before each moment, NaN if there is none or too old."""
    known = None if series is None else series.select("ts", column).drop_nulls().sort("ts")
    if known is None or known.is_empty():
        return np.full(len(moments), np.nan)
    at, values = known["ts"].to_numpy(), known[column].to_numpy()
    place = np.searchsorted(at, moments, side="left") - 1
    fresh = (place >= 0) & (moments - at[place] <= max_age_ms)
    return np.where(fresh, values[place], np.nan)


def _positive(x: FloatArray) -> FloatArray:
    return np.where(x > 0, x, np.nan)


def _close_on(bars: Mapping[str, pl.DataFrame], name: str, grid: IntArray) -> FloatArray:
    if name not in bars:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"bars of reference symbol {name} are missing; given: {', '.join(bars) or 'none'}",
            "Pass the bars of every symbol in market.reference_symbols",
        )
    if not len(grid):
        return np.empty(0)
    ts, close = bars[name]["ts"].to_numpy(), bars[name]["close"].to_numpy()
    first, end = np.searchsorted(ts, [grid[0], grid[-1] + 1])
    if end - first == len(grid):
        return close[first:end]
    out = np.full(len(grid), np.nan)
    out[np.searchsorted(grid, ts[first:end])] = close[first:end]
    return out
