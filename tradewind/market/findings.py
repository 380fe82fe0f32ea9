"""Which bars a check is about: the rows behind the figures, for people to look at."""

from __future__ import annotations

import polars as pl

from tradewind.market.quality import breaks_ohlc, is_outlier, robust_z
from tradewind.settings import TIMEFRAME_MS

SHOWN_ROWS = 50


def outliers(bars: pl.DataFrame) -> pl.DataFrame:
    """Return returns with a robust z over 20, the farthest first, at most 50."""
    far = robust_z(bars).filter(is_outlier())
    return far.sort(pl.col("z").abs(), descending=True).head(SHOWN_ROWS)


def bad_ohlc(bars: pl.DataFrame) -> pl.DataFrame:
    """Return bars whose high is not the greatest or low not the least, at most 50."""
    return bars.filter(breaks_ohlc()).head(SHOWN_ROWS)


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
