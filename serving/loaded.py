"""One loaded version of one registered model, and how it is fetched, loaded and warmed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from registry import versions
from registry.versions import RegisteredVersion
from serving.batching import ForwardBatcher
from serving.live_view import LiveView
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.samples import FeatureRow, rows_to_samples
from tradewind.models.bundle import ModelBundle, row_seeds
from tradewind.models.uncertainty import Forecast
from tradewind.settings import RangeSettings, Settings

if TYPE_CHECKING:
    from registry.tracking import Tracking


@dataclass(frozen=True)
class Item:
    """One row to predict, with the caller's seed where one was given."""

    row: FeatureRow
    seed: int | None = None


@dataclass(frozen=True)
class RowForecast:
    """One row of `tradewind.models.uncertainty.Forecast`, as plain numbers."""

    p_up: float
    mu: float
    epistemic: float
    aleatoric: float
    uncertainty: float
    epistemic_p: float
    confidence: float
    conviction: float
    passes: int
    mu_low: float | None = None
    mu_high: float | None = None
    out_of_range: tuple[str, ...] = ()
    elapsed_ms: float | None = None


APART = ("passes", "mu_low", "mu_high", "out_of_range", "elapsed_ms")
NUMBERS = tuple(item.name for item in fields(RowForecast) if item.name not in APART)
"""What every forecast has, a finite number a row."""


@dataclass(frozen=True)
class LoadedModel:
    """A version in memory; immutable, so a request that holds it is never mixed."""

    registered: RegisteredVersion
    bundle: ModelBundle
    batcher: ForwardBatcher[Item, RowForecast]
    loaded_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    @property
    def model_version(self) -> str:
        """Return ``{registered name}/{version}``."""
        return f"{self.registered.name}/{self.registered.version}"

    @property
    def skill(self) -> float:
        """Return the log-loss gain over the base rate, the member's weight in an ensemble."""
        return self.bundle.meta.skill

    @property
    def stochastic(self) -> bool:
        """Return whether its passes are Monte Carlo samples rather than a fixed bag."""
        return not self.bundle.forecaster.reads_wide

    @property
    def gates(self) -> str:
        """Return whether the version passed its release gates, as the registry says."""
        return self.registered.gates

    def forecast(self, items: Sequence[Item], n_samples: int) -> list[RowForecast]:
        """Return one forecast an item; concurrent callers share a forward."""
        return self.batcher.run(items, n_samples)


def load(
    settings: Settings, tracking: Tracking, view: LiveView, name: str, version: int
) -> LoadedModel:
    """Fetch, load and warm a version.

    Raises
    ------
    TradewindError
        ``model_unusable`` if it cannot be read or its warm-up answers are not finite;
        ``tracking_unreachable`` if it cannot be fetched.
    """
    registered = versions.get_version(tracking, name, version=version)
    folder = versions.fetch_bundle(
        tracking, name, version=version, cache_dir=settings.home / "serving" / "models"
    )
    bundle = load_bundle(folder)
    forward = Forward(bundle, f"{name}/{version}", settings.serving.ranges)
    batcher = ForwardBatcher(
        forward,
        max_passes=settings.serving.max_batch_passes,
        max_wait_s=settings.serving.max_wait_s,
    )
    model = LoadedModel(registered, bundle, batcher)
    warm(model, view, settings)
    return model


def load_bundle(folder: Path) -> ModelBundle:
    """Read a bundle from disk."""
    return ModelBundle.load(folder)


@dataclass(frozen=True)
class Forward:
    """The batched forward of one version: rows in, one `RowForecast` a row out."""

    bundle: ModelBundle
    model_version: str
    ranges: RangeSettings

    def __call__(self, items: Sequence[Item], n_samples: int) -> list[RowForecast]:
        """Predict all items in one forward of ``n_samples`` passes."""
        samples = rows_to_samples([item.row for item in items])
        seeds = row_seeds(self.model_version, samples)
        for position, item in enumerate(items):
            if item.seed is not None:
                seeds[position] = item.seed
        forecast = self.bundle.predict(
            samples,
            n_samples=n_samples,
            seeds=seeds,
            feature_version=items[0].row.feature_version,
        )
        table = np.column_stack([getattr(forecast, name) for name in NUMBERS])
        if not np.isfinite(table).all():
            raise TradewindError(
                ErrorCode.MODEL_UNUSABLE,
                f"{self.model_version} answers with NaN or Inf",
                "Roll back with the job `rollback`, or train again",
            )
        outside = self.bundle.out_of_range(samples, self.ranges)
        rows = zip(table.tolist(), _intervals(forecast), outside, strict=True)
        return [
            RowForecast(
                **dict(zip(NUMBERS, numbers, strict=True)),
                **interval,
                passes=forecast.passes,
                out_of_range=names,
            )
            for numbers, interval, names in rows
        ]


def _intervals(forecast: Forecast) -> list[dict[str, float]]:
    """Return the bounds of each row, empty where the version keeps no interval."""
    if forecast.mu_low is None or forecast.mu_high is None:
        return [{}] * len(forecast.mu)
    pairs = zip(forecast.mu_low.tolist(), forecast.mu_high.tolist(), strict=True)
    return [{"mu_low": low, "mu_high": high} for low, high in pairs]


def warm(model: LoadedModel, view: LiveView, settings: Settings) -> None:
    """Run one forward on a present row, so that the first request pays for nothing.

    Where no symbol of the model has enough bars yet there is nothing to warm it with.
    """
    for symbol in model.bundle.meta.symbols:
        if symbol not in settings.market.symbols:
            continue
        try:
            row = view.latest(symbol)
        except TradewindError:  # that symbol has no features now, as its requests will say
            continue
        model.forecast([Item(row)], settings.serving.n_samples)
        return
