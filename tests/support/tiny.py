"""Every family in a size that fits in a second."""

from __future__ import annotations

from tradewind.models.base import Forecaster


def tiny_forecaster(family: str) -> Forecaster:
    """Return an unfitted forecaster of ``family``, small enough for a test."""
    from tests.support.samples import NULLABLE

    if family == "lightgbm":
        from tradewind.models._lightgbm import BoosterSizes, LightGBMForecaster

        sizes = BoosterSizes(bag=3, max_rounds=60, learning_rate=0.1, early_stopping_rounds=10)
        return LightGBMForecaster(sizes, nullable=NULLABLE)
    if family == "transformer":
        from tradewind.models._transformer import TransformerForecaster
        from tradewind.models._transformer_fit import FitPlan
        from tradewind.models._transformer_net import NetShape

        shape = NetShape(d_model=16, heads=2, layers=2, feedforward=32)
        plan = FitPlan(epochs=6, batch_size=32, learning_rate=3e-3, max_epoch_samples=2000)
        return TransformerForecaster(shape, plan)
    raise AssertionError(f"give {family} a tiny size here")
