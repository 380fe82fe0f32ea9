"""Bundles of a few bytes and their names, for tests of the registry's mechanics."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np

from tradewind.files import write_bytes
from tradewind.models.base import FitReport, Forecaster, RawForecast
from tradewind.settings import Settings

NAME = "tradewind.lightgbm.BTCUSDT"
EXAMPLE = {"wide": np.zeros((2, 3)), "scale": np.ones(2)}
OUTPUT = {"p_up": np.full(2, 0.5), "mu": np.zeros(2)}


class TextForecaster(Forecaster):
    """Its weights are a line of text; it can be saved, and nothing else."""

    family = "lightgbm"

    def __init__(self, weights: str) -> None:
        self.weights = weights

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        raise AssertionError("a text has no sizes")

    def fit(self, *_: object, **__: object) -> FitReport:
        raise AssertionError("a text does not learn")

    def sample(self, *_: object, **__: object) -> RawForecast:
        raise AssertionError("a text does not predict")

    def save(self, folder: Path) -> None:
        write_bytes(folder / "model.txt", self.weights.encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls((folder / "model.txt").read_text())


def write_bundle(folder: Path, name: str = NAME, seed: int = 0) -> Path:
    """Write a sound bundle of a few bytes whose content depends on ``seed``."""
    from tradewind.models.bundle import BundleMeta, ModelBundle
    from tradewind.models.calibration import Calibrator
    from tradewind.models.reference import Reference

    _, family, key = name.split(".")
    meta = BundleMeta(
        family=family,
        key=key,
        symbols=("BTCUSDT", "ETHUSDT"),
        timeframe="15m",
        horizon=16,
        window=5,
        feature_version="f1",
        wide_names=("a",),
        data_fingerprint="abc",
        train_start_ms=1_700_000_000_000,
        train_end_ms=1_730_000_000_000,
        data_end_ms=1_735_689_600_000,
        seed=seed,
        epochs=3,
        created_ms=1_735_689_600_000,
        skill=0.002,
        base_rate=0.5,
        metrics={"auc": 0.54, "ece": 0.03},
        gates="unknown",
    )
    reference = Reference.fit(np.zeros((3, 1)), ("a",), np.full(3, 0.5))
    forecaster = TextForecaster(f"weights of seed {seed}")
    ModelBundle(meta, forecaster, Calibrator("identity"), reference).save(folder)
    return folder
