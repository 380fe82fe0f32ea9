"""Splits in time: in order, apart by the horizon, the same moments for every symbol."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.features import STEP
from tests.support.synthetic import START_MS
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.samples import IntArray
from tradewind.models.splits import Fold, Split, time_split, walk_forward
from tradewind.settings import MS_PER_DAY, TrainingSettings

SHARES = TrainingSettings().split
WEEK = 7 * MS_PER_DAY


def moments(bars: int, symbols: int = 1) -> IntArray:
    return np.repeat(START_MS + STEP * np.arange(bars, dtype=np.int64), symbols)


def parts(split: Split | Fold) -> list[IntArray]:
    return list(vars(split).values())


def check_order_and_purge(ts: IntArray, slices: list[IntArray], horizon_ms: int) -> None:
    for earlier, later in itertools.pairwise(slices):
        # The last label of the earlier slice ends before the later slice begins.
        assert ts[earlier].max() + horizon_ms < ts[later].min()
    everything = np.concatenate(slices)
    assert len(np.unique(everything)) == len(everything)
    assert all(np.all(np.diff(ts[part]) >= 0) for part in slices)


@given(
    bars=st.integers(80, 600),
    symbols=st.integers(1, 3),
    horizon=st.integers(1, 12),
    dropped=st.sets(st.integers(0, 79), max_size=30),
    seed=st.integers(0, 5),
)
def test_slices_follow_each_other_apart_by_the_horizon(
    bars: int, symbols: int, horizon: int, dropped: set[int], seed: int
) -> None:
    ts = np.delete(moments(bars, symbols), sorted(dropped))
    ts = np.random.default_rng(seed).permutation(ts)  # any order is fine
    if len(np.unique(ts)) * min(SHARES) <= horizon + 2:
        return  # the purge may take a whole slice; refused, as a test below asserts
    split = time_split(ts, horizon_ms=horizon * STEP, shares=SHARES, min_rows=1)
    check_order_and_purge(ts, parts(split), horizon * STEP)
    # Nothing but the purge is lost: at most H moments at each of three boundaries.
    kept = np.unique(ts[np.concatenate(parts(split))])
    assert len(np.unique(ts)) - len(kept) <= 3 * horizon
    # A moment is in one slice for all symbols.
    owners = [set(ts[part].tolist()) for part in parts(split)]
    assert sum(len(owner) for owner in owners) == len(set().union(*owners))


def test_shares_and_purge_in_figures() -> None:
    ts = moments(1000, symbols=3)
    split = time_split(ts, horizon_ms=16 * STEP, shares=SHARES)
    assert [len(part) for part in parts(split)] == [3 * 484, 3 * 134, 3 * 134, 3 * 200]
    assert ts[split.train].max() == START_MS + 483 * STEP
    assert ts[split.valid].min() == START_MS + 500 * STEP
    assert ts[split.test].max() == ts.max()


def test_a_hole_at_a_boundary_does_not_weaken_the_purge() -> None:
    ts = np.delete(moments(1000), np.arange(480, 520))
    split = time_split(ts, horizon_ms=16 * STEP, shares=SHARES)
    check_order_and_purge(ts, parts(split), 16 * STEP)


@pytest.mark.parametrize("bars", [0, 1, 10, 100])
def test_too_few_rows_are_refused_with_figures(bars: int) -> None:
    with pytest.raises(TradewindError) as caught:
        time_split(moments(bars), horizon_ms=16 * STEP, shares=SHARES)
    assert caught.value.code is ErrorCode.NOT_ENOUGH_BARS
    if bars:
        assert f"{bars} rows" in caught.value.detail
        assert "train" in caught.value.detail


@given(
    days=st.integers(20, 60),
    symbols=st.integers(1, 2),
    folds=st.integers(1, 12),
    fold_days=st.integers(1, 7),
    horizon=st.integers(1, 8),
    fit_days=st.none() | st.integers(10, 30),
)
def test_every_fold_is_judged_on_time_after_all_it_learnt_from(
    days: int, symbols: int, folds: int, fold_days: int, horizon: int, fit_days: int | None
) -> None:
    step = 8 * STEP  # two hours: enough rows a day for a quick test
    ts = np.repeat(START_MS + step * np.arange(days * 12, dtype=np.int64), symbols)
    made = walk_forward(
        ts,
        horizon_ms=horizon * step,
        folds=folds,
        fold_ms=fold_days * MS_PER_DAY,
        fit_ms=None if fit_days is None else fit_days * MS_PER_DAY,
        min_rows=1,
    )
    room = (days * MS_PER_DAY - step + 1) // 2 // (fold_days * MS_PER_DAY)
    assert len(made) == min(folds, room)
    for fold in made:
        check_order_and_purge(ts, parts(fold), horizon * step)
        if fit_days is not None:
            assert ts[fold.fit].min() >= ts[fold.test].min() - (fit_days * MS_PER_DAY + step)
    tests = np.concatenate([fold.test for fold in made])
    # The test folds tile the end of the span: no overlap, no hole, up to the newest row.
    assert len(np.unique(tests)) == len(tests)
    assert set(tests.tolist()) == set(np.flatnonzero(ts >= ts[tests].min()).tolist())
    assert ts[tests].max() == ts.max()


def test_weekly_folds_of_half_a_year() -> None:
    ts = moments(180 * 96, symbols=3)
    made = walk_forward(ts, horizon_ms=16 * STEP, folds=26, fold_ms=WEEK)
    assert len(made) == 12  # half the span; 26 weeks do not fit into 180 days
    assert all(len(fold.test) == 3 * 672 for fold in made)
    assert len(made[0].fit) < len(made[-1].fit)  # expanding without fit_ms
    rolling = walk_forward(ts, horizon_ms=16 * STEP, folds=4, fold_ms=WEEK, fit_ms=60 * MS_PER_DAY)
    assert len({len(fold.fit) for fold in rolling}) == 1
    shares = [len(part) for part in parts(rolling[0])[:3]]
    assert shares[0] / sum(shares) == pytest.approx(0.5 / 0.8, abs=0.01)


def test_no_room_for_a_fold_is_refused_with_figures() -> None:
    with pytest.raises(TradewindError, match=r"672 rows span") as caught:
        walk_forward(moments(672), horizon_ms=16 * STEP, folds=2, fold_ms=WEEK)
    assert caught.value.code is ErrorCode.NOT_ENOUGH_BARS
    with pytest.raises(TradewindError, match="0 rows"):
        walk_forward(moments(0), horizon_ms=16 * STEP, folds=2, fold_ms=WEEK)
    with pytest.raises(TradewindError, match="slice fit"):
        walk_forward(moments(400), horizon_ms=300 * STEP, folds=1, fold_ms=MS_PER_DAY)
