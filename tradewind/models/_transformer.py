"""The transformer family."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Self

from tradewind.models._deep import DeepForecaster
from tradewind.models._deep_net import DeepNet, DeepShape
from tradewind.models._transformer_net import NetShape, TransformerNet
from tradewind.settings import Settings


class TransformerForecaster(DeepForecaster):
    """Encoder over a window of bars, read at the last one."""

    family: ClassVar[str] = "transformer"
    shape_type: ClassVar[type[DeepShape]] = NetShape
    net_type: ClassVar[type[DeepNet]] = TransformerNet
    passes_per_forward: ClassVar[int] = 32
    last_layer_passes: ClassVar[int] = 1024
    """As ``passes_per_forward``, where only the last layer drops: a pass is one bar's token."""

    @classmethod
    def learning_rate_factor(cls, settings: Settings) -> float:
        """Return what the common learning rate is multiplied by."""
        return settings.deep.learning_rate_factor

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return an unfitted transformer; which layers drop in its passes is kept with it."""
        forecaster = super().from_settings(settings)
        if settings.deep.mc_dropout == "last":
            site = cls.shape_from(settings).last_layer_site
            forecaster.masks = replace(forecaster.masks, first_site=site)
        return forecaster

    @property
    def most_passes(self) -> int:
        """Return the most rows × passes of one forward."""
        return self.last_layer_passes if self.masks.first_site else self.passes_per_forward

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
