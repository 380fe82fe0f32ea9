"""What a model learns to foresee: the log return over the next H bars."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from tradewind.settings import TIMEFRAME_MS


def add_labels(frame: pl.DataFrame, horizon: int, timeframe: str) -> pl.DataFrame:
    """Add fwd_ret, y_up and scale to the feature rows of ONE symbol.

    .. warning:: fwd_ret and y_up look ahead by ``horizon`` bars: targets, never inputs.

    Parameters
    ----------
    frame
        Needs ts (ms), close and vol_20.

    Returns
    -------
    DataFrame
        fwd_ret = log(close[t+H] / close[t]), taken at the bar that opens exactly H steps
        later, NaN where there is none (a gap never shortens the horizon); y_up is 1.0 where
        fwd_ret > 0, else 0.0, NaN likewise; scale = vol_20 × sqrt(H), log-return units.
    """
    ts, close = frame["ts"].to_numpy(), frame["close"].to_numpy()
    target = ts + horizon * TIMEFRAME_MS[timeframe]
    place = np.searchsorted(ts, target)
    exists = place < len(ts)
    exists[exists] = ts[place[exists]] == target[exists]
    fwd_ret = np.full(len(ts), np.nan)
    fwd_ret[exists] = np.log(close[place[exists]] / close[exists])
    y_up = np.where(exists, (fwd_ret > 0).astype(np.float64), np.nan)
    return frame.with_columns(
        pl.Series("fwd_ret", fwd_ret, dtype=pl.Float64),
        pl.Series("y_up", y_up, dtype=pl.Float64),
        (pl.col("vol_20") * math.sqrt(horizon)).alias("scale"),
    )
