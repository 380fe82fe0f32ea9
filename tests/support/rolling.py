"""A small history to walk over: planted rows of two symbols, and settings of a size to match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

from tests.support.samples import planted_samples
from tests.support.synthetic import START_MS
from tradewind.models.dataset import TrainingSet
from tradewind.settings import TIMEFRAME_MS, Settings

BARS_A_DAY = 96
DAYS = 40
SINCE = date(2025, 1, 25)
"""Of rows that begin on 2025-01-01."""
NAMES = ("ret_1", "x1", "x2", "x3", "funding_rate")


def rolling_settings(make: Callable[..., Settings], **evaluation: object) -> Settings:
    """Return settings under which forty days make a few folds of seconds."""
    sizes = {
        "since": SINCE,
        "refit_days": 5,
        "deep_refit_months": 1,
        "valid_days": 4,
        "calib_days": 6,
        "embargo_bars": 4,
        "stride": 4,
        "bag": 2,
        "max_rounds": 15,
        "epochs": 1,
        "max_epoch_samples": 200,
        "passes": 2,
        "overfitting_blocks": 4,
    }
    return make(
        training={"horizon": 4, "bootstrap_samples": 100, "seed": 3, "batch_size": 8},
        boosted={"learning_rate": 0.1},
        deep={
            **{"d_model": 8, "heads": 2, "layers": 2, "feedforward": 16, "validation_rows": 50},
            "learning_rate_factor": 10,  # one short epoch has to move it off the base rate
        },
        features={"window": 8},
        evaluation={**sizes, **evaluation},
    )


def planted_history(*, strength: float = 0.4, days: int = DAYS, seed: int = 0) -> TrainingSet:
    """Return ``days`` days of rows whose first feature foretells the return to a degree."""
    samples = planted_samples(days * BARS_A_DAY, strength=strength, seed=seed)
    samples = replace(samples, wide_names=NAMES)
    end_ms = START_MS + (days * BARS_A_DAY + 5) * TIMEFRAME_MS["15m"]
    return TrainingSet(samples, "planted", "planted", START_MS, end_ms, "15m", 4)
