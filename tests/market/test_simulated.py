"""The made-up market behaves like one, and is the same every time."""

from __future__ import annotations

import asyncio

import numpy as np
import polars as pl
import pytest

from tradewind.errors import TradewindError
from tradewind.market.simulated import ORIGIN_MS, SimulatedSource

STEP = 900_000
N = 20_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


def bars(symbol: str, *, seed: int = 7, timeframe: str = "15m", n: int = N) -> pl.DataFrame:
    source = SimulatedSource(SYMBOLS, seed)
    return asyncio.run(source.fetch_bars(symbol, timeframe, ORIGIN_MS, ORIGIN_MS + n * STEP))


def returns(symbol: str) -> np.ndarray:
    return np.diff(np.log(bars(symbol)["close"].to_numpy()))


def test_bars_do_not_depend_on_how_far_the_market_was_generated() -> None:
    source = SimulatedSource(SYMBOLS, 7)

    async def fetch(until: int) -> pl.DataFrame:
        return await source.fetch_bars("BTCUSDT", "15m", ORIGIN_MS, until)

    short = asyncio.run(fetch(ORIGIN_MS + 500 * STEP))
    long = asyncio.run(fetch(ORIGIN_MS + 9000 * STEP))
    again = asyncio.run(fetch(ORIGIN_MS + 500 * STEP))
    assert short.equals(long.head(500))
    assert short.equals(again)


def test_another_seed_is_another_market() -> None:
    assert not bars("BTCUSDT", seed=8, n=100).equals(bars("BTCUSDT", n=100))


def test_longer_bars_are_made_of_shorter_ones() -> None:
    quarter, hour = bars("ETHUSDT", n=400), bars("ETHUSDT", timeframe="1h", n=400)
    grouped = quarter.group_by(pl.col("ts") // 3_600_000 * 3_600_000).agg(
        pl.col("high").max(), pl.col("close").last()
    )
    assert grouped.sort("ts").equals(hour.select("ts", "high", "close"))


def test_symbols_move_together_but_not_alike() -> None:
    correlation = np.corrcoef([returns(symbol) for symbol in SYMBOLS])
    above = correlation[np.triu_indices(3, 1)]
    assert above.min() > 0.3
    assert above.max() < 0.9


def test_volatility_clusters_and_returns_do_not() -> None:
    r = returns("BTCUSDT")
    squared = r**2
    lags = range(1, 21)
    clustering = np.mean([np.corrcoef(squared[lag:], squared[:-lag])[0, 1] for lag in lags])
    drift = np.mean([np.corrcoef(r[lag:], r[:-lag])[0, 1] for lag in lags])
    assert clustering > 0.08
    assert abs(drift) < 0.02
    kurtosis = np.mean((r - r.mean()) ** 4) / np.var(r) ** 2
    assert kurtosis > 3.5


def test_bars_shorter_than_its_finest_are_refused() -> None:
    with pytest.raises(TradewindError, match="5m or longer"):
        bars("BTCUSDT", timeframe="1m", n=10)
