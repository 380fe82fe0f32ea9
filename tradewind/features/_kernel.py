"""The arithmetic of features, compiled: the same functions make a batch and the newest row.

A row's bits depend on the bars and on their times alone, not on how many rows are computed
together. Tables have one row per quantity and one column per bar, and NaN where there is no bar.
Compiled code is renewed when THIS file changes: constants of other files come in as arguments.
"""

from __future__ import annotations

import math

import numpy as np
from numba import float64, int64, types, void
from numpy.typing import NDArray

from tradewind.compiling import compiled, inlined

Column = NDArray[np.float64]
Table = NDArray[np.float64]
Averages = tuple[float, ...]

HIGH, LOW, CLOSE, VOLUME = range(4)
"""Rows of a table of bars."""

INDICATORS = ("ema_fast", "ema_middle", "ema_slow", "rsi", "atr", "adx", "di_diff", "macd_hist")
EMA_FAST, EMA_MIDDLE, EMA_SLOW, RSI, ATR, ADX, DI_DIFF, MACD_HIST = range(8)
"""Rows of a table of indicators, in TA-Lib's units."""

RET_1, OVER_EMA_FAST, OVER_EMA_MIDDLE, OVER_EMA_SLOW, Z_SCORE, RANGE, VOL = range(7)
RATIO_1, RATIO_2, LEAD_RET, RSI_SHARE, ATR_SHARE, ADX_SHARE, DI_SHARE, MACD_SHARE = range(7, 15)
BAND_PLACE, BAND_SPAN, STOCHASTIC, VOLUME_RATIO, RET_4, RET_16, RET_LONG, VOL_RATIO = range(15, 23)
"""Rows of a table of features: the first of `definitions.WIDE`."""

AVERAGES = 13
BEGINNING: Averages = (0.0,) * AVERAGES
"""Averages of indicators before their first bar."""

PIECE = 2048
"""Bars whose windows are computed together: they stay in the cache. No value depends on it."""

_column = types.Array(float64, 1, "C", readonly=True)
_table = types.Array(float64, 2, "C", readonly=True)
_out_column = float64[::1]
_out_table = float64[:, ::1]
_averages = types.UniTuple(float64, AVERAGES)


@inlined
def _averaged(
    average: float, value: float, seen: int, seed: int, period: int, weight: float
) -> float:
    """Return an average after one more value; it begins, as TA-Lib's do, with a plain mean.

    ``seen`` values came before, of which the first ``seed`` count 1 / ``period`` each.
    """
    if seen >= seed:
        return average + (value - average) * weight
    return average + value / period if seen >= 0 else 0.0


@inlined
def _ema(average: float, value: float, seen: int, period: int) -> float:
    return _averaged(average, value, seen, period, period, 2 / (period + 1))


@inlined
def _wilder(average: float, value: float, seen: int, seed: int, period: int) -> float:
    return _averaged(average, value, seen, seed, period, 1 / period)


@compiled(
    _averages(
        _averages, types.UniTuple(int64, 7), _table, int64, int64, int64, int64, int64, _out_table
    )
)
def indicators(
    averages: Averages,
    periods: tuple[int, ...],
    bars: Table,
    origin: int,
    begin: int,
    first: int,
    end: int,
    shift: int,
    out: Table,
) -> Averages:
    """Bring recursive indicators on by the bars ``begin`` … ``end`` − 1; return their averages.

    Parameters
    ----------
    averages
        As they were before ``begin``; `BEGINNING` at the ``origin``.
    periods
        Of the three EMAs, of Wilder's averages, and of MACD's fast, slow and signal line.
    bars
        high, low and close of bars that exist.
    origin
        Column of the bar with which the recursion began, below 0 if it is no longer held.
    first, shift, out
        Indicators of the columns from ``first`` on are written, ``shift`` columns to the left;
        NaN where TA-Lib has too few bars.
    """
    fast, middle, slow, period, macd_fast, macd_slow, macd_signal = periods
    ema_fast, ema_middle, ema_slow, line_fast, line_slow, signal = averages[:6]
    gain, loss, atr, reach, plus, minus, adx = averages[6:]
    for i in range(begin, end):
        seen = i - origin
        high, low, close = bars[HIGH, i], bars[LOW, i], bars[CLOSE, i]
        ema_fast = _ema(ema_fast, close, seen, fast)
        ema_middle = _ema(ema_middle, close, seen, middle)
        ema_slow = _ema(ema_slow, close, seen, slow)
        line_fast = _ema(line_fast, close, seen - (macd_slow - macd_fast), macd_fast)
        line_slow = _ema(line_slow, close, seen, macd_slow)
        line = line_fast - line_slow
        signal = _ema(signal, line, seen - (macd_slow - 1), macd_signal)
        if seen > 0:
            earlier, before = seen - 1, bars[CLOSE, i - 1]
            gain = _wilder(gain, max(close - before, 0.0), earlier, period, period)
            loss = _wilder(loss, max(before - close, 0.0), earlier, period, period)
            span = max(high, before) - min(low, before)
            atr = _wilder(atr, span, earlier, period, period)
            # The directional system has its own true range, begun one bar earlier.
            up, down = high - bars[HIGH, i - 1], bars[LOW, i - 1] - low
            rise = up if up > down and up > 0 else 0.0
            fall = down if down > up and down > 0 else 0.0
            reach = _wilder(reach, span, earlier, period - 1, period)
            plus = _wilder(plus, rise, earlier, period - 1, period)
            minus = _wilder(minus, fall, earlier, period - 1, period)
            both = plus + minus
            if seen >= period and reach > 0 and both > 0:
                index = 100 * abs(plus - minus) / both
                adx = _wilder(adx, index, seen - period, period, period)
        if i >= first:
            to = i - shift
            out[EMA_FAST, to] = ema_fast if seen >= fast - 1 else np.nan
            out[EMA_MIDDLE, to] = ema_middle if seen >= middle - 1 else np.nan
            out[EMA_SLOW, to] = ema_slow if seen >= slow - 1 else np.nan
            both = gain + loss
            rsi = 100 * gain / both if both > 0 else 0.0
            out[RSI, to] = rsi if seen >= period else np.nan
            out[ATR, to] = atr if seen >= period else np.nan
            out[ADX, to] = adx if seen >= 2 * period - 1 else np.nan
            di_diff = 100 * (plus - minus) / reach if reach > 0 else 0.0
            out[DI_DIFF, to] = di_diff if seen >= period else np.nan
            out[MACD_HIST, to] = line - signal if seen >= macd_slow + macd_signal - 2 else np.nan
    lines = ema_fast, ema_middle, ema_slow, line_fast, line_slow, signal
    moves = gain, loss, atr, reach, plus, minus, adx
    return lines + moves


@compiled(void(_table, _table, int64, _out_table))
def indicator_features(raw: Table, bars: Table, first: int, out: Table) -> None:
    """Write the features that are indicators free of units.

    ``raw`` has the indicators of the bars from column ``first`` on.
    """
    for i in range(raw.shape[1]):
        close = bars[CLOSE, first + i]
        out[OVER_EMA_FAST, i] = math.log(close / raw[EMA_FAST, i])
        out[OVER_EMA_MIDDLE, i] = math.log(close / raw[EMA_MIDDLE, i])
        out[OVER_EMA_SLOW, i] = math.log(close / raw[EMA_SLOW, i])
        out[RSI_SHARE, i] = raw[RSI, i] / 100
        out[ATR_SHARE, i] = raw[ATR, i] / close
        out[ADX_SHARE, i] = raw[ADX, i] / 100
        out[DI_SHARE, i] = raw[DI_DIFF, i] / 100
        out[MACD_SHARE, i] = raw[MACD_HIST, i] / close


@inlined
def _moments(
    x: Column, place: int, window: int, ddof: int, first: int, mean: Column, std: Column
) -> None:
    """Write mean and standard deviation of the ``window`` values that end at each row.

    Time is cut every ``window`` bars, so a window is the end of one stretch and the beginning
    of the next: a sum from the cut backwards and one from the cut onwards, a few operations a
    row. Nothing is ever taken away from a sum, so nothing of an old value stays in it; a NaN
    spoils the windows that hold it and no later one. Deviations are from the value at the
    cut, which is in the window: when all are equal, their standard deviation is exactly 0.

    Parameters
    ----------
    place
        Number of ``x[0]`` in absolute time: where the cuts are.
    first
        Row from which on something is written; NaN where the window is not whole.
    """
    begin = min(max(first, window - 1), len(x))
    mean[first:begin] = np.nan
    std[first:begin] = np.nan
    before, squares_before = np.zeros(window), np.zeros(window)
    after, squares_after = np.zeros(window), np.zeros(window)
    part, free = 1 / window, 1 / (window - ddof)
    while begin < len(x):
        cut = begin - (place + begin) % window
        end = min(cut + window, len(x))
        base = x[cut]
        total = squares = 0.0
        for j in range(window - 2, begin - cut - 1, -1):
            away = x[cut + j - window + 1] - base
            total += away
            squares += away * away
            before[j], squares_before[j] = total, squares
        total = squares = 0.0
        for j in range(end - cut):
            away = x[cut + j] - base
            total += away
            squares += away * away
            after[j], squares_after[j] = total, squares
        for j in range(begin - cut, end - cut):
            total = before[j] + after[j]
            variance = (squares_before[j] + squares_after[j] - total * total * part) * free
            mean[cut + j] = base + total * part
            std[cut + j] = 0.0 if variance < 0 else math.sqrt(variance)
        begin = end


@inlined
def _extremes(
    low: Column, high: Column, window: int, first: int, least: Column, greatest: Column
) -> None:
    """Write the least low and the greatest high of each window, as `_moments` goes about it."""
    begin = min(max(first, window - 1), len(low))
    least[first:begin] = np.nan
    greatest[first:begin] = np.nan
    least_before, greatest_before = np.full(window, np.inf), np.full(window, -np.inf)
    while begin < len(low):
        cut = begin - begin % window  # wherever: a minimum is exact
        end = min(cut + window, len(low))
        bottom, top = np.inf, -np.inf
        for j in range(window - 2, begin - cut - 1, -1):
            bottom = np.minimum(bottom, low[cut + j - window + 1])
            top = np.maximum(top, high[cut + j - window + 1])
            least_before[j], greatest_before[j] = bottom, top
        bottom, top = np.inf, -np.inf
        for j in range(end - cut):
            bottom = np.minimum(bottom, low[cut + j])
            top = np.maximum(top, high[cut + j])
            if cut + j >= begin:
                least[cut + j] = np.minimum(bottom, least_before[j])
                greatest[cut + j] = np.maximum(top, greatest_before[j])
        begin = end


@compiled(void(_column, int64, int64, int64, _out_column, _out_column))
def moments(x: Column, place: int, window: int, ddof: int, mean: Column, std: Column) -> None:
    """Write mean and standard deviation of the last ``window`` values; see `_moments`."""
    _moments(x, place, window, ddof, 0, mean, std)


@compiled(void(_column, _column, int64, _out_column, _out_column))
def extremes(low: Column, high: Column, window: int, least: Column, greatest: Column) -> None:
    """Write the least ``low`` and the greatest ``high`` of the last ``window`` bars."""
    _extremes(low, high, window, 0, least, greatest)


@inlined
def _over(numerator: float, denominator: float, if_zero: float) -> float:
    return if_zero if denominator == 0 else numerator / denominator


@inlined
def _log_return(close: Column, i: int, bars: int) -> float:
    return math.log(close[i] / close[i - bars]) if i >= bars else np.nan


@inlined
def _piece(
    bars: Table,
    closes: Table,
    lead: int,
    place: int,
    periods: tuple[int, int, int, int],
    band_width: float,
    since: int,
    first: int,
    stop: int,
    shift: int,
    out: Table,
) -> None:
    """Write the columns ``first`` … ``stop`` − 1 of `window_features`, read from ``since`` on."""
    fast, long, period, ratio = periods
    high, low = bars[HIGH, since:stop], bars[LOW, since:stop]
    close, volume = bars[CLOSE, since:stop], bars[VOLUME, since:stop]
    one, two, three = closes[0, since:stop], closes[1, since:stop], closes[2, since:stop]
    leader = closes[lead, since:stop]
    count, begin, to = stop - since, first - since, since - shift

    # Series, and the windows over them: which series, how many bars, divided by n or by n − 1.
    series = np.empty((6, count))
    for i in range(count):
        series[0, i] = math.log(close[i])
        series[1, i] = _log_return(close, i, 1)
        series[2, i] = close[i]
        series[3, i] = volume[i]
        series[4, i] = math.log(one[i] / two[i])
        series[5, i] = math.log(two[i] / three[i])
    of, windows = (0, 1, 1, 2, 3, 4, 5), (fast, fast, long, fast, fast, ratio, ratio)
    lost = (1, 1, 1, 0, 0, 1, 1)
    mean, std = np.empty((7, count)), np.empty((7, count))
    for k in range(7):
        _moments(series[of[k]], place + since, windows[k], lost[k], begin, mean[k], std[k])
    least, greatest = np.empty(count), np.empty(count)
    _extremes(low, high, period, begin, least, greatest)

    for i in range(begin, count):
        out[RET_1, to + i] = series[1, i]
        out[RET_4, to + i] = _log_return(close, i, 4)
        out[RET_16, to + i] = _log_return(close, i, 16)
        out[RET_LONG, to + i] = _log_return(close, i, long)
        out[RANGE, to + i] = (high[i] - low[i]) / close[i]
        out[Z_SCORE, to + i] = _over(series[0, i] - mean[0, i], std[0, i], 0.0)
        out[VOL, to + i] = std[1, i]
        out[VOL_RATIO, to + i] = _over(std[1, i], std[2, i], 1.0)
        half = band_width * std[3, i]
        out[BAND_PLACE, to + i] = _over(close[i] - mean[3, i] + half, 2 * half, 0.5)
        out[BAND_SPAN, to + i] = 2 * half / mean[3, i]
        out[STOCHASTIC, to + i] = _over(close[i] - least[i], greatest[i] - least[i], 0.5)
        out[VOLUME_RATIO, to + i] = _over(volume[i], mean[4, i], 0.0)
        out[RATIO_1, to + i] = _over(series[4, i] - mean[5, i], std[5, i], 0.0)
        out[RATIO_2, to + i] = _over(series[5, i] - mean[6, i], std[6, i], 0.0)
        out[LEAD_RET, to + i] = _log_return(leader, i - 1, 1) if i > 0 else np.nan


@compiled(
    void(
        *(_table, _table, int64, int64, types.UniTuple(int64, 5), float64),
        *(int64, int64, int64, int64, _out_table),
    )
)
def window_features(
    bars: Table,
    closes: Table,
    lead: int,
    place: int,
    periods: tuple[int, int, int, int, int],
    band_width: float,
    begin: int,
    first: int,
    end: int,
    shift: int,
    out: Table,
) -> None:
    """Write every feature over a window, NaN where the window is not whole.

    Parameters
    ----------
    bars, closes
        Bars of a market, and closes of the three reference markets, on the same grid of times.
    lead
        Row of ``closes`` whose previous return is a feature.
    place
        Number of column 0 in absolute time.
    periods
        Short window, long window, window of the stochastic, window of the ratios, and how many
        bars back no feature reaches.
    begin
        First column that there is.
    first, end, shift, out
        Columns ``first`` … ``end`` − 1 are written, ``shift`` columns to the left.
    """
    fast, long, period, ratio, reach = periods
    for start in range(first, end, PIECE):
        stop, since = min(start + PIECE, end), max(begin, start - reach)
        spans = fast, long, period, ratio
        _piece(bars, closes, lead, place, spans, band_width, since, start, stop, shift, out)
