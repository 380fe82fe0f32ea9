"""The N-HiTS family (Challu et al. 2023, arXiv 2201.12886).

Stacks of blocks, each of which sees the window at its own rate (max pooling), and answers with
a few knots that are interpolated to all bars: a backcast, taken from the series before the next
block sees it, and a forecast, added to the other blocks' (doubly residual).

The series is the first deep feature, ``ret_1``; the others are exogenous and reach every block
unchanged. What is forecast for each of the next H bars is what a distribution needs: evidence of
direction, mean and spread of that bar's return, in units of trailing volatility. Returns add up
and so do their variances, which gives the heads of the H-bar return.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tradewind.models._deep import DeepForecaster
from tradewind.models._deep_net import SIGMA_FLOOR, DeepNet, DeepShape, Heads, near_base_rate
from tradewind.models._mc_dropout import Dropout
from tradewind.settings import Settings

SERIES = 0
"""Place of the forecast series among the deep features."""
PARAMETERS = 3
"""Direction, mean and spread."""


@dataclass(frozen=True)
class NHitsShape(DeepShape):
    """Sizes of N-HiTS; ``pooling`` and ``downsampling`` have a number for each stack."""

    horizon: int = 16
    pooling: tuple[int, ...] = (16, 4, 1)
    downsampling: tuple[int, ...] = (16, 4, 1)
    blocks: int = 1
    hidden: int = 128
    layers: int = 2

    @property
    def sites(self) -> int:
        """Return how many places drop units: after each hidden layer."""
        return len(self.pooling) * self.blocks * self.layers

    @property
    def longest_mask(self) -> int:
        """Return the most mask values that one pass over one window needs at one site."""
        return self.hidden


class NHitsBlock(nn.Module):
    """Pooled window to interpolated backcast (B, W) and forecast (B, 3, H).

    The last block has no backcast: nothing would read it.
    """

    to_window: Tensor
    to_horizon: Tensor

    def __init__(
        self, shape: NHitsShape, pooling: int, downsampling: int, *, last: bool = False
    ) -> None:
        super().__init__()
        self.pooling = pooling
        widths = [
            math.ceil(shape.window / pooling) * shape.inputs,
            *[shape.hidden] * shape.layers,
        ]
        self.hidden = nn.ModuleList(
            nn.Linear(size, shape.hidden) for size in widths[: shape.layers]
        )
        back, ahead = (max(bars // downsampling, 1) for bars in (shape.window, shape.horizon))
        self.backcast = None if last else nn.Linear(shape.hidden, back)
        # A knot of a coarse stack counts once for every bar that it reaches.
        self.forecast = near_base_rate(nn.Linear(shape.hidden, PARAMETERS * ahead))
        self.register_buffer("to_window", interpolation(back, shape.window), persistent=False)
        self.register_buffer("to_horizon", interpolation(ahead, shape.horizon), persistent=False)

    def forward(
        self, series: Tensor, others: Tensor, dropout: Dropout, site: int
    ) -> tuple[Tensor | None, Tensor]:
        """Return backcast and forecast of (B, 1, W) and the exogenous (B, D − 1, W)."""
        x = functional.max_pool1d(
            torch.cat([series, others], dim=1), self.pooling, ceil_mode=True
        ).flatten(1)
        for number, layer in enumerate(self.hidden):
            x = dropout.hidden(functional.relu(layer(x)), site + number)
        forecast = self.forecast(x).unflatten(1, (PARAMETERS, -1)) @ self.to_horizon
        return None if self.backcast is None else self.backcast(x) @ self.to_window, forecast


class NHitsNet(DeepNet):
    """Doubly residual stacks of blocks, from coarse to fine."""

    def __init__(self, shape: NHitsShape) -> None:
        super().__init__(shape)
        rates = [
            (pooling, downsampling)
            for pooling, downsampling in zip(shape.pooling, shape.downsampling, strict=True)
            for _ in range(shape.blocks)
        ]
        self.blocks = nn.ModuleList(
            NHitsBlock(shape, pooling, downsampling, last=number == len(rates))
            for number, (pooling, downsampling) in enumerate(rates, 1)
        )
        self.layers = shape.layers

    def path(self, windows: Tensor, dropout: Dropout) -> Tensor:
        """Return the forecast of the coming bars, shape (B, 3, H)."""
        features = windows.transpose(1, 2)
        series, others = features[:, SERIES : SERIES + 1], features[:, SERIES + 1 :]
        total: Tensor | None = None
        for number, block in enumerate(self.blocks):
            backcast, forecast = block(series, others, dropout, number * self.layers)
            if total is None:  # the first drop has given each pass rows of its own
                series, others = dropout.spread(series), dropout.spread(others)
            total = forecast if total is None else total + forecast
            if backcast is not None:
                series = series - backcast[:, None]
        assert total is not None
        return total

    def forward(self, windows: Tensor, dropout: Dropout) -> Heads:
        """Return the heads of the H-bar return from the forecast of its bars."""
        logit, mean, spread = self.path(windows, dropout).unbind(dim=1)
        root = logit.shape[-1] ** 0.5
        sigma = functional.softplus(spread).square().mean(dim=-1).sqrt()
        return Heads(logit.sum(dim=-1) / root, mean.sum(dim=-1) / root, sigma + SIGMA_FLOOR)


class NHitsForecaster(DeepForecaster):
    """Hierarchical interpolation of the coming bars' returns."""

    family: ClassVar[str] = "nhits"
    shape_type: ClassVar[type[DeepShape]] = NHitsShape
    net_type: ClassVar[type[DeepNet]] = NHitsNet
    passes_per_forward: ClassVar[int] = 1024

    @classmethod
    def learning_rate_factor(cls, settings: Settings) -> float:
        """Return what the common learning rate is multiplied by."""
        return settings.nhits.learning_rate_factor

    @classmethod
    def shape_from(cls, settings: Settings) -> NHitsShape:
        """Return the sizes of the network in ``settings``."""
        nhits = settings.nhits
        return NHitsShape(
            window=settings.features.window,
            horizon=settings.training.horizon,
            pooling=nhits.pooling,
            downsampling=nhits.downsampling,
            blocks=nhits.blocks,
            hidden=nhits.hidden,
            layers=nhits.layers,
        )


def interpolation(knots: int, bars: int) -> Tensor:
    """Return linear interpolation from knots to bars as a matrix, shape (knots, bars).

    A product with it has a gradient that is summed in a fixed order on every device.
    """
    return functional.interpolate(torch.eye(knots)[None], size=bars, mode="linear")[0]
