"""Small synthetic bars and samples, for tests of mechanics (never for figures)."""

from __future__ import annotations

import numpy as np
import polars as pl

from tradewind.settings import TIMEFRAME_MS

START_MS = 1_735_689_600_000  # 2025-01-01T00:00Z


def random_walk_bars(
    n: int, *, seed: int = 0, price: float = 100.0, timeframe: str = "15m", start_ms: int = START_MS
) -> pl.DataFrame:
    """Return ``n`` closed bars of a driftless random walk (ts, open, high, low, close, volume)."""
    rng = np.random.default_rng(seed)
    close = price * np.exp(np.cumsum(rng.normal(0, 0.002, n)))
    open_ = np.concatenate([[price], close[:-1]])
    spread = np.abs(rng.normal(0, 0.001, n)) * close
    return pl.DataFrame(
        {
            "ts": start_ms + np.arange(n, dtype=np.int64) * TIMEFRAME_MS[timeframe],
            "open": open_,
            "high": np.maximum(open_, close) + spread,
            "low": np.minimum(open_, close) - spread,
            "close": close,
            "volume": rng.lognormal(3, 1, n),
        }
    )


def random_walk_market(
    n: int, *, symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "SOLUSDT"), seed: int = 0
) -> dict[str, pl.DataFrame]:
    """Return independent random-walk bars per symbol on one time grid."""
    return {
        symbol: random_walk_bars(n, seed=seed + i, price=100.0 * (i + 1))
        for i, symbol in enumerate(symbols)
    }
