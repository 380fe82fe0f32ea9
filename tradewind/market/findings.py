"""Which bars a check is about: the rows behind the figures, for people to look at."""

from __future__ import annotations

import numpy as np
import polars as pl

from tradewind.market.quality import MAD_TO_STD, OUTLIER_Z
from tradewind.settings import TIMEFRAME_MS

SHOWN_ROWS = 50


def robust_z(bars: pl.DataFrame) -> pl.DataFrame:
    """Return the log return of each bar and its robust z (median and MAD over the frame).

    Returns
    -------
    DataFrame
        ts, log_return, z; bars without a positive close are left out, and where most returns
        are equal there is no scale, and no row.
    """
    usable = bars.filter(pl.col("close").is_finite() & (pl.col("close") > 0)).sort("ts")
    returns = np.diff(np.log(usable["close"].to_numpy()))
    schema = {"ts": pl.Int64, "log_return": pl.Float64, "z": pl.Float64}
    if returns.size == 0:
        return pl.DataFrame(schema=schema)
    centred = returns - np.median(returns)
    scale = MAD_TO_STD * np.median(np.abs(centred))
    if scale == 0:
        return pl.DataFrame(schema=schema)
    return pl.DataFrame(
        {"ts": usable["ts"][1:], "log_return": returns, "z": centred / scale}, schema=schema
    )


def outliers(bars: pl.DataFrame) -> pl.DataFrame:
    """Return returns with a robust z over 20, the farthest first, at most 50."""
    far = robust_z(bars).filter(pl.col("z").abs() > OUTLIER_Z)
    return far.sort(pl.col("z").abs(), descending=True).head(SHOWN_ROWS)


def bad_ohlc(bars: pl.DataFrame) -> pl.DataFrame:
    """Return bars whose high is not the greatest or low not the least, at most 50."""
    body = (pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close"))
    wrong = (
        (pl.col("high") < body[0]) | (pl.col("low") > body[1]) | (pl.col("high") < pl.col("low"))
    )
    return bars.filter(wrong).head(SHOWN_ROWS)


def without_volume(bars: pl.DataFrame) -> pl.DataFrame:
    """Return the newest bars without a trade, at most 50."""
    return bars.filter(pl.col("volume") == 0).select("ts", "close", "volume").tail(SHOWN_ROWS)


def coverage_by_month(ts: pl.Series, timeframe: str) -> pl.DataFrame:
    """Return the share of each month's bars that is stored, between the first and last bar.

    Returns
    -------
    DataFrame
        month (such as 2025-01), expected, stored, share in 0..1; empty without bars.
    """
    schema = {"month": pl.String, "expected": pl.Int64, "stored": pl.Int64, "share": pl.Float64}
    if ts.is_empty():
        return pl.DataFrame(schema=schema)
    step = TIMEFRAME_MS[timeframe]
    grid = pl.DataFrame({"ts": pl.int_range(int(ts[0]), int(ts[-1]) + 1, step, eager=True)})
    month = pl.from_epoch("ts", time_unit="ms").dt.strftime("%Y-%m").alias("month")
    return (
        grid.with_columns(month, pl.col("ts").is_in(ts.implode()).alias("there"))
        .group_by("month", maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("expected"),
            pl.col("there").sum().cast(pl.Int64).alias("stored"),
        )
        .with_columns((pl.col("stored") / pl.col("expected")).alias("share"))
    )


def missing_in(own: pl.Series, other: pl.Series) -> int:
    """Return how many bars of ``own`` the other series lacks, over the span both have."""
    if own.is_empty() or other.is_empty():
        return 0
    start, end = max(int(own[0]), int(other[0])), min(int(own[-1]), int(other[-1]))
    common = own.filter(own.is_between(start, end))
    return common.len() - int(common.is_in(other.implode()).sum())
