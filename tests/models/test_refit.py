"""Boosted trees fitted again on the newest rows, and not stopped by noise."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.samples import NULLABLE, in_time_order, planted_samples
from tradewind.models._bagged_trees import BaggedTrees, BoosterSizes
from tradewind.models._lightgbm import LightGBMForecaster
from tradewind.models._xgboost import XGBoostForecaster
from tradewind.models.base import Samples

SIZES = {"bag": 2, "max_rounds": 40, "early_stopping_rounds": 3, "learning_rate": 0.1}
Trees = type[LightGBMForecaster] | type[XGBoostForecaster]


@pytest.fixture(params=[LightGBMForecaster, XGBoostForecaster], ids=["lightgbm", "xgboost"])
def trees(request: pytest.FixtureRequest) -> Trees:
    chosen: Trees = request.param
    return chosen


def _fitted(trees: Trees, parts: list[Samples], **sizes: object) -> BaggedTrees:  # type: ignore[type-arg]
    forecaster = trees(BoosterSizes(**{**SIZES, **sizes}), nullable=NULLABLE)  # type: ignore[arg-type]
    forecaster.fit(parts[0], parts[1], seed=5)
    return forecaster


def _p(forecaster: BaggedTrees, rows: Samples) -> np.ndarray:  # type: ignore[type-arg]
    return forecaster.sample(rows, n_samples=1, seeds=np.zeros(len(rows), np.int64)).p


def test_a_refit_learns_from_rows_that_the_first_fit_did_not_see(trees: Trees) -> None:
    early = planted_samples(600, strength=1.0)
    late = planted_samples(600, strength=-1.0, seed=1)  # the relation turned round
    parts = in_time_order(early, 0.8, 0.2)
    forecaster = _fitted(trees, parts, refit=True, min_rounds=20)
    again = forecaster.refitted(late, seed=5)
    x, before, after = late.wide[:, 0], _p(forecaster, late), _p(again, late)
    assert np.corrcoef(x, before.mean(axis=0))[0, 1] > 0.5
    assert np.corrcoef(x, after.mean(axis=0))[0, 1] < -0.5
    sizes = [
        [one._rounds(booster) for booster in (*one._direction, *one._return, one._sigma)]
        for one in (forecaster, again)
    ]
    assert sizes[0] == sizes[1]
    assert np.array_equal(after, _p(forecaster.refitted(late, seed=5), late))


def test_without_the_setting_nothing_is_fitted_again(trees: Trees) -> None:
    parts = in_time_order(planted_samples(300), 0.8, 0.2)
    forecaster = _fitted(trees, parts)
    assert forecaster.refitted(parts[1], seed=5) is forecaster


def test_noise_does_not_stop_a_fit_before_the_least_rounds(trees: Trees) -> None:
    parts = in_time_order(planted_samples(300, strength=0.0), 0.8, 0.2)
    stopped = _fitted(trees, parts)
    kept = _fitted(trees, parts, min_rounds=25)
    assert min(map(stopped._rounds, stopped._direction)) < 25
    assert min(map(kept._rounds, kept._direction)) >= 25
    assert max(map(kept._rounds, kept._direction)) <= 40
    many = _fitted(trees, parts, min_rounds=100)
    assert [many._rounds(booster) for booster in many._direction] == [40, 40]


def test_every_other_moment_is_left_out_of_all_symbols(trees: Trees) -> None:
    parts = in_time_order(planted_samples(400), 0.8, 0.2)
    moments = np.unique(parts[0].ts)
    broken = parts[0].subset(np.arange(len(parts[0])))
    odd = np.isin(broken.ts, moments[1::2])
    broken.fwd_ret[odd] *= -5
    broken.y_up[odd] = 1 - broken.y_up[odd]
    whole = _fitted(trees, parts, fit_stride=2)
    other = _fitted(trees, [broken, parts[1]], fit_stride=2)
    assert np.array_equal(_p(whole, parts[1]), _p(other, parts[1]))
