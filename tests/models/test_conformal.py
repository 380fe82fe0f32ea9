"""Conformal intervals: the textbook's quantile, what overlap costs, and real coverage."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.synthetic import START_MS
from tradewind.clock import ManualClock
from tradewind.market.ingest import run_ingest, store_for
from tradewind.models.base import FloatArray, RawForecast
from tradewind.models.calibration import Calibrator
from tradewind.models.conformal import (
    Conformal,
    conformal_p,
    covered,
    fit_conformal,
    independent_labels,
    scores,
)
from tradewind.models.dataset import build_training_set
from tradewind.models.reference import Reference
from tradewind.models.uncertainty import combine
from tradewind.models.walk_forward import run_walk_forward
from tradewind.settings import MS_PER_DAY, Settings

LEVELS = st.sampled_from((0.5, 0.8, 0.9, 0.95))


def _scores(n: int, seed: int) -> FloatArray:
    return np.abs(np.random.default_rng(seed).normal(size=n))


@given(st.integers(1, 300), LEVELS, st.integers(0, 50))
def test_with_independent_rows_it_is_the_textbooks_quantile(
    n: int, level: float, seed: int
) -> None:
    found = _scores(n, seed)
    place = math.ceil(round((n + 1) * level, 9))
    fitted = fit_conformal(found, independent=n, level=level)
    if place > n:
        assert fitted is None
    else:
        assert fitted is not None
        assert fitted.quantile == np.sort(found)[place - 1]


@given(st.integers(20, 300), st.floats(1, 30), LEVELS, st.integers(0, 50))
def test_the_p_value_tells_of_every_level(n: int, overlap: float, level: float, seed: int) -> None:
    calibration, independent = _scores(n, seed), n / overlap
    future = np.concatenate([_scores(200, seed + 1), calibration])
    p = conformal_p(future, calibration, independent=independent)
    assert ((p > 0) & (p <= 1)).all()
    fitted = fit_conformal(calibration, independent=independent, level=level)
    reach = math.inf if fitted is None else fitted.quantile
    np.testing.assert_array_equal(covered(p, level), future <= reach)


@given(LEVELS, st.integers(0, 50))
def test_fewer_independent_labels_never_make_it_narrower(level: float, seed: int) -> None:
    found = _scores(2000, seed)
    reach = []
    for independent in (2000, 200, 50):
        fitted = fit_conformal(found, independent=independent, level=level)
        assert fitted is not None
        reach.append(fitted.quantile)
    assert reach == sorted(reach)


def test_the_level_is_met_on_exchangeable_rows_whatever_the_errors_look_like() -> None:
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(300):
        errors = np.abs(rng.standard_t(2, size=150))
        fitted = fit_conformal(errors[:100], independent=100, level=0.9)
        assert fitted is not None
        inside.append((errors[100:] <= fitted.quantile).mean())
    assert np.mean(inside) == pytest.approx(0.9, abs=0.01)


def test_moments_count_once_and_share_their_labels() -> None:
    ts = np.repeat(np.arange(320) * 900_000, 3)
    assert independent_labels(ts, 16) == 20
    assert fit_conformal(np.ones(960), independent=8, level=0.9) is None


def test_bounds_are_served_from_the_reference_and_old_versions_have_none() -> None:
    rng = np.random.default_rng(0)
    raw = RawForecast(
        p=rng.uniform(0.4, 0.6, (3, 50)),
        mu=rng.normal(0, 0.01, (3, 50)),
        sigma=rng.uniform(0.01, 0.02, (3, 50)),
    )
    reference = Reference.fit(
        np.zeros((101, 1)),
        ("x",),
        np.linspace(0.5, 1.0, 101),
        conformal=Conformal(level=0.9, quantile=1.5, rows=101, independent=50.0),
    )
    values = json.loads(json.dumps(reference.to_json()))
    assert Reference.from_json(values) == reference
    forecast = combine(raw, Calibrator("identity"), reference)
    assert forecast.mu_low is not None
    assert forecast.mu_high is not None
    np.testing.assert_allclose(forecast.mu_high - forecast.mu, 1.5 * forecast.uncertainty)
    np.testing.assert_allclose(forecast.mu - forecast.mu_low, 1.5 * forecast.uncertainty)
    # A return on the bound has the score of the quantile.
    np.testing.assert_allclose(scores(raw, forecast.mu_low), 1.5)
    del values["conformal"]
    old = combine(raw, Calibrator("identity"), Reference.from_json(values))
    assert (old.mu_low, old.mu_high) == (None, None)


@pytest.mark.slow
@pytest.mark.data
def test_coverage_on_walk_forward_rows_of_real_bars(
    make_settings: Callable[..., Settings], data_root: Path, tmp_path: Path
) -> None:
    now = START_MS + 500 * MS_PER_DAY
    settings = make_settings(
        data=data_root,
        training={
            **{"days_back": 160, "walk_forward_folds": 10, "fold_days": 7, "bag": 2},
        },
        boosted={"max_rounds": 60, "learning_rate": 0.05},
    )
    run_ingest(settings, ManualClock(now))
    symbols = settings.market.symbols
    data = build_training_set(settings, store_for(settings), now, symbols=symbols)
    rows = run_walk_forward(settings, data, "lightgbm", "POOLED", workdir=tmp_path)
    assert len(rows.ts) > 10_000
    # Returns of 16 bars in three markets at once, ten weeks: some 40 independent moments a week.
    for level, within in ((0.9, 0.05), (0.5, 0.1)):
        assert covered(rows.interval_p, level).mean() == pytest.approx(level, abs=within)
