"""Boosted trees beyond the common contract, asked of both libraries."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.samples import WIDE_NAMES, in_time_order, planted_samples
from tests.support.tiny import tiny_forecaster
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models._bagged_trees import FILES, BaggedTrees
from tradewind.models.base import CONFIG_FILE, Samples
from tradewind.models.families import create, load_forecaster
from tradewind.settings import Settings

FAMILIES = ("lightgbm", "xgboost")
pytestmark = pytest.mark.parametrize("family", FAMILIES)


def _trees(family: str) -> BaggedTrees[object]:
    forecaster = tiny_forecaster(family)
    assert isinstance(forecaster, BaggedTrees)
    return forecaster


@functools.cache
def _fitted(family: str) -> tuple[BaggedTrees[object], Samples]:
    train, valid, test = in_time_order(planted_samples(800), 0.6, 0.2, 0.2)
    forecaster = _trees(family)
    forecaster.fit(train, valid, seed=3)
    return forecaster, test


def test_importance_finds_the_planted_feature(family: str) -> None:
    importance = _fitted(family)[0].importance()
    assert set(importance) == set(WIDE_NAMES)
    assert sum(importance.values()) == pytest.approx(1)
    assert max(importance, key=lambda name: importance[name]) == "x0"


def test_one_pass_per_bag_member_whatever_is_asked(family: str) -> None:
    forecaster, test = _fitted(family)
    rows = test.subset(np.arange(4))
    a = forecaster.sample(rows, n_samples=1, seeds=np.zeros(4, np.int64))
    b = forecaster.sample(rows, n_samples=50, seeds=np.arange(4))
    assert a.p.shape == (3, 4)
    np.testing.assert_array_equal(a.p, b.p)


def test_other_columns_are_refused(family: str) -> None:
    forecaster, test = _fitted(family)
    swapped = replace(test, wide_names=("x1", "x0", *WIDE_NAMES[2:]))
    with pytest.raises(TradewindError) as caught:
        forecaster.sample(swapped, n_samples=1, seeds=np.zeros(len(test), np.int64))
    assert caught.value.code is ErrorCode.MODEL_UNUSABLE


def test_sigma_follows_the_size_of_the_noise(family: str) -> None:
    samples = planted_samples(2500, strength=0.0)
    loud = samples.wide[:, 1] > 0
    noisy = replace(samples, fwd_ret=samples.fwd_ret * np.where(loud, 2.0, 0.5))
    train, valid, test = in_time_order(noisy, 0.6, 0.2, 0.2)
    forecaster = tiny_forecaster(family, boosted={"max_rounds": 150})
    forecaster.fit(train, valid, seed=1)
    raw = forecaster.sample(test, n_samples=1, seeds=np.zeros(len(test), np.int64))
    scaled = raw.sigma[0] / test.scale
    is_loud = test.wide[:, 1] > 0
    assert np.median(scaled[is_loud]) == pytest.approx(2.0, rel=0.15)
    assert np.median(scaled[~is_loud]) == pytest.approx(0.5, rel=0.2)


def test_no_leaf_rests_on_fewer_rows_than_the_share(family: str) -> None:
    # Half of the rows must be in each leaf: no tree can split more than about in the middle.
    train, valid, test = in_time_order(planted_samples(600), 0.6, 0.2, 0.2)
    forecaster = tiny_forecaster(
        family,
        training={"bag": 2},
        boosted={"min_leaf_share": 0.45, "bagging_fraction": 0.99, "max_rounds": 1},
    )
    forecaster.fit(train, valid, seed=1)
    raw = forecaster.sample(test, n_samples=1, seeds=np.zeros(len(test), np.int64))
    assert all(len(np.unique(member)) <= 2 for member in raw.p)


def test_settings_reach_the_boosters(family: str) -> None:
    settings = Settings(boosted={"num_leaves": 7}, training={"bag": 3})  # type: ignore[arg-type]
    forecaster = create(family, settings)
    assert isinstance(forecaster, BaggedTrees)
    assert forecaster.sizes.num_leaves == 7
    assert forecaster.sizes.bag == 3
    assert "funding_rate" in forecaster.nullable


def test_a_finished_member_is_read_and_not_grown_again(family: str, tmp_path: Path) -> None:
    train, valid, _ = in_time_order(planted_samples(300), 0.7, 0.2, 0.1)
    _trees(family).fit(train, valid, seed=1, checkpoint_dir=tmp_path)
    record = json.loads((tmp_path / "member_1.json").read_text())
    record["metrics"]["rounds"] = 12345.0
    (tmp_path / "member_1.json").write_text(json.dumps(record))
    (tmp_path / "member_2.json").unlink()
    told: list[float] = []

    def on_epoch(member: int, metrics: Mapping[str, float]) -> None:
        told.append(metrics["rounds"])

    _trees(family).fit(train, valid, seed=1, checkpoint_dir=tmp_path, on_epoch=on_epoch)
    assert len(told) == 3
    assert told[1] == 12345.0
    assert (tmp_path / "member_2.json").is_file()


def test_a_folder_from_before_digests_were_kept_still_loads(family: str, tmp_path: Path) -> None:
    forecaster, test = _fitted(family)
    forecaster.save(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    del config[FILES]
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    seeds = np.zeros(len(test), np.int64)
    loaded = load_forecaster(family, tmp_path).sample(test, n_samples=1, seeds=seeds)
    np.testing.assert_array_equal(loaded.p, forecaster.sample(test, n_samples=1, seeds=seeds).p)
