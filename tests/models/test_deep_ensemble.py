"""A deep ensemble: networks of different seeds that share the passes."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.support.samples import in_time_order, planted_samples
from tests.support.tiny import tiny_forecaster
from tradewind.models._deep import DeepForecaster
from tradewind.models._deep_members import member_seed
from tradewind.models.base import CONFIG_FILE, FitReport, Samples
from tradewind.models.families import load_forecaster
from tradewind.settings import DeepSettings

MEMBERS = 3
SEED = 3


@functools.cache
def _slices() -> tuple[Samples, Samples, Samples]:
    train, valid, test = in_time_order(planted_samples(250), 0.6, 0.2, 0.2)
    return train, valid, test


def _unfitted(members: int, family: str = "transformer") -> DeepForecaster:
    small = {"deep": {"ensemble_members": members}, "training": {"epochs": 3}}
    forecaster = tiny_forecaster(family, **small)
    assert isinstance(forecaster, DeepForecaster)
    return forecaster


@functools.cache
def _fitted(members: int, seed: int = SEED) -> tuple[DeepForecaster, FitReport]:
    train, valid, _ = _slices()
    forecaster = _unfitted(members)
    return forecaster, forecaster.fit(train, valid, seed=seed)


def _mu(forecaster: DeepForecaster, passes: int) -> np.ndarray:
    rows = _slices()[2].subset(np.arange(20))
    return forecaster.sample(rows, n_samples=passes, seeds=rows.ts).mu


def test_one_network_is_the_default() -> None:
    assert DeepSettings().ensemble_members == 1


def test_members_take_the_passes_in_turn_and_the_first_is_the_single_network() -> None:
    together = _mu(_fitted(MEMBERS)[0], 12)
    single = _mu(_fitted(1)[0], 12)
    np.testing.assert_allclose(together[::MEMBERS], single[::MEMBERS], rtol=0, atol=1e-9)
    second = _mu(_fitted(1, member_seed(SEED, 1))[0], 12)
    np.testing.assert_allclose(together[1::MEMBERS], second[1::MEMBERS], rtol=0, atol=1e-9)
    assert not np.allclose(together[1::MEMBERS], single[1::MEMBERS])


def test_more_passes_begin_with_the_fewer() -> None:
    forecaster = _fitted(MEMBERS)[0]
    np.testing.assert_allclose(_mu(forecaster, 400)[:7], _mu(forecaster, 7), rtol=0, atol=1e-9)
    assert _mu(forecaster, 1).shape == (1, 20)


def test_the_spread_is_also_that_between_the_networks() -> None:
    passes = _mu(_fitted(MEMBERS)[0], 120)
    centres = np.array([passes[member::MEMBERS].mean(axis=0) for member in range(MEMBERS)])
    within = np.mean([passes[member::MEMBERS].var(axis=0) for member in range(MEMBERS)], axis=0)
    np.testing.assert_allclose(passes.var(axis=0), within + centres.var(axis=0), rtol=1e-6)
    assert (centres.std(axis=0) > 0).all()


def test_every_member_is_saved_and_a_folder_from_before_holds_one(tmp_path: Path) -> None:
    forecaster = _fitted(MEMBERS)[0]
    forecaster.save(tmp_path / "three")
    assert len(list((tmp_path / "three").glob("*.safetensors"))) == MEMBERS
    loaded = load_forecaster("transformer", tmp_path / "three")
    assert isinstance(loaded, DeepForecaster)
    np.testing.assert_array_equal(_mu(loaded, 10), _mu(forecaster, 10))
    _fitted(1)[0].save(tmp_path / "one")
    config = json.loads((tmp_path / "one" / CONFIG_FILE).read_text())
    assert config.pop("members") == 1
    (tmp_path / "one" / CONFIG_FILE).write_text(json.dumps(config))
    before = load_forecaster("transformer", tmp_path / "one")
    assert isinstance(before, DeepForecaster)
    np.testing.assert_array_equal(_mu(before, 10), _mu(_fitted(1)[0], 10))


def test_a_fit_that_broke_off_in_a_later_member_continues_there(tmp_path: Path) -> None:
    train, valid, _ = _slices()
    _, whole = _fitted(MEMBERS)
    broken_at = whole.epochs // MEMBERS + 2  # within the second network
    first: dict[int, object] = {}

    def break_off(epoch: int, metrics: Mapping[str, float]) -> None:
        first[epoch] = dict(metrics)
        if epoch == broken_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _unfitted(MEMBERS).fit(train, valid, seed=SEED, on_epoch=break_off, checkpoint_dir=tmp_path)
    told: dict[int, object] = {}
    resumed = _unfitted(MEMBERS)
    report = resumed.fit(
        train,
        valid,
        seed=SEED,
        on_epoch=lambda epoch, metrics: told.update({epoch: dict(metrics)}),
        checkpoint_dir=tmp_path,
    )
    assert report == whole
    assert list(told) == list(range(1, whole.epochs + 1))
    # Seconds and all: what was told before the break was not trained again.
    assert {epoch: told[epoch] for epoch in first} == first
    np.testing.assert_array_equal(_mu(resumed, 10), _mu(_fitted(MEMBERS)[0], 10))


def test_the_gru_s_reversion_comes_from_the_same_passes() -> None:
    train, valid, test = _slices()
    forecaster = _unfitted(2, "gru")
    forecaster.fit(train, valid, seed=SEED)
    rows = test.subset(np.arange(5))
    found = forecaster.reversion(rows, n_samples=6, seeds=rows.ts)  # type: ignore[attr-defined]
    assert found.shape == (6, 5)
    assert ((found > 0) & (found < 1)).all()
