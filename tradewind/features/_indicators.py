"""Recursive indicators over a canonical trailing window.

A recursive indicator remembers where it started. Here it restarts at fixed points of absolute
time (every ``ANCHOR_BARS`` bars), each time ``warmup`` bars before that point. So a value is
the same, to the bit, from two years of bars or from the last few thousand, in this process or
another; the fingerprints of two processes can be compared.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from tradewind.features.definitions import ANCHOR_BARS, FAST, MACD, MIDDLE, PERIOD, SLOW

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
PERIODS = (FAST, MIDDLE, SLOW, PERIOD, *MACD)


def recursive_indicators(
    ts: IntArray,
    bars: FloatArray,
    run_start: IntArray,
    *,
    step_ms: int,
    warmup: int,
    anchor_bars: int = ANCHOR_BARS,
) -> FloatArray:
    """Return indicators as TA-Lib defines them, in its units.

    Parameters
    ----------
    ts, bars
        Open times, shape (n,), and high, low, close of the bars that exist, shape (3 or more, n).
    run_start
        For each bar, the row at which its unbroken history begins.
    warmup
        Bars before an anchor at which the recursion starts.
    anchor_bars
        Bars between two anchors.

    Returns
    -------
    ndarray
        One row for each of `_kernel.INDICATORS`, shape (8, n); NaN where TA-Lib has too few bars.
    """
    from tradewind.features import _kernel

    out = np.empty((len(_kernel.INDICATORS), len(ts)))
    if not len(ts):
        return out
    piece = np.stack([run_start, ts // (anchor_bars * step_ms)])
    edges = np.flatnonzero(np.any(np.diff(piece, axis=1) != 0, axis=0)) + 1
    for first, end in itertools.pairwise([0, *edges.tolist(), len(ts)]):
        start = max(int(run_start[first]), first - warmup)
        _kernel.indicators(_kernel.BEGINNING, PERIODS, bars, start, start, first, end, 0, out)
    return out


def trailing_atr(bars: FloatArray, starts: IntArray, ends: IntArray) -> FloatArray:
    """Return ATR(14), price units, of the last of the bars ``start`` … ``end`` − 1, for each pair.

    NaN if they are too few; ``bars`` as in `recursive_indicators`.
    """
    from tradewind.features import _kernel

    out = np.full((len(_kernel.INDICATORS), len(ends)), np.nan)
    for k, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        last = end - 1
        _kernel.indicators(_kernel.BEGINNING, PERIODS, bars, start, start, last, end, last - k, out)
    found: FloatArray = out[_kernel.ATR]
    return found
