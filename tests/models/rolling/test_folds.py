"""Folds over the history: in time order, apart, covering the judged span exactly once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.support.rolling import BARS_A_DAY, rolling_settings
from tests.support.synthetic import START_MS
from tradewind.errors import TradewindError
from tradewind.models.base import IntArray
from tradewind.models.rolling.folds import bar_on_stride, fold_settings, plan_rolling, refits
from tradewind.settings import MS_PER_DAY, Settings

STEP = 900_000


def _grid(days: int, symbols: int = 2) -> IntArray:
    bars = np.arange(days * BARS_A_DAY, dtype=np.int64)
    return np.repeat(START_MS + bars * STEP, symbols)


def _since_ms(settings: Settings) -> int:
    day = settings.evaluation.since
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


@examples(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None
)
@given(
    refit_days=st.integers(1, 20),
    embargo=st.integers(0, 40),
    horizon=st.integers(1, 40),
    back=st.one_of(st.none(), st.integers(30, 60)),
    family=st.sampled_from(["lightgbm", "transformer"]),
)
def test_no_label_reaches_the_next_slice_and_every_row_is_judged_once(
    make_settings: Callable[..., Settings],
    refit_days: int,
    embargo: int,
    horizon: int,
    back: int | None,
    family: str,
) -> None:
    settings = rolling_settings(
        make_settings,
        since=date(2025, 2, 20),
        refit_days=refit_days,
        embargo_bars=embargo,
        days_back_max=back,
    )
    training = settings.training.model_copy(update={"horizon": horizon})
    settings = settings.model_copy(update={"training": training})
    ts = _grid(90)
    folds = plan_rolling(settings, ts, family)
    for fold in folds:
        slices = (fold.fit, fold.valid, fold.calib, fold.test)
        for earlier, later in pairwise(slices):
            known = ts[earlier].max() + (horizon + 1 + embargo) * STEP
            assert known <= ts[later].min()
        if back is not None:
            assert ts[fold.fit].min() >= ts[fold.test].min() - back * MS_PER_DAY
    judged = np.concatenate([fold.test for fold in folds])
    assert np.array_equal(np.sort(judged), np.flatnonzero(ts >= _since_ms(settings)))


def test_families_are_judged_on_the_same_days(make_settings: Callable[..., Settings]) -> None:
    settings = rolling_settings(make_settings, since=date(2025, 2, 10))
    ts = _grid(80)
    trees, deep = (plan_rolling(settings, ts, name) for name in ("lightgbm", "transformer"))
    assert len(trees) > len(deep)
    rows = [np.concatenate([fold.test for fold in folds]) for folds in (trees, deep)]
    assert np.array_equal(*rows)


def test_deep_families_are_refitted_with_the_quarters(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(profile="full")
    end = int(datetime(2026, 4, 30, tzinfo=UTC).timestamp() * 1000)
    starts = [
        datetime.fromtimestamp(ms / 1000, tz=UTC) for ms in refits(settings, "transformer", end)
    ]
    assert [f"{start:%Y-%m-%d}" for start in starts] == [
        "2025-01-01",
        "2025-04-01",
        "2025-07-01",
        "2025-10-01",
        "2026-01-01",
        "2026-04-01",
    ]
    weekly = refits(settings, "lightgbm", end)
    assert len(weekly) == 70
    assert {b - a for a, b in pairwise(weekly)} == {7 * MS_PER_DAY}


def test_a_rest_of_less_than_a_day_belongs_to_the_fold_before(
    make_settings: Callable[..., Settings],
) -> None:
    settings = rolling_settings(make_settings)
    first = _since_ms(settings)
    assert len(refits(settings, "lightgbm", first + 10 * MS_PER_DAY + 3 * STEP)) == 2
    assert len(refits(settings, "lightgbm", first + 11 * MS_PER_DAY)) == 3


@pytest.mark.parametrize("since", [date(2025, 1, 8), date(2024, 6, 1), date(2026, 1, 1)])
def test_a_day_without_a_past_or_a_future_is_refused(
    since: date, make_settings: Callable[..., Settings]
) -> None:
    settings = rolling_settings(make_settings, since=since)
    with pytest.raises(TradewindError, match=r"not_enough_bars.*evaluation\.since"):
        plan_rolling(settings, _grid(40), "lightgbm")


def test_a_look_back_that_leaves_nothing_to_fit_names_the_remedy(
    make_settings: Callable[..., Settings],
) -> None:
    settings = rolling_settings(make_settings, calib_days=20, valid_days=10, days_back_max=30)
    late = settings.evaluation.model_copy(update={"since": date(2025, 2, 10)})
    with pytest.raises(TradewindError, match=r"not_enough_bars.*slice fit.*--days-back") as refused:
        plan_rolling(settings.model_copy(update={"evaluation": late}), _grid(60), "lightgbm")
    assert "training.days_back" not in str(refused.value)


def test_past_folds_use_the_evaluations_sizes(make_settings: Callable[..., Settings]) -> None:
    settings = rolling_settings(make_settings)
    sized = fold_settings(settings)
    assert sized.boosted.max_rounds == settings.evaluation.max_rounds
    assert sized.training.judge_stride == settings.evaluation.stride
    assert sized.training.horizon == settings.training.horizon
    assert sized.calibration == settings.calibration


def test_the_stride_picks_the_same_moments_for_every_symbol(
    make_settings: Callable[..., Settings],
) -> None:
    settings = rolling_settings(make_settings)
    ts = _grid(2, symbols=3)
    kept = ts[bar_on_stride(settings, ts)]
    moments, count = np.unique(kept, return_counts=True)
    assert set(count) == {3}
    assert set(np.diff(moments)) == {settings.evaluation.stride * STEP}
