"""Settings, markets and stores that the feature tests share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from tests.support.synthetic import START_MS, random_walk_market
from tradewind.market.store import BarStore
from tradewind.settings import Settings, load_settings

STEP = 900_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
SMALL = {"warmup_bars": 300, "window": 16, "ratio_window": 50}


def small_settings(**features: Any) -> Settings:
    """Return settings whose warm-up is short, so that a test needs few bars."""
    return load_settings(home=Path("unused"), data=None, features={**SMALL, **features})


def store_of(root: Path, bars: Mapping[str, pl.DataFrame]) -> BarStore:
    """Write ``bars`` to a fresh store below ``root``."""
    store = BarStore(root / "store", "binance_usdm_perp")
    for symbol, frame in bars.items():
        store.write_bars(symbol, "15m", frame)
    return store


def market(n: int, *, seed: int = 0) -> dict[str, pl.DataFrame]:
    """Return random-walk bars of the three reference symbols."""
    return random_walk_market(n, symbols=SYMBOLS, seed=seed)


def close_of(row: int) -> int:
    """Return when bar ``row`` of a synthetic market closes."""
    return START_MS + (row + 1) * STEP


def real_bars(root: Path, folder: str = "binance_usdm_perp_15m") -> dict[str, pl.DataFrame]:
    """Return the real bars of the three reference symbols."""
    timeframe = folder.rpartition("_")[2]
    return {s: pl.read_parquet(root / folder / f"{s}_{timeframe}.parquet") for s in SYMBOLS}
