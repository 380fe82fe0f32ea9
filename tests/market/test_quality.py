"""Judging bars: what is quarantined and why, gaps, figures."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.market.quality import bar_quality, find_gaps, split_bad

STEP = 900_000
N = 50
NOW = START_MS + N * STEP


def planted(column: str, value: Any, row: int = 20) -> pl.DataFrame:
    """Return good bars with one value replaced."""
    bars = random_walk_bars(N)
    at = pl.int_range(pl.len()) == row
    return bars.with_columns(
        pl.when(at).then(pl.lit(value, dtype=bars.schema[column])).otherwise(column).alias(column)
    )


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("close", math.nan, "nan"),
        ("open", None, "nan"),
        ("volume", None, "nan"),
        ("high", math.inf, "infinite"),
        ("volume", -math.inf, "infinite"),
        ("ts", None, "missing_ts"),
        ("ts", START_MS + 20 * STEP + 1, "off_grid"),
        ("ts", NOW + 2 * STEP, "future"),
        ("close", -1.0, "price_not_positive"),
        ("open", 0.0, "price_not_positive"),
        ("volume", -0.5, "negative_volume"),
        ("high", 1.0, "high_below_low"),
        ("close", 1e6, "ohlc_inconsistent"),
        ("open", 1e-6, "ohlc_inconsistent"),
    ],
)
def test_each_kind_of_bad_bar_is_named_and_the_rest_stays(
    column: str, value: Any, reason: str
) -> None:
    good, bad = split_bad(planted(column, value), "15m", NOW)
    assert bad["reason"].to_list() == [reason]
    assert good.height == N - 1
    assert good.equals(random_walk_bars(N).filter(pl.int_range(pl.len()) != 20))


def test_the_unfinished_bar_is_dropped_not_quarantined() -> None:
    bars = random_walk_bars(N + 1)
    good, bad = split_bad(bars, "15m", NOW + STEP - 1)
    assert bad.is_empty()
    assert good.height == N
    assert split_bad(bars, "15m", NOW + STEP)[0].height == N + 1


def test_of_repeated_bars_the_last_given_wins() -> None:
    bars = random_walk_bars(N)
    corrected = bars.head(1).with_columns(pl.lit(7.5).alias("volume"))
    good, bad = split_bad(pl.concat([bars, corrected]).reverse(), "15m", NOW)
    assert bad.is_empty()
    assert good["volume"][0] == bars["volume"][0]
    assert split_bad(pl.concat([bars, corrected]), "15m", NOW)[0]["volume"][0] == 7.5


def test_text_that_is_no_number_is_quarantined() -> None:
    bars = random_walk_bars(3).with_columns(pl.col("close").cast(pl.String))
    bars = bars.with_columns(
        pl.when(pl.int_range(pl.len()) == 1).then(pl.lit("n/a")).otherwise("close").alias("close")
    )
    good, bad = split_bad(bars, "15m", NOW)
    assert (good.height, bad["reason"].to_list()) == (2, ["nan"])


@given(st.sets(st.integers(0, 60)))
def test_gaps_and_bars_together_fill_the_span(present: set[int]) -> None:
    ts = pl.Series("ts", [START_MS + i * STEP for i in present], dtype=pl.Int64)
    gaps = find_gaps(ts, "15m")
    missing = [
        at
        for from_ts, to_ts in gaps.select("from_ts", "to_ts").iter_rows()
        for at in range(from_ts, to_ts + 1, STEP)
    ]
    span = range(min(present), max(present) + 1) if present else range(0)
    assert sorted([*missing, *ts.to_list()]) == [START_MS + i * STEP for i in span]
    assert int(gaps["bars"].sum()) == len(missing)


def test_figures_of_clean_bars() -> None:
    bars = random_walk_bars(N)
    quality = bar_quality(bars, "15m", NOW + 2 * STEP)
    assert quality.schema_ok
    assert (quality.rows, quality.first_ts, quality.last_ts) == (N, START_MS, NOW - STEP)
    assert quality.duplicates == quality.unordered == quality.gaps == quality.outliers == 0
    assert quality.gap_share == quality.zero_volume_share == 0.0
    assert quality.ohlc_violations == quality.bad_values == 0
    assert quality.staleness_s == 900.0


def test_figures_show_every_fault() -> None:
    bars = random_walk_bars(400)
    faulty = pl.concat(
        [
            bars.filter(~pl.int_range(pl.len()).is_between(100, 119)),
            bars.slice(5, 1),
            bars.slice(7, 1).with_columns(pl.lit(math.nan).alias("open")),
        ]
    ).with_columns(
        pl.when(pl.int_range(pl.len()) == 30).then(0.0).otherwise("volume").alias("volume"),
        pl.when(pl.int_range(pl.len()) == 40)
        .then(pl.col("close") * 10)
        .otherwise("close")
        .alias("close"),
    )
    quality = bar_quality(faulty, "15m", START_MS + 400 * STEP)
    assert quality.duplicates == 2
    assert quality.unordered == 1
    assert (quality.gaps, quality.gap_share) == (1, 20 / 400)
    assert quality.zero_volume_share == pytest.approx(1 / 382)
    assert quality.outliers == 2  # up and back down
    assert quality.ohlc_violations == 1
    assert quality.bad_values == 1


def test_no_bars_are_infinitely_stale_and_a_wrong_type_shows() -> None:
    none = bar_quality(random_walk_bars(5).clear(), "15m", NOW)
    assert (none.rows, none.last_ts, none.staleness_s) == (0, None, math.inf)
    assert not bar_quality(
        random_walk_bars(5).with_columns(pl.col("ts").cast(pl.Int32, strict=False)), "15m", NOW
    ).schema_ok


def test_flat_prices_have_no_outliers() -> None:
    flat = random_walk_bars(30).with_columns(pl.lit(100.0).alias("close"))
    assert bar_quality(flat, "15m", NOW).outliers == 0
