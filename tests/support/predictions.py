"""A valid prediction to start from."""

from __future__ import annotations

from typing import Any

from tests.support.synthetic import START_MS
from tradewind.contracts import Prediction, Signal


def prediction(**changes: Any) -> Prediction:
    """Return a plausible prediction with some fields changed."""
    fields: dict[str, Any] = {
        "symbol": "BTCUSDT",
        "model_type": "lightgbm",
        "p_up": 0.56,
        "mu": 0.001,
        "uncertainty": 0.005,
        "epistemic": 0.003,
        "aleatoric": 0.004,
        "epistemic_p": 0.01,
        "confidence": 0.12,
        "conviction": 0.7,
        "signal": Signal.ENTRY_LONG,
        "model_version": "tradewind.lightgbm.BTCUSDT/1",
        "bar_ts": START_MS,
        "staleness_s": 0.0,
    }
    return Prediction(**{**fields, **changes})
