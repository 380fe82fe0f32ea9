"""The transformer beyond the common contract: MC dropout and numerics."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.support.samples import in_time_order, planted_samples
from tests.support.tiny import tiny_forecaster
from tradewind.files import write_json
from tradewind.models import _mc_dropout
from tradewind.models._mc_dropout import (
    ALIGNMENT,
    NoDropout,
    PassDropout,
    TrainingDropout,
    draw_pool,
    mask_starts,
)
from tradewind.models._transformer import TransformerForecaster
from tradewind.models._transformer_net import NetShape, TransformerNet
from tradewind.models.base import CONFIG_FILE

SHAPE = NetShape(window=8, inputs=4, d_model=16, heads=2, layers=3, feedforward=32)
DROPOUT = 0.2


def _net(seed: int = 0) -> TransformerNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TransformerNet(SHAPE)


def _windows(rows: int) -> Tensor:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(rows, SHAPE.window, SHAPE.inputs)).astype(np.float32)
    return torch.from_numpy(values)


def _plain_forward(net: TransformerNet, x: Tensor, p: float) -> Tensor:
    """Return logits, written plainly: every token in every layer, torch's own dropout."""
    x = net.project(x) + net.position
    for layer in net.layers:
        q, k, v = layer.qkv(layer.attention_norm(x)).chunk(3, dim=-1)
        heads = [t.unflatten(-1, (SHAPE.heads, -1)).transpose(1, 2) for t in (q, k, v)]
        weights = (heads[0] @ heads[1].transpose(-1, -2)) / (q.shape[-1] / SHAPE.heads) ** 0.5
        mixed = (weights.softmax(-1) @ heads[2]).transpose(1, 2).flatten(2)
        x = x + functional.dropout(layer.merge(mixed), p, True)
        hidden = functional.relu(layer.up(layer.feedforward_norm(x)))
        hidden = functional.dropout(hidden, p, True)
        x = x + functional.dropout(layer.down(hidden), p, True)
    logits: Tensor = net.heads(net.norm(x))[:, -1, 0]
    return logits


def _pass_logits(net: TransformerNet, windows: Tensor, seeds: np.ndarray, passes: int) -> Tensor:
    pool = draw_pool(1 << 20, DROPOUT, np.random.default_rng(0))
    starts = mask_starts(
        seeds,
        np.arange(passes),
        SHAPE.sites,
        pool_size=len(pool),
        longest=SHAPE.longest_mask,
    )
    with torch.inference_mode():
        return net(windows, PassDropout(pool, starts)).logit.reshape(len(windows), passes)


def test_without_dropout_it_is_the_plain_encoder() -> None:
    net, windows = _net(), _windows(5)
    with torch.inference_mode():
        ours, plain = net(windows, NoDropout()).logit, _plain_forward(net, windows, 0.0)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5)


def test_passes_are_distributed_as_a_naive_loop_of_passes() -> None:
    net, windows, passes = _net(), _windows(3), 3000
    ours = _pass_logits(net, windows, np.arange(3), passes)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(2)
        tiled = windows.repeat(passes, 1, 1)
        naive = _plain_forward(net, tiled, DROPOUT).reshape(passes, 3).T
    error = naive.std(dim=1) / passes**0.5
    assert ((ours.mean(dim=1) - naive.mean(dim=1)).abs() < 5 * error * 2**0.5).all()
    torch.testing.assert_close(ours.std(dim=1), naive.std(dim=1), rtol=0.08, atol=0)
    for level in (0.05, 0.5, 0.95):
        quantiles = ours.quantile(level, dim=1), naive.quantile(level, dim=1)
        assert (abs(quantiles[0] - quantiles[1]) < 0.2 * naive.std(dim=1)).all()


def test_passes_of_a_row_do_not_repeat_or_correlate() -> None:
    logits = _pass_logits(_net(), _windows(1), np.array([4]), 2000)[0]
    assert len(torch.unique(logits)) == 2000
    neighbours = np.corrcoef(logits[:-1].numpy(), logits[1:].numpy())[0, 1]
    assert abs(neighbours) < 5 / 2000**0.5


def test_more_passes_begin_with_the_fewer() -> None:
    net, windows, seeds = _net(), _windows(2), np.array([9, 10])
    few, many = (_pass_logits(net, windows, seeds, s) for s in (5, 40))
    torch.testing.assert_close(many[:, :5], few, rtol=0, atol=1e-6)


def test_more_passes_than_one_forward_holds() -> None:
    train, valid = in_time_order(planted_samples(200), 0.7, 0.3)
    forecaster = tiny_forecaster("transformer")
    forecaster.fit(train, valid, seed=1)
    rows, seeds = valid.subset(np.arange(3)), np.array([5, 6, 7])
    many = forecaster.sample(rows, n_samples=150, seeds=seeds)
    few = forecaster.sample(rows, n_samples=20, seeds=seeds)
    assert many.p.shape == (150, 3)
    np.testing.assert_allclose(many.p[:20], few.p, rtol=0, atol=1e-6)
    assert len(np.unique(many.mu[:, 0])) == 150


def test_starts_are_aligned_inside_the_pool_and_spread() -> None:
    starts = mask_starts(
        np.arange(200), np.arange(20), 9, pool_size=1 << 20, longest=SHAPE.longest_mask
    )
    assert starts.shape == (200, 20, 9)
    assert (starts % ALIGNMENT == 0).all()
    assert starts.min() >= 0
    assert starts.max() + SHAPE.longest_mask <= 1 << 20
    counts, _ = np.histogram(starts, bins=20)
    assert counts.std() < 5 * np.sqrt(starts.size / 20)


def test_pool_keeps_the_mean() -> None:
    pool = draw_pool(1 << 20, DROPOUT, np.random.default_rng(0))
    assert pool.unique().tolist() == pytest.approx([0, 1 / (1 - DROPOUT)])
    assert float(pool.mean()) == pytest.approx(1, abs=5 * (0.25 / (1 << 20)) ** 0.5)


def test_training_gradient_is_the_plain_encoders() -> None:
    net, windows = _net(), _windows(4)
    other = copy.deepcopy(net)
    ones = torch.ones(4 * SHAPE.longest_mask)
    net(windows, TrainingDropout(ones, np.random.default_rng(0))).logit.sum().backward()
    _plain_forward(other, windows, 0.0).sum().backward()
    for (name, ours), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_standardisation_comes_from_the_training_rows_alone() -> None:
    whole = planted_samples(300)
    whole.deep.rows[0][250:] += 100
    train, valid, _ = in_time_order(whole, 0.5, 0.3, 0.2)
    forecaster = tiny_forecaster("transformer")
    forecaster.fit(train, valid, seed=1)
    assert np.abs(forecaster.standardise.mean).max() < 0.3  # type: ignore[attr-defined]
    assert np.abs(np.array(forecaster.standardise.std) - 1).max() < 0.2  # type: ignore[attr-defined]


def _last_layer_drops_plainly(net: TransformerNet, x: Tensor, p: float) -> Tensor:
    """Return logits where only the last layer drops, with torch's own dropout."""
    x = net.project(x) + net.position
    for layer in net.layers:
        rate = p if layer is net.layers[-1] else 0.0
        x = x + functional.dropout(layer.attend(x, last_only=False), rate, True)
        hidden = functional.dropout(
            functional.relu(layer.up(layer.feedforward_norm(x))), rate, True
        )
        x = x + functional.dropout(layer.down(hidden), rate, True)
    logits: Tensor = net.heads(net.norm(x))[:, -1, 0]
    return logits


def test_passes_of_the_last_layer_alone_are_distributed_as_its_own_dropout() -> None:
    net, windows, passes = _net(), _windows(3), 3000
    pool = draw_pool(1 << 20, DROPOUT, np.random.default_rng(0))
    starts = mask_starts(
        np.arange(3), np.arange(passes), SHAPE.sites, pool_size=1 << 20, longest=SHAPE.longest_mask
    )
    dropout = PassDropout(pool, starts, first_site=SHAPE.last_layer_site)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        ours = net(windows, dropout).logit.reshape(3, passes)
        torch.manual_seed(2)
        tiled = windows.repeat(passes, 1, 1)
        naive = _last_layer_drops_plainly(net, tiled, DROPOUT).reshape(passes, 3).T
    error = naive.std(dim=1) / passes**0.5
    assert ((ours.mean(dim=1) - naive.mean(dim=1)).abs() < 5 * error * 2**0.5).all()
    torch.testing.assert_close(ours.std(dim=1), naive.std(dim=1), rtol=0.08, atol=0)
    assert (ours.std(dim=1) < _pass_logits(net, windows, np.arange(3), passes).std(dim=1)).all()


def test_which_layers_drop_is_a_version_s_own(tmp_path: Path) -> None:
    train, valid = in_time_order(planted_samples(200), 0.7, 0.3)
    rows, seeds = valid.subset(np.arange(3)), np.array([5, 6, 7])
    found = {}
    for layers in ("all", "last"):
        forecaster = tiny_forecaster("transformer", deep={"mc_dropout": layers})
        forecaster.fit(train, valid, seed=1)
        forecaster.save(tmp_path / layers)
        found[layers] = forecaster.sample(rows, n_samples=40, seeds=seeds)
        again = TransformerForecaster.load(tmp_path / layers)
        np.testing.assert_array_equal(
            again.sample(rows, n_samples=40, seeds=seeds).p, found[layers].p
        )
    assert len(np.unique(found["last"].p[:, 0])) == 40
    assert (found["last"].p.std(axis=0) < found["all"].p.std(axis=0)).all()
    np.testing.assert_allclose(found["last"].p.mean(axis=0), found["all"].p.mean(axis=0), atol=0.02)
    old = json.loads((tmp_path / "all" / CONFIG_FILE).read_text())
    del old["masks"]["first_site"]  # as versions were saved before there was a choice
    write_json(tmp_path / "all" / CONFIG_FILE, old)
    before = TransformerForecaster.load(tmp_path / "all").sample(rows, n_samples=40, seeds=seeds)
    np.testing.assert_array_equal(before.p, found["all"].p)


@pytest.mark.parametrize("first_site", [0, SHAPE.last_layer_site])
def test_masks_gathered_and_masks_in_place_are_the_same(
    monkeypatch: pytest.MonkeyPatch, first_site: int
) -> None:
    net, windows = _net(), _windows(2)
    pool = draw_pool(1 << 20, DROPOUT, np.random.default_rng(0))
    starts = mask_starts(
        np.arange(2), np.arange(20), SHAPE.sites, pool_size=1 << 20, longest=SHAPE.longest_mask
    )
    found = []
    for limit in (0, 1 << 20):
        monkeypatch.setattr(_mc_dropout, "GATHERED_MASK", limit)
        with torch.inference_mode():
            found.append(net(windows, PassDropout(pool, starts, first_site=first_site)).logit)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)
