"""The GRU: recurrent layers as torch stacks them, and P(reversion) beside the direction."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from tests.support.samples import in_time_order, planted_samples
from tests.support.tiny import tiny_forecaster
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models._deep_net import Heads, Labels, losses
from tradewind.models._gru import GRUForecaster, GRUNet, GRUShape
from tradewind.models._mc_dropout import NoDropout, PassDropout, draw_pool
from tradewind.models.base import Samples

S = 12


@functools.cache
def _slices() -> tuple[Samples, Samples, Samples]:
    train, valid, test = in_time_order(planted_samples(1100), 0.6, 0.2, 0.2)
    return train, valid, test


@functools.cache
def _fitted(*, flipped: bool = False) -> GRUForecaster:
    forecaster = tiny_forecaster("gru", training={"epochs": 10, "learning_rate": 0.01})
    assert isinstance(forecaster, GRUForecaster)
    train, valid = (_flipped(part) if flipped else part for part in _slices()[:2])
    forecaster.fit(train, valid, seed=3)
    return forecaster


def _flipped(samples: Samples) -> Samples:
    assert samples.reverted is not None
    return replace(samples, reverted=1 - samples.reverted)


def test_layers_are_torchs_stacked_gru() -> None:
    torch.manual_seed(0)
    net = GRUNet(GRUShape(window=10, inputs=4, hidden=6, layers=3))
    whole = nn.GRU(4, 6, num_layers=3, batch_first=True)
    for number, layer in enumerate(net.layers):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(whole, f"{name}_l{number}").data = getattr(layer, f"{name}_l0").data
    windows = torch.randn(5, 10, 4)
    with torch.inference_mode():
        ours = net(windows, NoDropout()).logit
        known = torch.cat([whole(windows)[0][:, -1], windows[:, -1]], dim=1)
        plain = net.heads(functional.relu(net.mix(known)))[:, 0]
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-6)


def test_a_dropped_unit_is_dropped_at_every_bar() -> None:
    pool = draw_pool(1 << 12, 0.5, np.random.default_rng(0))
    starts = np.array([[[0], [160], [320]], [[480], [640], [800]]])
    with torch.inference_mode():
        dropped = PassDropout(pool, starts).steps(torch.ones(2, 7, 16), 0)
    assert dropped.shape == (6, 7, 16)
    assert torch.equal(dropped, dropped[:, :1].expand(-1, 7, -1))
    assert 0 < float((dropped == 0).float().mean()) < 1
    for row, start in enumerate(starts.ravel()):
        torch.testing.assert_close(dropped[row, 0], pool[start : start + 16])


def test_reversion_is_a_probability_of_every_pass_and_repeats() -> None:
    rows = _slices()[2].subset(np.arange(40))
    seeds = rows.ts // 1000
    found = _fitted().reversion(rows, n_samples=S, seeds=seeds)
    assert found.shape == (S, 40)
    assert ((found > 0) & (found < 1)).all()
    assert (found.std(axis=0) > 0).all()
    np.testing.assert_array_equal(found, _fitted().reversion(rows, n_samples=S, seeds=seeds))
    alone = _fitted().reversion(rows.subset(np.array([7])), n_samples=S, seeds=seeds[[7]])
    np.testing.assert_allclose(alone[:, 0], found[:, 7], rtol=0, atol=1e-6)


def test_reversion_learns_its_own_label() -> None:
    test = _slices()[2]
    assert test.reverted is not None
    p = _fitted().reversion(test, n_samples=S, seeds=test.ts).mean(axis=0)
    known = np.isfinite(test.reverted)
    # The label follows another feature than the return does.
    assert roc_auc_score(test.reverted[known], p[known]) > 0.70
    assert abs(roc_auc_score(test.y_up[known], p[known]) - 0.5) < 0.1


def test_a_fit_without_the_label_is_refused() -> None:
    train, valid, _ = _slices()
    for parts in ((replace(train, reverted=None), valid), (train, replace(valid, reverted=None))):
        with pytest.raises(TradewindError, match="no reverted label") as caught:
            tiny_forecaster("gru").fit(*parts, seed=1)
        assert caught.value.code is ErrorCode.BAD_INPUT


def test_predicting_needs_no_label() -> None:
    rows = replace(_slices()[2].subset(np.arange(4)), reverted=None)
    assert _fitted().sample(rows, n_samples=2, seeds=np.arange(4)).p.shape == (2, 4)
    assert _fitted().reversion(rows, n_samples=2, seeds=np.arange(4)).shape == (2, 4)


def test_rows_without_the_label_leave_the_head_alone() -> None:
    logit, mu = torch.zeros(4), torch.zeros(4)
    reversion = torch.tensor([0.3, -0.2, 1.0, 2.0], requires_grad=True)
    up = torch.tensor([1.0, 0.0, 1.0, 0.0])
    for reverted, labelled in (([1.0, torch.nan, 0.0, torch.nan], [0, 2]), ([torch.nan] * 4, [])):
        reversion.grad = None
        heads = Heads(logit, mu, torch.ones(4), reversion)
        parts = losses(heads, Labels(up, mu, torch.tensor(reverted)))
        assert len(parts) == 3
        parts[2].backward()  # type: ignore[no-untyped-call]
        assert reversion.grad is not None
        assert reversion.grad.nonzero().flatten().tolist() == labelled
        assert bool(torch.isfinite(parts[2]))


def test_the_labels_of_the_reversion_decide_the_weights() -> None:
    test = _slices()[2].subset(np.arange(50))
    ours, theirs = (
        _fitted(flipped=flipped).reversion(test, n_samples=S, seeds=test.ts).mean(axis=0)
        for flipped in (False, True)
    )
    assert np.corrcoef(ours, theirs)[0, 1] < -0.5


def test_epochs_tell_the_loss_of_the_reversion() -> None:
    train, valid, _ = _slices()
    report = tiny_forecaster("gru", training={"epochs": 1}).fit(train, valid, seed=3)
    metrics = report.metrics
    assert {"valid_loss", "valid_log_loss", "valid_reversion_loss"} < set(metrics)
    assert 0 < metrics["valid_reversion_loss"] < metrics["valid_loss"]
