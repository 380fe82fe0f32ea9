"""Every family in a size that fits in a second."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.samples import WINDOW
from tradewind.models.base import Forecaster
from tradewind.models.families import create
from tradewind.settings import Settings

TINY: Mapping[str, Mapping[str, object]] = {
    "features": {"window": WINDOW},
    "training": {
        "bag": 3,
        "epochs": 6,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "max_epoch_samples": 2000,
    },
    "boosted": {
        "max_rounds": 60,
        "learning_rate": 0.1,
        "early_stopping_rounds": 10,
        "min_rounds": 1,
    },
    "deep": {
        **{"d_model": 16, "heads": 2, "layers": 2, "feedforward": 32},
        "learning_rate_factor": 1,
    },
    "nhits": {"pooling": (4, 1), "downsampling": (8, 1), "hidden": 32, "learning_rate_factor": 1},
    "patchtst": {
        **{"patch": 4, "stride": 2},
        **{"d_model": 16, "heads": 2, "layers": 2, "feedforward": 32},
        "learning_rate_factor": 0.3,
    },
    "gru": {"hidden": 16, "learning_rate_factor": 1},
}
"""Sizes by section of the settings; a new family's section gets its own line here."""


def tiny_forecaster(family: str, **sections: Mapping[str, object]) -> Forecaster:
    """Return an unfitted forecaster of ``family``, small enough for a test.

    ``sections`` replace single settings of the tiny ones.
    """
    sizes = {name: {**TINY.get(name, {}), **sections.get(name, {})} for name in {*TINY, *sections}}
    return create(family, Settings(**sizes))  # type: ignore[arg-type]
