"""Every family in a size that fits in a second."""

from __future__ import annotations

from tests.support.samples import WINDOW
from tradewind.models.base import Forecaster
from tradewind.models.families import create
from tradewind.settings import Settings

TINY_DEEP = {
    "nhits": {"pooling": (4, 1), "downsampling": (8, 1), "hidden": 32},
    "patchtst": {
        "patch": 4,
        "stride": 2,
        "d_model": 16,
        "heads": 2,
        "layers": 2,
        "feedforward": 32,
    },
    "gru": {"hidden": 16},
}


def tiny_forecaster(family: str) -> Forecaster:
    """Return an unfitted forecaster of ``family``, small enough for a test."""
    from tests.support.samples import NULLABLE

    if family == "lightgbm":
        from tradewind.models._lightgbm import BoosterSizes, LightGBMForecaster

        sizes = BoosterSizes(bag=3, max_rounds=60, learning_rate=0.1, early_stopping_rounds=10)
        return LightGBMForecaster(sizes, nullable=NULLABLE)
    if family == "transformer":
        from tradewind.models._deep_fit import FitPlan
        from tradewind.models._transformer import TransformerForecaster
        from tradewind.models._transformer_net import NetShape

        shape = NetShape(d_model=16, heads=2, layers=2, feedforward=32)
        plan = FitPlan(epochs=6, batch_size=32, learning_rate=3e-3, max_epoch_samples=2000)
        return TransformerForecaster(shape, plan)
    if family in TINY_DEEP:
        training = {"epochs": 6, "batch_size": 32, "learning_rate": 3e-3}
        sizes = {family: TINY_DEEP[family], "training": {**training, "max_epoch_samples": 2000}}
        return create(family, Settings(features={"window": WINDOW}, **sizes))  # type: ignore[arg-type]
    raise AssertionError(f"give {family} a tiny size here")
