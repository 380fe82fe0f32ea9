"""A member is weighed by forecasts it made before their bars, and by nothing it could not know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tradewind.models import metrics as m
from tradewind.models.track_record import LEAST_DAYS, record_skill, rolling_skill
from tradewind.models.walk_forward import OutOfSample, without_first
from tradewind.settings import MS_PER_DAY

HOUR = 3_600_000
KNOWN = 5 * HOUR
WEEK = 7 * MS_PER_DAY


def _rows(days: int, *, strength: float, seed: int = 0) -> OutOfSample:
    """Hourly forecasts, right to a degree, of a symbol that rises half of the time."""
    rng = np.random.default_rng(seed)
    count = days * 24
    signal = rng.standard_normal(count)
    truth = 1 / (1 + np.exp(-abs(strength) * signal))
    y = (rng.random(count) < truth).astype(np.float64)
    nothing = np.zeros(count)
    return OutOfSample(
        symbols=("BTCUSDT",),
        ts=np.arange(count, dtype=np.int64) * HOUR,
        symbol=np.zeros(count, dtype=np.int64),
        y=y,
        fwd_ret=nothing,
        p_raw=nothing,
        p_up=truth if strength >= 0 else 1 - truth,
        mu=nothing,
        sigma=nothing,
        epistemic=nothing,
        epistemic_p=nothing,
        base_rate=np.full(count, 0.5),
        skill=np.full(count, 0.123),
        interval_p=nothing,
        fold=np.repeat(np.arange(1, days + 1), 24),
    )


def test_a_record_is_the_relative_gain_over_the_base_rate() -> None:
    rows = _rows(60, strength=0.8)
    loss, base = m.log_loss(rows.p_up, rows.y), np.log(2)
    assert record_skill(rows, otherwise=9.0) == pytest.approx(1 - loss / base)
    assert record_skill(rows, otherwise=9.0) > 0.02


def test_a_record_of_wrong_answers_is_worth_nothing_not_less() -> None:
    assert record_skill(_rows(60, strength=-0.8), otherwise=9.0) == 0.0


def test_a_short_record_leaves_the_slice_standing() -> None:
    assert record_skill(_rows(LEAST_DAYS - 2, strength=0.8), otherwise=9.0) == 9.0
    assert record_skill(_rows(LEAST_DAYS, strength=0.8), otherwise=9.0) != 9.0


def test_rows_are_weighed_by_the_record_before_their_retraining() -> None:
    rows = _rows(120, strength=0.8)
    found = rolling_skill(rows, every_ms=WEEK, window_ms=60 * MS_PER_DAY, known_ms=KNOWN)
    weeks = rows.ts // WEEK
    assert (found[weeks < 5] == 0.123).all()  # fewer than thirty days: the fold's own
    for week in (5, 9, 16):
        at = week * WEEK
        past = (rows.ts <= at - KNOWN) & (rows.ts > at - KNOWN - 60 * MS_PER_DAY)
        part = 1 - m.log_loss(rows.p_up[past], rows.y[past]) / np.log(2)
        assert found[weeks == week] == pytest.approx(part)


@examples(deadline=None, max_examples=25)
@given(st.integers(40, 110), st.integers(0, 9))
def test_no_record_knows_a_label_of_later(day: int, seed: int) -> None:
    rows = _rows(120, strength=0.5, seed=seed)
    moment = day * MS_PER_DAY
    later = rows.ts + KNOWN > moment
    changed = replace(rows, y=np.where(later, 1 - rows.y, rows.y))
    before = rolling_skill(rows, every_ms=WEEK, window_ms=90 * MS_PER_DAY, known_ms=KNOWN)
    after = rolling_skill(changed, every_ms=WEEK, window_ms=90 * MS_PER_DAY, known_ms=KNOWN)
    decided = rows.ts // WEEK * WEEK <= moment
    assert np.array_equal(before[decided], after[decided])
    assert not np.array_equal(before, after)


def test_folds_of_the_record_are_left_out_and_the_rest_counts_from_one() -> None:
    rows = _rows(10, strength=0.5)
    kept = without_first(rows, 4)
    assert kept.fold.min() == 1
    assert kept.fold.max() == 6
    assert np.array_equal(kept.ts, rows.ts[4 * 24 :])
    assert without_first(rows, 0).fold.tolist() == rows.fold.tolist()
