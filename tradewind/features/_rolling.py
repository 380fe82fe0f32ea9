"""Rolling statistics without memory: a value depends on its own window only, to the last bit.

Library implementations keep running sums, whose rounding error grows with the length of the
history, so that batch and live part; see `_kernel` for how it is done here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def lagged(x: FloatArray, bars: int) -> FloatArray:
    """Return ``x`` as it was ``bars`` earlier; NaN before the start."""
    out = np.full_like(x, np.nan)
    if bars < len(x):
        out[bars:] = x[: len(x) - bars]
    return out


def rolling_moments(
    x: FloatArray, window: int, *, ddof: int, place: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of the last ``window`` values, NaN while one is.

    ``place`` is the number of the first value in absolute time: the last bit depends on it.
    """
    from tradewind.features import _kernel

    mean, std = np.empty_like(x), np.empty_like(x)
    _kernel.moments(x, place, window, ddof, mean, std)
    return mean, std


def rolling_mean(x: FloatArray, window: int, *, place: int = 0) -> FloatArray:
    """Return the mean of the last ``window`` values, as `rolling_moments` does."""
    return rolling_moments(x, window, ddof=0, place=place)[0]


def rolling_extremes(
    low: FloatArray, high: FloatArray, window: int
) -> tuple[FloatArray, FloatArray]:
    """Return the least ``low`` and the greatest ``high`` of the last ``window`` values."""
    from tradewind.features import _kernel

    least, greatest = np.empty_like(low), np.empty_like(high)
    _kernel.extremes(low, high, window, least, greatest)
    return least, greatest


def divide(numerator: FloatArray, denominator: FloatArray, *, if_zero: float) -> FloatArray:
    """Return the quotient, ``if_zero`` where the denominator is 0; NaN stays NaN."""
    out = np.full_like(denominator, if_zero)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out
