"""Monte Carlo dropout and files, the same for every deep family."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.support.samples import in_time_order, planted_samples
from tests.support.tiny import tiny_forecaster
from tradewind.errors import TradewindError
from tradewind.models._deep import DeepForecaster
from tradewind.models._deep_net import DeepNet
from tradewind.models._mc_dropout import (
    Dropout,
    NoDropout,
    PassDropout,
    TrainingDropout,
    draw_pool,
    mask_starts,
)
from tradewind.models.base import Samples
from tradewind.models.families import FAMILIES, FAMILY_SECTIONS, create, family_settings
from tradewind.settings import Settings

DEEP = sorted(name for name in FAMILIES if "deep" in FAMILY_SECTIONS[name])
DROPOUT = 0.2
PASSES = 2000


class StoppedError(Exception):
    """What ends a fit between two epochs."""


class PlainDropout(Dropout):
    """Torch's own dropout: every row its own pass, every draw fresh."""

    def hidden(self, x: Tensor, site: int) -> Tensor:
        return functional.dropout(x, DROPOUT, True)

    def residual(self, x: Tensor, branch: Tensor, site: int) -> Tensor:
        return x + functional.dropout(branch, DROPOUT, True)

    def steps(self, x: Tensor, site: int) -> Tensor:
        return x * functional.dropout(torch.ones_like(x[:, :1]), DROPOUT, True)

    def spread(self, x: Tensor) -> Tensor:
        return x


def _samples() -> tuple[Samples, Samples]:
    train, valid = in_time_order(planted_samples(200), 0.7, 0.3)
    return train, valid


@functools.cache
def _fitted(family: str) -> DeepForecaster:
    forecaster = tiny_forecaster(family, training={"epochs": 2})
    assert isinstance(forecaster, DeepForecaster)
    forecaster.fit(*_samples(), seed=1)
    return forecaster


def _net(family: str) -> DeepNet:
    forecaster = tiny_forecaster(family)
    assert isinstance(forecaster, DeepForecaster)
    return forecaster.trainer(*_samples(), seed=1).net


def _windows(net: DeepNet, rows: int) -> Tensor:
    rng = np.random.default_rng(1)
    shape = (rows, net.shape.window, net.shape.inputs)
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


def _logits(net: DeepNet, windows: Tensor, passes: int) -> Tensor:
    pool = draw_pool(1 << 20, DROPOUT, np.random.default_rng(0))
    starts = mask_starts(
        np.arange(len(windows)),
        np.arange(passes),
        net.shape.sites,
        pool_size=len(pool),
        longest=net.shape.longest_mask,
    )
    with torch.inference_mode():
        return net(windows, PassDropout(pool, starts)).logit.reshape(len(windows), passes)


@pytest.mark.parametrize("family", DEEP)
class TestDeepFamily:
    """What `DeepForecaster` promises of each of them."""

    def test_passes_are_distributed_as_plain_dropout(self, family: str) -> None:
        net = _net(family)
        windows = _windows(net, 3)
        ours = _logits(net, windows, PASSES)
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(2)
            plain = net(windows.repeat(PASSES, 1, 1), PlainDropout()).logit.reshape(PASSES, 3).T
        error = plain.std(dim=1) / PASSES**0.5
        assert ((ours.mean(dim=1) - plain.mean(dim=1)).abs() < 5 * error * 2**0.5).all()
        torch.testing.assert_close(ours.std(dim=1), plain.std(dim=1), rtol=0.1, atol=0)

    def test_every_site_drops_something(self, family: str) -> None:
        net = _net(family)
        windows = _windows(net, 1)
        pool = draw_pool(1 << 20, DROPOUT, np.random.default_rng(0))
        starts = np.zeros((1, 1, net.shape.sites), dtype=np.int64)
        with torch.inference_mode():
            before = net(windows, PassDropout(pool, starts))
            for site in range(net.shape.sites):
                moved = starts.copy()
                moved[..., site] = 1 << 19
                after = net(windows, PassDropout(pool, moved))
                assert not torch.equal(torch.stack(before[:3]), torch.stack(after[:3])), site

    def test_more_passes_begin_with_the_fewer(self, family: str) -> None:
        rows = _samples()[1].subset(np.arange(3))
        seeds = np.array([5, 6, 7])
        most = _fitted(family).passes_per_forward + 30
        many = _fitted(family).sample(rows, n_samples=most, seeds=seeds)
        few = _fitted(family).sample(rows, n_samples=20, seeds=seeds)
        assert many.p.shape == (most, 3)
        np.testing.assert_allclose(many.p[:20], few.p, rtol=0, atol=1e-6)

    def test_training_without_drops_is_the_expectation(self, family: str) -> None:
        net = _net(family)
        windows = _windows(net, 4)
        ones = TrainingDropout(torch.ones(4 * net.shape.longest_mask), np.random.default_rng(0))
        trained, plain = net(windows, ones), net(windows, NoDropout())
        torch.testing.assert_close(torch.stack(trained[:3]), torch.stack(plain[:3]))
        loss = sum(head.sum() for head in trained if head is not None)
        loss.backward()  # type: ignore[union-attr]
        dead = [name for name, part in net.named_parameters() if part.grad is None]
        assert dead == []

    def test_an_interrupted_fit_ends_with_the_same_weights(
        self, family: str, tmp_path: Path
    ) -> None:
        def stop(epoch: int, metrics: object) -> None:
            if epoch == 2:
                raise StoppedError

        train, valid = _samples()
        with pytest.raises(StoppedError):
            tiny_forecaster(family, training={"epochs": 3}).fit(
                train, valid, seed=4, on_epoch=stop, checkpoint_dir=tmp_path / "checkpoint"
            )
        told: list[int] = []
        resumed, whole = (tiny_forecaster(family, training={"epochs": 3}) for _ in range(2))
        resumed.fit(
            train,
            valid,
            seed=4,
            on_epoch=lambda epoch, metrics: told.append(epoch),
            checkpoint_dir=tmp_path / "checkpoint",
        )
        whole.fit(train, valid, seed=4)
        assert told == [1, 2, 3]
        resumed.save(tmp_path / "resumed")
        whole.save(tmp_path / "whole")
        for name in ("weights.safetensors", "config.json"):
            assert (tmp_path / "resumed" / name).read_bytes() == (
                tmp_path / "whole" / name
            ).read_bytes()

    def test_what_is_saved_again_is_the_same(self, family: str, tmp_path: Path) -> None:
        _fitted(family).save(tmp_path / "first")
        loaded = type(_fitted(family)).load(tmp_path / "first")
        assert loaded.shape == _fitted(family).shape
        loaded.save(tmp_path / "second")
        for name in ("weights.safetensors", "config.json"):
            assert (tmp_path / "first" / name).read_bytes() == (
                tmp_path / "second" / name
            ).read_bytes()

    def test_other_windows_are_refused(self, family: str) -> None:
        rows = planted_samples(20, width=9)
        with pytest.raises(TradewindError, match="its window is 8 bars, the samples' 9"):
            _fitted(family).sample(rows, n_samples=2, seeds=np.arange(len(rows)))


def test_settings_reach_the_networks() -> None:
    settings = Settings(
        nhits={"hidden": 24, "blocks": 2},  # type: ignore[arg-type]
        patchtst={"patch": 32, "d_model": 24},  # type: ignore[arg-type]
        gru={"hidden": 20, "layers": 3, "learning_rate_factor": 2},  # type: ignore[arg-type]
        training={"horizon": 12, "learning_rate": 0.002},  # type: ignore[arg-type]
    )
    made = {name: vars(create(name, settings)) for name in DEEP}
    assert (made["nhits"]["shape"].hidden, made["nhits"]["shape"].horizon) == (24, 12)
    assert (made["patchtst"]["shape"].patch, made["patchtst"]["shape"].d_model) == (32, 24)
    assert (made["gru"]["shape"].hidden, made["gru"]["shape"].layers) == (20, 3)
    rates = {name: parts["plan"].learning_rate for name, parts in made.items()}
    assert rates == pytest.approx(
        {"transformer": 6e-4, "patchtst": 6e-5, "nhits": 6e-4, "gru": 0.004}
    )


def test_a_family_does_not_depend_on_the_sizes_of_another() -> None:
    base = Settings()
    other = Settings(
        nhits={"hidden": 24},  # type: ignore[arg-type]
        patchtst={"patch": 32},  # type: ignore[arg-type]
        gru={"hidden": 20},  # type: ignore[arg-type]
    )
    for name in FAMILIES:
        same = family_settings(name, base) == family_settings(name, other)
        assert same == (name not in ("nhits", "patchtst", "gru"))
