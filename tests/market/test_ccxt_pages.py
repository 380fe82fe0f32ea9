"""Windows cover a span exactly, and what is missing from answers is seen."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.market.ccxt_pages import has_holes, series_frame, series_holes, windows
from tradewind.market.schema import FUNDING

STEP = 900_000
HOURS_8 = 28_800_000


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 700))
def test_windows_cover_the_span_once_and_in_order(since: int, length: int, size: int) -> None:
    found = list(windows(since, since + length, size))
    covered = [ms for start, end in found for ms in range(start, end)]
    assert covered == list(range(since, since + length))
    assert all(end - start <= size for start, end in found)


@given(st.sets(st.integers(0, 19)), st.integers(0, 20), st.integers(0, 20))
def test_a_hole_is_seen_exactly_where_a_bar_is_missing(
    lost: set[int], first: int, last: int
) -> None:
    bars = random_walk_bars(20).filter(~pl.int_range(20).is_in(sorted(lost)))
    start, end = START_MS + first * STEP, START_MS + last * STEP
    assert has_holes(bars, start, end, STEP) == bool(lost & set(range(first, last)))


def test_a_repeated_bar_is_a_hole_only_with_two_contents() -> None:
    bars = random_walk_bars(4)
    same = pl.concat([bars, bars.head(1)])
    other = pl.concat([bars, bars.head(1).with_columns(pl.col("close") + 1)])
    end = START_MS + 4 * STEP
    assert not has_holes(same, START_MS, end, STEP)
    assert has_holes(other, START_MS, end, STEP)


def test_rows_become_a_sorted_frame_where_the_last_answer_wins() -> None:
    frame = series_frame([(3, 0.3), (1, 0.1), (3, 0.4), (9, 0.9)], FUNDING, 1, 3)
    assert frame.rows() == [(1, 0.1), (3, 0.4)]
    assert dict(frame.schema) == dict(FUNDING)
    assert dict(series_frame([], FUNDING, 0, 1).schema) == dict(FUNDING)


@given(st.sets(st.integers(1, 38), max_size=10))
def test_missing_values_of_a_series_lie_in_its_holes(lost: set[int]) -> None:
    kept = [i for i in range(40) if i not in lost]
    rows = series_frame([(i * HOURS_8, 0.0) for i in kept], FUNDING, 0, 40 * HOURS_8)
    holes = series_holes(rows, 0, 39 * HOURS_8)
    inside = {i for i in range(40) if any(a <= i * HOURS_8 <= b for a, b in holes)}
    assert inside == lost


def test_a_series_that_begins_late_or_ends_early_has_holes_there() -> None:
    rows = series_frame([(i * HOURS_8, 0.0) for i in range(5, 10)], FUNDING, 0, 10**12)
    first, last = 5 * HOURS_8, 9 * HOURS_8
    assert series_holes(rows, 0, last) == [(0, first - 1)]
    assert series_holes(rows, first, last + HOURS_8) == []  # the newest may come late
    assert series_holes(rows, first, last + 3 * HOURS_8) == [(last + 1, last + 3 * HOURS_8)]
