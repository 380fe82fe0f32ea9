"""The GRU family: the direction like every family, and P(reversion) for the grid.

The label of the reversion is `tradewind.features.reversion`. The family votes in no ensemble.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models._deep import DeepForecaster, probability
from tradewind.models._deep_fit import Trainer
from tradewind.models._deep_net import DeepNet, DeepShape, Heads, read_heads
from tradewind.models._mc_dropout import Dropout
from tradewind.models.base import FloatArray, IntArray, Samples
from tradewind.settings import Settings


@dataclass(frozen=True)
class GRUShape(DeepShape):
    """Sizes of the GRU."""

    hidden: int = 64
    layers: int = 2

    @property
    def sites(self) -> int:
        """Return how many places drop units: after each recurrent layer, and before the heads."""
        return self.layers + 1

    @property
    def longest_mask(self) -> int:
        """Return the most mask values that one pass over one window needs at one site."""
        return self.hidden


class GRUNet(DeepNet):
    """Recurrent layers, a hidden layer on the last state and the last bar, four heads.

    The last bar goes past the recurrent layers too: how far the price stands from its mean is one
    of its features, and what a reversion depends on most. A unit that drops between two recurrent
    layers drops at all bars (Gal and Ghahramani 2016).
    """

    learns_reversion: ClassVar[bool] = True

    def __init__(self, shape: GRUShape) -> None:
        super().__init__(shape)
        self.layers = nn.ModuleList(
            nn.GRU(size, shape.hidden, batch_first=True)
            for size in (shape.inputs, *[shape.hidden] * (shape.layers - 1))
        )
        self.mix = nn.Linear(shape.hidden + shape.inputs, shape.hidden)
        self.heads = nn.Linear(shape.hidden, 4)

    def forward(self, windows: Tensor, dropout: Dropout) -> Heads:
        """Return the heads at the last bar."""
        x = windows
        *inner, last = self.layers
        for site, layer in enumerate(inner):
            x = dropout.steps(layer(x)[0], site)
        state = dropout.hidden(last(x)[0][:, -1], len(inner))
        known = torch.cat([state, dropout.spread(windows[:, -1])], dim=1)
        mixed = dropout.hidden(functional.relu(self.mix(known)), len(inner) + 1)
        return read_heads(self.heads(mixed))


class GRUForecaster(DeepForecaster):
    """Recurrent network with a head for the mean-reversion grid."""

    family: ClassVar[str] = "gru"
    shape_type: ClassVar[type[DeepShape]] = GRUShape
    net_type: ClassVar[type[DeepNet]] = GRUNet
    passes_per_forward: ClassVar[int] = 256

    @classmethod
    def learning_rate_factor(cls, settings: Settings) -> float:
        """Return what the common learning rate is multiplied by."""
        return settings.gru.learning_rate_factor

    @classmethod
    def shape_from(cls, settings: Settings) -> GRUShape:
        """Return the sizes of the network in ``settings``."""
        return GRUShape(
            window=settings.features.window,
            hidden=settings.gru.hidden,
            layers=settings.gru.layers,
        )

    def trainer(
        self, train: Samples, valid: Samples, *, seed: int, checkpoint_dir: Path | None = None
    ) -> Trainer:
        """Return what trains; epochs also tell valid_reversion_loss, a mean over ALL rows.

        Raises
        ------
        TradewindError
            ``bad_input`` for samples without the reversion label.
        """
        for name, part in (("train", train), ("valid", valid)):
            if part.reverted is None:
                raise TradewindError(
                    ErrorCode.BAD_INPUT,
                    f"the {name} slice has no reverted label, which the gru learns",
                    "Build the training set again: delete its folder, launch the retraining",
                )
        return super().trainer(train, valid, seed=seed, checkpoint_dir=checkpoint_dir)

    def reversion(self, samples: Samples, *, n_samples: int, seeds: IntArray) -> FloatArray:
        """Return uncalibrated P(reversion) of every pass, in (0, 1), shape (S, n).

        The same masks as in `sample`: pass for pass one network says both.
        """
        return probability(self._passes(samples, n_samples, seeds)[3])
