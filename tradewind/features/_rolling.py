"""Rolling statistics without memory: a value depends on its own window only, to the last bit.

Library implementations keep running sums, whose rounding error grows with the length of the
history, so that batch and live part. Here each window is summed afresh, in the same order
wherever it lies: one vectorised pass a lag. A NaN spoils the windows that hold it, no later one.
The passes run over pieces of rows that stay in the cache meanwhile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
PIECE = 16_384
"""Rows a pass: four arrays of them fit into a second-level cache. No value depends on it."""


def lagged(x: FloatArray, bars: int) -> FloatArray:
    """Return ``x`` as it was ``bars`` earlier; NaN before the start."""
    out = np.full_like(x, np.nan)
    if bars < len(x):
        out[bars:] = x[: len(x) - bars]
    return out


def log_return(close: FloatArray, bars: int = 1) -> FloatArray:
    """Return ``log(close / close bars earlier)``, NaN where either is missing."""
    out: FloatArray = np.log(close / lagged(close, bars))
    return out


def rolling_moments(x: FloatArray, window: int, *, ddof: int) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of the last ``window`` values.

    Deviations are taken from the window's last value: a flat window has a standard deviation
    of exactly 0, and a level far from 0 costs no digits.
    """
    mean, std = np.full_like(x, np.nan), np.full_like(x, np.nan)
    for first in range(0, len(x) - window + 1, PIECE):
        last = x[first + window - 1 : first + window - 1 + PIECE]
        count = len(last)
        total, squares, deviation = np.zeros(count), np.zeros(count), np.empty(count)
        for lag in range(first, first + window - 1):
            np.subtract(x[lag : lag + count], last, out=deviation)
            total += deviation
            np.multiply(deviation, deviation, out=deviation)
            squares += deviation
        part = slice(first + window - 1, first + window - 1 + count)
        mean[part] = last + total / window
        variance = (squares - total * total / window) / (window - ddof)
        std[part] = np.sqrt(np.maximum(variance, 0.0))
    return mean, std


def rolling_mean(x: FloatArray, window: int) -> FloatArray:
    """Return the mean of the last ``window`` values, as `rolling_moments` does."""
    mean = np.full_like(x, np.nan)
    for first in range(0, len(x) - window + 1, PIECE):
        last = x[first + window - 1 : first + window - 1 + PIECE]
        count = len(last)
        total, deviation = np.zeros(count), np.empty(count)
        for lag in range(first, first + window - 1):
            np.subtract(x[lag : lag + count], last, out=deviation)
            total += deviation
        mean[first + window - 1 : first + window - 1 + count] = last + total / window
    return mean


def rolling_extremes(
    low: FloatArray, high: FloatArray, window: int
) -> tuple[FloatArray, FloatArray]:
    """Return the least ``low`` and the greatest ``high`` of the last ``window`` values."""
    least, greatest = np.full_like(low, np.nan), np.full_like(high, np.nan)
    count = len(low) - window + 1
    if count <= 0:
        return least, greatest
    below, above = low[:count].copy(), high[:count].copy()
    for lag in range(1, window):
        np.minimum(below, low[lag : lag + count], out=below)
        np.maximum(above, high[lag : lag + count], out=above)
    least[window - 1 :], greatest[window - 1 :] = below, above
    return least, greatest


def divide(numerator: FloatArray, denominator: FloatArray, *, if_zero: float) -> FloatArray:
    """Return the quotient, ``if_zero`` where the denominator is 0; NaN stays NaN."""
    out = np.full_like(denominator, if_zero)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out
