"""A made-up market, always named as such: for a machine with neither data nor network.

One common shock moves all symbols; its volatility switches between three regimes and
clusters as in a GARCH(1,1). Everything follows from the seed and a fixed origin, so a bar
is the same whatever range it is asked in. Nothing learnt from it says anything about a
real market.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from tradewind.errors import ErrorCode, TradewindError
from tradewind.market.schema import BARS, empty
from tradewind.market.sets import SIMULATED_SET
from tradewind.market.sources import SourceKind, unknown_symbol
from tradewind.settings import MS_PER_DAY, TIMEFRAME_MS

Array = npt.NDArray[np.float64]

ORIGIN_MS = 1_640_995_200_000  # 2022-01-01T00:00Z
BASE_STEP_MS = TIMEFRAME_MS["5m"]  # longer bars are made of these, so timeframes agree
CHUNK_STEPS = 30 * MS_PER_DAY // BASE_STEP_MS
FUNDING_STEP_MS = TIMEFRAME_MS["8h"]
DAILY_VOLATILITY = 0.025
REGIME_SCALES = np.array([0.6, 1.0, 1.9])
REGIME_SWITCH = BASE_STEP_MS / (2 * MS_PER_DAY)  # a regime lasts two days on average
ARCH, GARCH = 0.05, 0.94
MAX_VARIANCE = 25.0  # of the clustering factor, whose mean is one
CORRELATION = 0.75
PRICES = {"BTCUSDT": 60_000.0, "ETHUSDT": 3_000.0, "SOLUSDT": 150.0}


class SimulatedSource:
    """Deterministic bars and funding of the given symbols.

    Parameters
    ----------
    symbols
        Symbols that this market has.
    seed
        Another seed is another market.
    """

    kind: SourceKind = "simulated"
    set_id = SIMULATED_SET

    def __init__(self, symbols: Sequence[str], seed: int) -> None:
        self.name = f"simulated market (seed {seed}; NOT real prices)"
        self._symbols = tuple(sorted(set(symbols)))
        self._seed = seed
        self._cache: dict[str, tuple[int, pl.DataFrame]] = {}

    async def fetch_bars(
        self, symbol: str, timeframe: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame:
        """Return bars that open in ``[since_ms, until_ms)``, from 2022 on.

        Raises
        ------
        TradewindError
            ``unknown_symbol``; ``bad_input`` for bars shorter than five minutes.
        """
        step = TIMEFRAME_MS[timeframe]
        if step < BASE_STEP_MS:
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"timeframe = {timeframe!r}: the simulated market has no bars below 5m",
                "Choose TRADEWIND_MARKET__TIMEFRAME=5m or longer",
            )
        first = max(since_ms, ORIGIN_MS)
        if until_ms <= first:
            return empty(BARS)
        base = self._base(symbol, until_ms + step)
        return _resample(base.filter(pl.col("ts") >= first // step * step), step).filter(
            (pl.col("ts") >= first) & (pl.col("ts") < until_ms)
        )

    async def fetch_funding(self, symbol: str, since_ms: int, until_ms: int) -> pl.DataFrame | None:
        """Return the funding rate every 8 hours: a premium around 0.01 %."""
        first = -(-max(since_ms, ORIGIN_MS) // FUNDING_STEP_MS) * FUNDING_STEP_MS
        self._check(symbol)
        n = max(0, (until_ms - ORIGIN_MS) // FUNDING_STEP_MS + 1)
        noise = _rng(self._seed, symbol, "funding").normal(0, 1e-4, n)
        rates = pl.DataFrame(
            {
                "ts": ORIGIN_MS + np.arange(n, dtype=np.int64) * FUNDING_STEP_MS,
                "funding_rate": np.clip(1e-4 + noise, -7.5e-4, 7.5e-4).round(8),
            }
        )
        return rates.filter(pl.col("ts") >= first)

    async def fetch_open_interest(
        self, symbol: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame | None:
        """Return None: nobody holds positions in a made-up market."""
        self._check(symbol)
        return None

    async def fetch_long_short_ratio(
        self, symbol: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame | None:
        """Return None, as `fetch_open_interest`."""
        self._check(symbol)
        return None

    async def symbols(self) -> tuple[str, ...]:
        """Return the symbols that this market has."""
        return self._symbols

    async def close(self) -> None:
        """Forget what was generated."""
        self._cache.clear()

    def _check(self, symbol: str) -> None:
        if symbol not in self._symbols:
            raise unknown_symbol(symbol, self._symbols, self.name)

    def _base(self, symbol: str, until_ms: int) -> pl.DataFrame:
        self._check(symbol)
        chunks = -(-(until_ms - ORIGIN_MS) // (CHUNK_STEPS * BASE_STEP_MS))
        known = self._cache.get(symbol)
        if known is None or known[0] < chunks:
            known = (chunks, _generate(self._seed, symbol, chunks * CHUNK_STEPS))
            self._cache[symbol] = known
        return known[1]


def _rng(seed: int, *parts: str) -> np.random.Generator:
    """Return a stream of its own for each purpose, so that none shifts another."""
    text = "/".join((str(seed), *parts)).encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8]))


def _volatility(seed: int, shocks: Array) -> Array:
    """Return volatility per step: regime scale times a GARCH(1,1) factor of mean one."""
    n = shocks.size
    switches = _rng(seed, "switch").random(n) < REGIME_SWITCH
    states = _rng(seed, "state").integers(0, REGIME_SCALES.size, n)
    switches[0] = True
    since = np.maximum.accumulate(np.where(switches, np.arange(n), 0))
    variance, factor = 1.0, np.empty(n)
    for i, squared in enumerate((shocks**2).tolist()):
        factor[i] = variance
        grown = (1 - ARCH - GARCH) + variance * (ARCH * squared + GARCH)
        variance = min(grown, MAX_VARIANCE)
    per_step = DAILY_VOLATILITY * np.sqrt(BASE_STEP_MS / MS_PER_DAY)
    scaled: Array = per_step * REGIME_SCALES[states[since]] * np.sqrt(factor)
    return scaled


def _generate(seed: int, symbol: str, n: int) -> pl.DataFrame:
    common = _rng(seed, "market").standard_normal(n)
    own = _rng(seed, symbol, "own").standard_normal(n)
    volatility = _volatility(seed, common) * _rng(seed, symbol, "beta").uniform(0.9, 1.4)
    shocks = CORRELATION * common + np.sqrt(1 - CORRELATION**2) * own
    start = PRICES.get(symbol, float(_rng(seed, symbol, "price").uniform(1, 100)))
    path = np.cumsum(volatility * shocks - volatility**2 / 2)
    close = start * np.exp(path)
    open_ = np.concatenate([[start], close[:-1]])
    wicks = np.abs(_rng(seed, symbol, "wicks").normal(0, 0.5, (n, 2))) * volatility[:, None]
    return pl.DataFrame(
        {
            "ts": ORIGIN_MS + np.arange(n, dtype=np.int64) * BASE_STEP_MS,
            "open": open_,
            "high": np.maximum(open_, close) * np.exp(wicks[:, 0]),
            "low": np.minimum(open_, close) * np.exp(-wicks[:, 1]),
            "close": close,
            "volume": _rng(seed, symbol, "volume").lognormal(3, 0.5, n) * volatility * 1e3,
        }
    )


def _resample(base: pl.DataFrame, step: int) -> pl.DataFrame:
    ts = pl.col("ts")
    return (
        base.group_by((ts // step * step).alias("ts"), maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
        .sort("ts")
    )
