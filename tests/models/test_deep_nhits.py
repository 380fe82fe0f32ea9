"""N-HiTS as a structure: pooling, interpolation, double residual, and what the heads read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tradewind.models._deep_net import SIGMA_FLOOR
from tradewind.models._mc_dropout import NoDropout
from tradewind.models._nhits import NHitsBlock, NHitsNet, NHitsShape, interpolation
from tradewind.settings import NHitsSettings

SHAPE = NHitsShape(
    window=24, inputs=3, horizon=12, pooling=(8, 5, 1), downsampling=(12, 4, 1), hidden=16, blocks=2
)


def _net(shape: NHitsShape = SHAPE) -> NHitsNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NHitsNet(shape)


def _windows(shape: NHitsShape = SHAPE, rows: int = 4) -> Tensor:
    values = np.random.default_rng(1).normal(size=(rows, shape.window, shape.inputs))
    return torch.from_numpy(values.astype(np.float32))


def _calls(net: NHitsNet, windows: Tensor) -> list[tuple[Tensor, Tensor, Any, Tensor]]:
    """Return (series, others, backcast, forecast) of every block in a forward."""
    seen: list[tuple[Tensor, Tensor, Any, Tensor]] = []
    hooks = [
        block.register_forward_hook(lambda _, given, made: seen.append((*given[:2], *made)))
        for block in net.blocks
    ]
    with torch.inference_mode():
        net(windows, NoDropout())
    for hook in hooks:
        hook.remove()
    return seen


def test_every_stack_has_its_own_rate_and_number_of_knots() -> None:
    blocks = [block for block in _net().blocks if isinstance(block, NHitsBlock)]
    assert [block.hidden[0].in_features for block in blocks] == [9, 9, 15, 15, 72, 72]
    assert [block.forecast.out_features for block in blocks] == [3, 3, 9, 9, 36, 36]
    backcasts = [block.backcast.out_features for block in blocks if block.backcast is not None]
    assert backcasts == [2, 2, 6, 6, 24]
    assert SHAPE.sites == 6 * SHAPE.layers


def test_forecast_is_the_sum_and_each_block_sees_what_is_left() -> None:
    net, windows = _net(), _windows()
    calls = _calls(net, windows)
    with torch.inference_mode():
        path = net.path(windows, NoDropout())
    assert path.shape == (4, 3, 12)
    torch.testing.assert_close(path, torch.stack([made[3] for made in calls]).sum(dim=0))
    left = windows[..., 0]
    for number, (series, others, backcast, _) in enumerate(calls):
        torch.testing.assert_close(series[:, 0], left)
        torch.testing.assert_close(others, windows[..., 1:].transpose(1, 2))
        if backcast is None:
            assert number == len(calls) - 1
        else:
            assert backcast.abs().max() > 0
            left = left - backcast


def test_backcasts_and_forecasts_lie_on_the_lines_between_their_knots() -> None:
    calls = _calls(_net(), _windows())
    # One knot for the first stack's horizon: a constant; two for its window: one line, which a
    # grid of bars shows as at most two bends at each knot.
    assert (calls[0][3].std(dim=-1) < 1e-6).all()
    bends = calls[0][2].diff(dim=-1).diff(dim=-1)
    assert ((bends.abs() > 1e-6).sum(dim=-1) <= 4).all()
    assert ((calls[-1][3].diff(dim=-1).diff(dim=-1).abs() > 1e-6).sum(dim=-1) > 4).all()


@pytest.mark.parametrize(("knots", "bars"), [(1, 7), (2, 24), (5, 12), (12, 12), (3, 128)])
def test_interpolation_is_torchs_and_keeps_constants(knots: int, bars: int) -> None:
    matrix = interpolation(knots, bars)
    values = torch.randn(4, 1, knots, generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(values, size=bars, mode="linear")
    torch.testing.assert_close(values @ matrix, expected)
    torch.testing.assert_close(matrix.sum(dim=0), torch.ones(bars))


def test_coarse_pooling_keeps_peaks_and_not_their_place() -> None:
    early, late = torch.zeros(1, 24, 3), torch.zeros(1, 24, 3)
    early[0, 9, 0] = late[0, 14, 0] = 3.0  # both in bars 8..15
    for pooling, alike in ((8, True), (1, False)):
        shape = NHitsShape(window=24, inputs=3, pooling=(pooling,), downsampling=(4,), hidden=16)
        net = _net(shape)
        with torch.inference_mode():
            a, b = (net.path(windows, NoDropout()) for windows in (early, late))
            nothing = net.path(torch.zeros(1, 24, 3), NoDropout())
        assert torch.equal(a, b) == alike
        assert not torch.equal(a, nothing)


def test_heads_add_up_the_bars_of_the_path() -> None:
    net, windows = _net(), _windows()
    with torch.inference_mode():
        heads, path = net(windows, NoDropout()), net.path(windows, NoDropout()).double()
    torch.testing.assert_close(heads.logit.double(), path[:, 0].sum(dim=1) / math.sqrt(12))
    torch.testing.assert_close(heads.mu.double(), path[:, 1].sum(dim=1) / math.sqrt(12))
    variance = functional.softplus(path[:, 2]).square().mean(dim=1)
    torch.testing.assert_close(heads.sigma.double(), variance.sqrt() + SIGMA_FLOOR)


def test_the_newest_bar_reaches_every_rate() -> None:
    windows = _windows(rows=1)
    moved = windows.clone()
    moved[0, -1] += 5
    for before, after in zip(_calls(_net(), windows), _calls(_net(), moved), strict=True):
        assert not torch.equal(before[3], after[3])


@pytest.mark.parametrize(
    "sizes", [{"pooling": (4, 1)}, {"pooling": (0, 4, 1)}, {"pooling": (), "downsampling": ()}]
)
def test_stacks_without_a_pair_of_rates_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one positive number for each stack"):
        NHitsSettings(**sizes)
