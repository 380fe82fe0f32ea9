"""Hysteresis, compiled: one pass over the bars."""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int8, int64, types, void
from numpy.typing import NDArray

from tradewind.compiling import compiled

_floats = types.Array(float64, 1, "C", readonly=True)
_codes = types.Array(int8, 1, "C", readonly=True)
_flags = types.Array(boolean, 1, "C", readonly=True)


@compiled(
    void(
        *(_codes, _flags, _floats, _flags, _floats, types.UniTuple(int64, 3)),
        *(int64, int64, int64, int64, int8[::1], int8[::1], float64[::1]),
    )
)
def settle(
    shape: NDArray[np.int8],
    free: NDArray[np.bool_],
    decided: NDArray[np.float64],
    undecided: NDArray[np.bool_],
    alignment: NDArray[np.float64],
    named: tuple[int, int, int],
    place: int,
    anchor_bars: int,
    memory_bars: int,
    confirm_bars: int,
    raw: NDArray[np.int8],
    codes: NDArray[np.int8],
    share: NDArray[np.float64],
) -> None:
    """Write each bar's own regime, the one that is believed, and how far its rival has come.

    Parameters
    ----------
    shape, free
        What each bar looks like were it no trend, and whether a trend would come before that.
    decided, undecided, alignment
        Direction of the trend (0: a range) where the ADX is beyond its limits, whether it is
        between them, and the direction of the averages.
    named
        Codes of a rising trend, of a falling one, and of UNKNOWN.
    place
        Number of the first bar in absolute time; it begins anew, ``memory_bars`` earlier, at
        multiples of ``anchor_bars``.
    """
    rising, falling, unknown = named
    first = 0
    while first < len(shape):
        end = min(((place + first) // anchor_bars + 1) * anchor_bars - place, len(shape))
        direction, run, previous, believed, at_once = 0.0, 0, unknown, unknown, True
        for i in range(max(0, first - memory_bars), end):
            # Between the two ADX limits what was decided last stays.
            if not undecided[i]:
                direction = decided[i]
            trend = direction if not undecided[i] or direction == alignment[i] else 0.0
            code = shape[i]
            if free[i] and trend != 0:
                code = rising if trend > 0 else falling
            # UNKNOWN is believed at once, and so is what comes after it.
            if code != previous:
                run, at_once = 0, previous == unknown or code == unknown
            run, previous = run + 1, code
            if run >= confirm_bars or at_once:
                believed = code
            if i >= first:
                raw[i], codes[i] = code, believed
                share[i] = min(run / confirm_bars, 1.0)
        first = end
