"""A home with random-walk bars, small enough to be evaluated over in seconds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.clock import ManualClock
from tradewind.market.active import store_for
from tradewind.settings import Settings

SYMBOLS = ("BTCUSDT", "ETHUSDT")
REFERENCES = (*SYMBOLS, "SOLUSDT")
BARS = 2600
CLOCK = ManualClock(START_MS + BARS * 900_000)
SIZES: dict[str, Any] = {
    "market": {"symbols": SYMBOLS, "reference_symbols": REFERENCES},
    "features": {"warmup_bars": 300, "window": 16, "ratio_window": 50},
    "training": {"horizon": 4, "bootstrap_samples": 100, "families": ("lightgbm",)},
    "boosted": {"learning_rate": 0.1},
    "evaluation": {
        "since": date(2025, 1, 20),
        "refit_days": 4,
        "valid_days": 3,
        "calib_days": 5,
        "embargo_bars": 4,
        "stride": 4,
        "bag": 2,
        "max_rounds": 10,
        "overfitting_blocks": 4,
    },
}


def history_home(make: Callable[..., Settings], **overrides: Any) -> Settings:
    """Return settings of a home whose store has 27 days of bars of each symbol."""
    settings = make(**{**SIZES, **overrides})
    store = store_for(settings)
    for seed, symbol in enumerate(REFERENCES):
        store.write_bars(symbol, "15m", random_walk_bars(BARS, seed=seed))
    return settings
