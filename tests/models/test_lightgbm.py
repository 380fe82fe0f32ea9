"""Boosted trees beyond the common contract."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.samples import NULLABLE, WIDE_NAMES, in_time_order, planted_samples
from tests.support.tiny import tiny_forecaster
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import Forecaster, Samples
from tradewind.models.families import create
from tradewind.settings import Settings


@pytest.fixture(scope="module")
def fitted() -> tuple[Forecaster, Samples]:
    train, valid, test = in_time_order(planted_samples(800), 0.6, 0.2, 0.2)
    forecaster = tiny_forecaster("lightgbm")
    forecaster.fit(train, valid, seed=3)
    return forecaster, test


def test_importance_finds_the_planted_feature(fitted: tuple[Forecaster, Samples]) -> None:
    importance = fitted[0].importance()
    assert set(importance) == set(WIDE_NAMES)
    assert sum(importance.values()) == pytest.approx(1)
    assert max(importance, key=lambda name: importance[name]) == "x0"


def test_one_pass_per_bag_member_whatever_is_asked(fitted: tuple[Forecaster, Samples]) -> None:
    forecaster, test = fitted
    rows = test.subset(np.arange(4))
    a = forecaster.sample(rows, n_samples=1, seeds=np.zeros(4, np.int64))
    b = forecaster.sample(rows, n_samples=50, seeds=np.arange(4))
    assert a.p.shape == (3, 4)
    np.testing.assert_array_equal(a.p, b.p)


def test_unknown_is_allowed_in_nullable_columns_only(fitted: tuple[Forecaster, Samples]) -> None:
    forecaster, test = fitted
    rows = test.subset(np.arange(4))
    column = WIDE_NAMES.index(NULLABLE[0])
    for value, at, allowed in ((np.nan, column, True), (np.inf, column, False), (np.nan, 0, False)):
        wide = rows.wide.copy()
        wide[:, at] = value
        changed = replace(rows, wide=wide)
        if allowed:
            raw = forecaster.sample(changed, n_samples=1, seeds=np.arange(4))
            assert np.isfinite(raw.p).all()
        else:
            with pytest.raises(TradewindError, match=WIDE_NAMES[at]) as caught:
                forecaster.sample(changed, n_samples=1, seeds=np.arange(4))
            assert caught.value.code is ErrorCode.BAD_INPUT


def test_other_columns_are_refused(fitted: tuple[Forecaster, Samples]) -> None:
    forecaster, test = fitted
    swapped = replace(test, wide_names=("x1", "x0", *WIDE_NAMES[2:]))
    with pytest.raises(TradewindError) as caught:
        forecaster.sample(swapped, n_samples=1, seeds=np.zeros(len(test), np.int64))
    assert caught.value.code is ErrorCode.MODEL_UNUSABLE


def test_sigma_follows_the_size_of_the_noise() -> None:
    samples = planted_samples(2500, strength=0.0)
    loud = samples.wide[:, 1] > 0
    noisy = replace(samples, fwd_ret=samples.fwd_ret * np.where(loud, 2.0, 0.5))
    train, valid, test = in_time_order(noisy, 0.6, 0.2, 0.2)
    forecaster = tiny_forecaster("lightgbm")
    forecaster.fit(train, valid, seed=1)
    raw = forecaster.sample(test, n_samples=1, seeds=np.zeros(len(test), np.int64))
    scaled = raw.sigma[0] / test.scale
    is_loud = test.wide[:, 1] > 0
    assert np.median(scaled[is_loud]) == pytest.approx(2.0, rel=0.15)
    assert np.median(scaled[~is_loud]) == pytest.approx(0.5, rel=0.2)


def test_settings_reach_the_boosters() -> None:
    settings = Settings(boosted={"num_leaves": 7}, training={"bag": 3})  # type: ignore[arg-type]
    forecaster = create("lightgbm", settings)
    assert forecaster.sizes.num_leaves == 7  # type: ignore[attr-defined]
    assert forecaster.sizes.bag == 3  # type: ignore[attr-defined]
    assert "funding_rate" in forecaster.nullable  # type: ignore[attr-defined]
