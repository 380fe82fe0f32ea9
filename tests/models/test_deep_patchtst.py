"""PatchTST as a structure: patches up to the last bar, features apart, one encoder for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models._mc_dropout import NoDropout
from tradewind.models._patchtst import PatchTSTNet, PatchTSTShape
from tradewind.models.families import create
from tradewind.settings import PatchTSTSettings, Settings

SHAPE = PatchTSTShape(
    window=24, inputs=5, patch=8, stride=4, d_model=16, heads=2, layers=2, feedforward=32
)


def _net(shape: PatchTSTShape = SHAPE) -> PatchTSTNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PatchTSTNet(shape)


def _windows(rows: int = 3, shape: PatchTSTShape = SHAPE) -> Tensor:
    values = np.random.default_rng(1).normal(size=(rows, shape.window, shape.inputs))
    return torch.from_numpy(values.astype(np.float32))


def _tokens(net: PatchTSTNet, windows: Tensor) -> Tensor:
    with torch.inference_mode():
        return net.encode(windows, NoDropout())


def test_default_patches_cover_the_whole_window() -> None:
    shape = PatchTSTShape()
    assert (shape.patches, (shape.patches - 1) * shape.stride + shape.patch) == (15, 128)


@pytest.mark.parametrize("window", [24, 25, 27, 8])
def test_the_last_patch_ends_at_the_last_bar(window: int) -> None:
    shape = replace(SHAPE, window=window)
    bars = torch.arange(window, dtype=torch.float32)[None, :, None].expand(1, window, 5)
    patches = _net(shape).patched(bars)
    assert patches.shape == (1, 5, shape.patches, 8)
    for number in range(shape.patches):
        end = window - 4 * (shape.patches - 1 - number)
        torch.testing.assert_close(patches[0, 2, number], bars[0, end - 8 : end, 2])
    assert patches[0, 0, 0, 0] < 4  # fewer than a stride of the oldest bars are left out


def test_permuted_features_permute_the_tokens() -> None:
    net, windows, order = _net(), _windows(), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        _tokens(net, windows[..., order]), _tokens(net, windows)[:, order], rtol=0, atol=1e-6
    )


def test_a_feature_is_encoded_from_itself_alone() -> None:
    net, windows = _net(), _windows()
    changed = windows.clone()
    changed[..., 2] += 1.0
    before, after = _tokens(net, windows), _tokens(net, changed)
    others = [0, 1, 3, 4]
    torch.testing.assert_close(before[:, others], after[:, others], rtol=0, atol=1e-6)
    assert (before[:, 2] - after[:, 2]).abs().max() > 0.1


def test_the_same_series_as_two_features_has_the_same_tokens() -> None:
    net, windows = _net(), _windows()
    windows[..., 4] = windows[..., 1]
    tokens = _tokens(net, windows)
    torch.testing.assert_close(tokens[:, 4], tokens[:, 1], rtol=0, atol=1e-6)


def test_the_flatten_head_reads_every_feature_and_patch() -> None:
    net, windows = _net(), _windows(rows=1).requires_grad_()
    net(windows, NoDropout()).logit.sum().backward()
    assert windows.grad is not None
    assert (windows.grad.abs() > 0).all()
    assert net.heads.in_features == 5 * SHAPE.patches * SHAPE.d_model


def test_the_encoder_does_not_grow_with_the_features() -> None:
    def size(inputs: int) -> int:
        net = _net(replace(SHAPE, inputs=inputs))
        return sum(part.numel() for name, part in net.named_parameters() if "heads" not in name)

    assert size(1) == size(5) == size(10)


def test_positions_are_learned() -> None:
    net = _net()
    net(_windows(), NoDropout()).mu.sum().backward()
    assert net.position.grad is not None
    assert (net.position.grad.abs().sum(dim=1) > 0).all()


def test_a_patch_longer_than_the_window_is_refused() -> None:
    settings = Settings(features={"window": 12})  # type: ignore[arg-type]
    with pytest.raises(TradewindError, match=r"patchtst\.patch = 16 .* 12 bars") as caught:
        create("patchtst", settings)
    assert caught.value.code is ErrorCode.BAD_SETTING


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        PatchTSTSettings(d_model=30, heads=4)
