"""A small world to serve from: stored bars, real fitted bundles, a registry with aliases."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from registry.tracking import Tracking
from registry.versions import RegisteredVersion, register_bundle
from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.contracts import registered_name
from tradewind.market.active import store_for
from tradewind.models.bundle import BundleMeta, ModelBundle
from tradewind.models.calibration import Calibrator
from tradewind.models.dataset import TrainingSet, build_training_set
from tradewind.models.families import create
from tradewind.models.reference import Reference
from tradewind.settings import MS_PER_DAY, Settings, load_settings

BARS = 1200
STEP_MS = 900_000
NOW_MS = START_MS + BARS * STEP_MS
SHORT_SYMBOL = "XRPUSDT"
SYMBOLS = ("BTCUSDT", "ETHUSDT", SHORT_SYMBOL)


def world_settings(home: Path, **overrides: Any) -> Settings:
    """Return settings of models and windows so small that everything fits in seconds."""
    sizes: dict[str, Any] = {
        "home": home,
        "data": None,
        "clock": "replay",
        "market": {"symbols": SYMBOLS, "reference_symbols": ("BTCUSDT", "ETHUSDT", "SOLUSDT")},
        "features": {"warmup_bars": 300, "window": 16, "ratio_window": 50},
        "training": {
            "bag": 2,
            "epochs": 1,
            "max_epoch_samples": 200,
            "days_back": 20,
        },
        "boosted": {"max_rounds": 20, "early_stopping_rounds": 10},
        "deep": {"d_model": 16, "heads": 2, "layers": 2, "feedforward": 32},
        "serving": {"poll_s": 0.2, "flush_s": 0.1, "gauges_s": 0.2, "reload_retry_s": 0.5},
    }
    return load_settings(**{**sizes, **overrides})


def store_bars(settings: Settings) -> None:
    """Store bars of the references in full, and too few of the short symbol."""
    store = store_for(settings)
    for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT", "SOLUSDT")):
        bars = random_walk_bars(BARS, seed=seed, price=100.0 * (seed + 1))
        store.write_bars(symbol, "15m", bars)
    store.write_bars(SHORT_SYMBOL, "15m", random_walk_bars(50, seed=9))


def training_set(settings: Settings) -> TrainingSet:
    """Return the labelled rows of the symbols that have enough bars."""
    return build_training_set(settings, store_for(settings), NOW_MS, symbols=("BTCUSDT", "ETHUSDT"))


def fit_bundle(
    settings: Settings, data: TrainingSet, family: str, key: str, seed: int
) -> ModelBundle:
    """Fit a small model with a known calibrator."""
    rows = data.samples
    half = len(rows) // 2
    train, rest = rows.subset(np.arange(half)), rows.subset(np.arange(half, len(rows)))
    forecaster = create(family, settings)
    report = forecaster.fit(train, rest, seed=seed)
    p_raw = forecaster.sample(rest, n_samples=2, seeds=np.arange(len(rest), dtype=np.int64)).p.mean(
        axis=0
    )
    meta = BundleMeta(
        family=family,
        key=key,
        symbols=("BTCUSDT", "ETHUSDT"),
        timeframe="15m",
        horizon=settings.training.horizon,
        window=settings.features.window,
        feature_version=data.feature_version,
        wide_names=rows.wide_names,
        data_fingerprint=data.data_fingerprint,
        train_start_ms=data.start_ms,
        train_end_ms=int(train.ts[-1]),
        data_end_ms=NOW_MS - 2 * MS_PER_DAY,
        seed=seed,
        epochs=report.epochs,
        created_ms=NOW_MS,
        skill=0.01,
        base_rate=0.5,
        metrics={"auc": 0.5},
        gates="passed",
    )
    reference = Reference.fit(rest.wide, rest.wide_names, p_raw)
    return ModelBundle(meta, forecaster, Calibrator("identity"), reference)


@dataclass
class World:
    """Where a test registers versions and moves aliases."""

    settings: Settings
    tracking: Tracking
    scratch: Path

    def register(self, bundle: ModelBundle) -> RegisteredVersion:
        """Register a bundle as a new version."""
        name = registered_name(bundle.meta.family, bundle.meta.key)
        folder = self.scratch / f"{name}-{len(list(self.scratch.iterdir()))}"
        bundle.save(folder)
        with self.tracking.start_run("train") as run:
            return register_bundle(
                self.tracking,
                folder,
                run_id=run.run_id,
                name=name,
                input_example={"scale": np.ones(2)},
                output_example={"p_up": np.full(2, 0.5)},
                tags={"gates": "passed"},
            )

    def point(self, version: RegisteredVersion, alias: str = "champion") -> None:
        """Move an alias, at once and without gates."""
        self.tracking.client.set_registered_model_alias(version.name, alias, str(version.version))


def reseeded(bundle: ModelBundle, *, skill: float | None = None, seed: int = 0) -> ModelBundle:
    """Return the same model under another identity."""
    changes: dict[str, Any] = {"seed": seed}
    if skill is not None:
        changes["skill"] = skill
    return dataclasses.replace(bundle, meta=bundle.meta.model_copy(update=changes))


def unloadable(bundle: ModelBundle) -> ModelBundle:
    """Return a bundle that saves and registers soundly, and that no one can load."""
    return dataclasses.replace(bundle, calibrator=Calibrator("wobbly"))
