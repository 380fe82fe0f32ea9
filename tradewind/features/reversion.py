"""What the mean-reversion grid wants foreseen: whether the price returns to its mean in time."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tradewind.features._rolling import rolling_mean
from tradewind.features.definitions import FAST
from tradewind.settings import TIMEFRAME_MS

FloatArray = NDArray[np.float64]


def add_reversion(
    frame: pl.DataFrame,
    horizon: int,
    timeframe: str,
    *,
    stop_atr: float,
    min_distance: float,
) -> pl.DataFrame:
    """Add ``reverted`` to the feature rows of ONE symbol.

    .. warning:: reverted looks ahead by ``horizon`` bars: a target, never an input.

    At the close of bar t the price stands away from its mean m, the geometric mean of the last
    20 closes, the one that z_20 is measured from. The mean is held where it is at t, as a
    take-profit order would be: a mean that comes to a price which never moved is no reversion.
    Within bars t+1 … t+H either the price touches m (1), or it first moves ``stop_atr`` × ATR(14)
    further away from close[t] (0), or neither happens (0). A bar that touches both counts as 0:
    bars do not tell which came first.

    Parameters
    ----------
    frame
        Needs ts (ms), high, low, close, atr and z_20.
    horizon
        Bars H that the price has time for; splits that purge H rows purge this label too.
    stop_atr
        Distance of the stop from close[t], in ATR(14) of bar t.
    min_distance
        Rows with abs(z_20) below this have no label: the price has not left its mean.

    Returns
    -------
    DataFrame
        reverted 1.0 or 0.0; NaN without a label: too near the mean, ATR unknown or 0, or a bar
        missing in the window behind or the path ahead.
    """
    step = TIMEFRAME_MS[timeframe]
    ts = frame["ts"].to_numpy()
    close, atr, z = (frame[name].to_numpy() for name in ("close", "atr", "z_20"))
    mean = np.exp(rolling_mean(np.log(close), FAST))
    below = close < mean
    stop = close + np.where(below, -1.0, 1.0) * stop_atr * atr
    known = (
        (np.abs(z) >= min_distance)
        & (atr > 0)
        & _unbroken(ts, step, -(FAST - 1))
        & _unbroken(ts, step, horizon)
    )
    returned, stopped = np.zeros(len(ts), np.bool_), np.zeros(len(ts), np.bool_)
    for ahead in range(1, horizon + 1):
        high, low = (_later(frame[name].to_numpy(), ahead) for name in ("high", "low"))
        stopped |= ~returned & np.where(below, low <= stop, high >= stop)
        returned |= ~stopped & np.where(below, high >= mean, low <= mean)
    label = np.where(known, returned.astype(np.float64), np.nan)
    return frame.with_columns(pl.Series("reverted", label, dtype=pl.Float64))


def _unbroken(ts: NDArray[np.int64], step: int, bars: int) -> NDArray[np.bool_]:
    """Return whether every bar from each row to ``bars`` later (or earlier, negative) exists."""
    whole = np.zeros(len(ts), np.bool_)
    count = abs(bars)
    joined = ts[count:] - ts[: len(ts) - count] == count * step
    whole[slice(count, None) if bars < 0 else slice(None, max(len(ts) - count, 0))] = joined
    return whole


def _later(x: FloatArray, bars: int) -> FloatArray:
    out = np.full_like(x, np.nan)
    out[: max(len(x) - bars, 0)] = x[bars:]
    return out
