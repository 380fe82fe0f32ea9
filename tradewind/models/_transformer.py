"""The transformer family."""

from __future__ import annotations

from typing import ClassVar

from tradewind.models._deep import DeepForecaster
from tradewind.models._deep_net import DeepNet, DeepShape
from tradewind.models._transformer_net import NetShape, TransformerNet
from tradewind.settings import Settings


class TransformerForecaster(DeepForecaster):
    """Encoder over a window of bars, read at the last one."""

    family: ClassVar[str] = "transformer"
    shape_type: ClassVar[type[DeepShape]] = NetShape
    net_type: ClassVar[type[DeepNet]] = TransformerNet

    @classmethod
    def learning_rate_factor(cls, settings: Settings) -> float:
        """Return what the common learning rate is multiplied by."""
        return settings.deep.learning_rate_factor

    @classmethod
    def shape_from(cls, settings: Settings) -> NetShape:
        """Return the sizes of the network in ``settings``."""
        deep = settings.deep
        return NetShape(
            window=settings.features.window,
            d_model=deep.d_model,
            heads=deep.heads,
            layers=deep.layers,
            feedforward=deep.feedforward,
        )
