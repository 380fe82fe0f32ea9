"""TA-Lib's recursive indicators over a canonical trailing window.

A recursive indicator remembers where it started. Here it restarts at fixed points of absolute
time (every ``ANCHOR_BARS`` bars), each time ``warmup`` bars before that point. So a value is
the same, to the bit, from two years of bars or from the last few thousand, in this process or
another; the fingerprints of two processes can be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tradewind.features.definitions import ANCHOR_BARS, FAST, MACD, MIDDLE, PERIOD, SLOW

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
EMA_PERIODS = {"ema_fast": FAST, "ema_middle": MIDDLE, "ema_slow": SLOW}
NAMES = ("ema_fast", "ema_middle", "ema_slow", "rsi", "atr", "adx", "di_diff", "macd_hist")


def recursive_indicators(
    ts: IntArray,
    bars: dict[str, FloatArray],
    run_start: IntArray,
    *,
    step_ms: int,
    warmup: int,
    anchor_bars: int = ANCHOR_BARS,
    names: Sequence[str] = NAMES,
) -> dict[str, FloatArray]:
    """Return indicators, in TA-Lib's own units, one value a bar.

    Parameters
    ----------
    ts, bars
        Open times and high, low, close of the bars that exist, shape (n,).
    run_start
        For each bar, the row at which its unbroken history begins.
    warmup
        Bars before an anchor at which the recursion starts.
    anchor_bars
        Bars between two anchors.
    names
        Those of `NAMES` that are wanted.

    Returns
    -------
    dict
        NaN where TA-Lib has too few bars.
    """
    out = {name: np.full(len(ts), np.nan) for name in names}
    if not len(ts):
        return out
    piece = np.stack([run_start, ts // (anchor_bars * step_ms)])
    edges = np.flatnonzero(np.any(np.diff(piece, axis=1) != 0, axis=0)) + 1
    bounds = [0, *edges.tolist(), len(ts)]
    for first, end in itertools.pairwise(bounds):
        start = max(int(run_start[first]), first - warmup)
        window = {name: values[start:end] for name, values in bars.items()}
        for name in names:
            out[name][first:end] = _one(name, **window)[first - start :]
    return out


def average_true_range(high: FloatArray, low: FloatArray, close: FloatArray) -> float:
    """Return the newest ATR(14) of a window in price units, NaN if it is too short."""
    import talib  # it loads pandas when there is one

    if len(close) <= PERIOD:
        return float("nan")
    return float(talib.ATR(high, low, close, PERIOD)[-1])


def _one(name: str, high: FloatArray, low: FloatArray, close: FloatArray) -> FloatArray:
    import talib

    found: FloatArray
    match name:
        case "ema_fast" | "ema_middle" | "ema_slow":
            found = talib.EMA(close, EMA_PERIODS[name])
        case "rsi":
            found = talib.RSI(close, PERIOD)
        case "atr":
            found = talib.ATR(high, low, close, PERIOD)
        case "adx":
            found = talib.ADX(high, low, close, PERIOD)
        case "di_diff":
            plus = talib.PLUS_DI(high, low, close, PERIOD)
            found = plus - talib.MINUS_DI(high, low, close, PERIOD)
        case _:
            found = talib.MACD(close, *MACD)[2]
    return found
