"""Block bootstrap: honest about dependence, exact about its statistics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from tradewind.models import metrics as m
from tradewind.models.base import FloatArray, IntArray
from tradewind.models.bootstrap import TimeBootstrap, interval
from tradewind.settings import MS_PER_DAY

STEP = 900_000
BARS_A_DAY = MS_PER_DAY // STEP


def _ts(n: int, symbols: int = 1) -> IntArray:
    return np.repeat(np.arange(n, dtype=np.int64), symbols) * STEP


def _rows(n: int, seed: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.2, 0.8, n)
    return p, (rng.random(n) < p).astype(np.float64)


def test_interval_is_as_wide_as_the_days_are_many_when_rows_of_a_day_are_alike() -> None:
    daily = np.repeat(np.random.default_rng(0).normal(0, 1, 200), BARS_A_DAY)
    found = interval(daily, _ts(len(daily)), samples=800)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(daily.mean())
    # days that are drawn in part blur the blocks: a little narrower than whole days
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.3)


def test_symbols_that_move_together_count_once() -> None:
    one = np.random.default_rng(1).normal(size=4_000)
    alone = interval(one, _ts(4_000), samples=400)
    thrice = interval(np.repeat(one, 3), _ts(4_000, 3), samples=400)
    assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high))


def test_coverage_of_a_mean_of_overlapping_sums() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(100):
        noise = rng.normal(size=40 * BARS_A_DAY + 15)
        values = np.convolve(noise, np.ones(16), "valid")
        found = interval(values, _ts(len(values)), samples=200, seed=seed)
        hits += found.low <= 0 <= found.high
    assert 85 <= hits <= 100


def test_block_is_never_shorter_than_the_horizon() -> None:
    # One draw a fortnight: blocks of a day would take its repeats for evidence.
    slow = np.repeat(np.random.default_rng(3).normal(size=40), 14 * BARS_A_DAY)
    ts = _ts(len(slow))
    short = interval(slow, ts, samples=300)
    long = interval(slow, ts, samples=300, block_ms=14 * MS_PER_DAY)
    assert long.high - long.low > 2 * (short.high - short.low)


def test_a_span_shorter_than_two_blocks_still_has_width() -> None:
    found = interval(np.arange(60.0), _ts(60), samples=200)
    assert found.low < found.value < found.high


def test_paired_interval_sees_a_small_steady_difference_in_loud_losses() -> None:
    loud = np.random.default_rng(4).normal(0, 5, 5_000)
    drawn = TimeBootstrap(_ts(5_000), samples=200)
    found = drawn.paired(loud - 0.01, loud)
    assert found.low == pytest.approx(-0.01)
    assert found.high == pytest.approx(-0.01)
    same = drawn.paired(loud, loud)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_statistics_of_a_resample_equal_those_of_its_rows() -> None:
    p, y = _rows(600, 5)
    p = np.round(p, 2)  # ties
    ts = _ts(300, 2)
    drawn = TimeBootstrap(ts, samples=1, seed=9)
    times = drawn._times_drawn(drawn._starts[0])[drawn._moment].astype(int)
    rows = np.repeat(np.arange(600), times)
    assert drawn.auc(p, y).low == pytest.approx(m.auc(p[rows], y[rows]))
    assert drawn.mean(y).low == pytest.approx(y[rows].mean())


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(6)
    a = rng.normal(size=2_000)
    b = a + rng.normal(size=2_000)
    found = TimeBootstrap(_ts(2_000), samples=300).rank_correlation(a, b)
    assert found.value == pytest.approx(spearmanr(a, b).statistic)
    assert 0 < found.low < found.value < found.high
    flat = TimeBootstrap(_ts(2_000), samples=50).rank_correlation(a, np.ones(2_000))
    assert (flat.value, flat.low, flat.high) == (0, 0, 0)


def test_ece_interval_lies_around_the_estimate_and_not_above_it() -> None:
    p, y = _rows(6_000, 7)
    found = TimeBootstrap(_ts(6_000), samples=400).ece(p, y, 15)
    assert found.low < found.value < found.high
    assert found.named("ece").keys() == {"ece", "ece_low", "ece_high"}


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 400), seed=st.integers(0, 1_000), symbols=st.integers(1, 3))
def test_intervals_are_finite_ordered_and_repeatable(n: int, seed: int, symbols: int) -> None:
    p, y = _rows(n * symbols, seed)
    first, again = (TimeBootstrap(_ts(n, symbols), samples=60, seed=seed) for _ in range(2))
    for found, same in (
        (first.auc(p, y), again.auc(p, y)),
        (first.ece(p, y, 15), again.ece(p, y, 15)),
        (first.mean(y), again.mean(y)),
    ):
        assert found == same
        assert np.isfinite([found.value, found.low, found.high]).all()
        assert 0 <= found.low <= found.high <= 1
