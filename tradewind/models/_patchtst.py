"""The PatchTST family (Nie et al. 2023, arXiv 2211.14730).

Each feature is a series of its own (channel independence): its patches go through one encoder
that all features share, and one flatten head reads the tokens of all of them.

Deviations, and why: a layer norm before each sublayer instead of a batch norm after it, because
a row's answer must not depend on its batch; no instance norm, because it takes from a window its
level and spread, which here are information (the inputs are returns, distances and volatilities,
standardised over the training rows), and there is no level to give back to a return; patches are
counted from the last bar backwards instead of padding the end with copies of that bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models._deep import DeepForecaster
from tradewind.models._deep_net import DeepNet, DeepShape, Heads, near_base_rate, read_heads
from tradewind.models._mc_dropout import Dropout
from tradewind.models._transformer_net import SITES_PER_LAYER, EncoderLayer
from tradewind.settings import Settings

POSITION_RANGE = 0.02
"""Learned positions start uniform within ± this."""


@dataclass(frozen=True)
class PatchTSTShape(DeepShape):
    """Sizes of PatchTST."""

    patch: int = 16
    stride: int = 8
    d_model: int = 64
    heads: int = 4
    layers: int = 3
    feedforward: int = 128

    @property
    def patches(self) -> int:
        """Return how many whole patches end at the last bar or a stride, two, … before it."""
        return (self.window - self.patch) // self.stride + 1

    @property
    def sites(self) -> int:
        """Return how many places drop units."""
        return self.layers * SITES_PER_LAYER

    @property
    def longest_mask(self) -> int:
        """Return the most mask values that one pass over one window needs at one site."""
        return self.inputs * self.patches * max(self.d_model, self.feedforward)


class ChannelEncoderLayer(EncoderLayer):
    """An encoder layer over (B, D, N, d): the features of a window do not see each other."""

    def attend(self, x: Tensor, *, last_only: bool) -> Tensor:
        """Return the attention branch, of the same shape."""
        apart = super().attend(x.flatten(0, 1), last_only=last_only)
        return apart.view(x.shape)


class PatchTSTNet(DeepNet):
    """Patches of each feature through a shared encoder to one flatten head."""

    def __init__(self, shape: PatchTSTShape) -> None:
        super().__init__(shape)
        self.sizes = shape
        self.embed = nn.Linear(shape.patch, shape.d_model)
        self.position = nn.Parameter(
            torch.empty(shape.patches, shape.d_model).uniform_(-POSITION_RANGE, POSITION_RANGE)
        )
        self.layers = nn.ModuleList(
            ChannelEncoderLayer(shape.d_model, shape.heads, shape.feedforward)
            for _ in range(shape.layers)
        )
        self.norm = nn.LayerNorm(shape.d_model)
        self.heads = near_base_rate(nn.Linear(shape.inputs * shape.patches * shape.d_model, 3))

    def patched(self, windows: Tensor) -> Tensor:
        """Return the patches (B, D, N, P) of (B, W, D); the last one ends at the last bar."""
        used = (self.sizes.patches - 1) * self.sizes.stride + self.sizes.patch
        series = windows[:, windows.shape[1] - used :].transpose(1, 2)
        return series.unfold(-1, self.sizes.patch, self.sizes.stride)

    def encode(self, windows: Tensor, dropout: Dropout) -> Tensor:
        """Return the tokens (B, D, N, d), each feature's from that feature alone."""
        x = self.embed(self.patched(windows)) + self.position
        for number, layer in enumerate(self.layers):
            x = layer(x, dropout, number * SITES_PER_LAYER, last_only=False)
        tokens: Tensor = self.norm(x)
        return tokens

    def forward(self, windows: Tensor, dropout: Dropout) -> Heads:
        """Return the heads, read from all tokens."""
        return read_heads(self.heads(self.encode(windows, dropout).flatten(1)))


class PatchTSTForecaster(DeepForecaster):
    """Channel-independent transformer over patches of bars."""

    family: ClassVar[str] = "patchtst"
    shape_type: ClassVar[type[DeepShape]] = PatchTSTShape
    net_type: ClassVar[type[DeepNet]] = PatchTSTNet

    @classmethod
    def learning_rate_factor(cls, settings: Settings) -> float:
        """Return what the common learning rate is multiplied by."""
        return settings.patchtst.learning_rate_factor

    @classmethod
    def shape_from(cls, settings: Settings) -> PatchTSTShape:
        """Return the sizes of the network in ``settings``.

        Raises
        ------
        TradewindError
            ``bad_setting`` for a patch that is longer than the window.
        """
        sizes = settings.patchtst
        if sizes.patch > settings.features.window:
            raise TradewindError(
                ErrorCode.BAD_SETTING,
                f"patchtst.patch = {sizes.patch} is longer than features.window = "
                f"{settings.features.window} bars",
                "Shorten the patch or lengthen the window",
            )
        return PatchTSTShape(
            window=settings.features.window,
            patch=sizes.patch,
            stride=sizes.stride,
            d_model=sizes.d_model,
            heads=sizes.heads,
            layers=sizes.layers,
            feedforward=sizes.feedforward,
        )
