"""What one exchange knows, and the two types its handlers speak."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tradewind.market.schema import BARS, FUNDING, LONG_SHORT_RATIO, OPEN_INTEREST, empty
from tradewind.market.sources import BarSource
from tradewind.settings import MS_PER_DAY, TIMEFRAME_MS

POSITIONING_DAYS = 30  # how long exchanges keep open interest and account ratios
PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class Answer:
    """One response: a JSON body and a status."""

    body: Any
    status: int = 200


@dataclass
class ExchangeState:
    """Market data behind a clock. The trading half keeps its accounts beside them.

    Parameters
    ----------
    source
        Where bars and companion series come from; its rows are given out as they are.
    timeframe
        A timeframe that ``source`` has, to find a symbol's first bar.
    clock
        The exchange's own time in ms: nothing later is given out.
    """

    source: BarSource
    timeframe: str
    clock: Callable[[], int]
    _listed: dict[str, int] = field(default_factory=dict)

    def now_ms(self) -> int:
        """Return the exchange's time."""
        return self.clock()

    async def bars(self, symbol: str, timeframe: str, since_ms: int, until_ms: int) -> pl.DataFrame:
        """Return bars that open in ``[since_ms, until_ms]``; the open one is unfinished.

        Raises
        ------
        TradewindError
            ``unknown_symbol``, or ``no_bars`` for a timeframe that there is none of.
        """
        now = self.now_ms()
        if since_ms > min(until_ms, now):
            return empty(BARS)
        found = await self.source.fetch_bars(symbol, timeframe, since_ms, min(until_ms, now) + 1)
        return _unfinished(found, TIMEFRAME_MS[timeframe], now)

    async def funding(self, symbol: str, since_ms: int, until_ms: int) -> pl.DataFrame:
        """Return funding rates in ``[since_ms, until_ms]`` that are settled by now."""
        until = min(until_ms, self.now_ms())
        found = await self.source.fetch_funding(symbol, since_ms, until)
        return empty(FUNDING) if found is None else found

    async def open_interest(self, symbol: str, since_ms: int, until_ms: int) -> pl.DataFrame:
        """Return open interest in ``[since_ms, until_ms]`` known by now, of the last 30 days."""
        since, until = self._kept(since_ms), min(until_ms, self.now_ms())
        found = await self.source.fetch_open_interest(symbol, since, until)
        return empty(OPEN_INTEREST) if found is None else found

    async def long_short_ratio(self, symbol: str, since_ms: int, until_ms: int) -> pl.DataFrame:
        """Return account ratios in ``[since_ms, until_ms]`` known by now, of the last 30 days."""
        since, until = self._kept(since_ms), min(until_ms, self.now_ms())
        found = await self.source.fetch_long_short_ratio(symbol, since, until)
        return empty(LONG_SHORT_RATIO) if found is None else found

    async def listed_ms(self, symbol: str) -> int:
        """Return when trading of a symbol began: its first bar; now where there is none yet."""
        if symbol not in self._listed:
            now = self.now_ms()
            bars = await self.source.fetch_bars(symbol, self.timeframe, 0, now + 1)
            first = bars["ts"].min()
            if not isinstance(first, int):
                return now
            self._listed[symbol] = first
        return self._listed[symbol]

    def too_old(self, since_ms: int) -> bool:
        """Return whether positioning data from ``since_ms`` on is no longer kept."""
        return since_ms < self.now_ms() - POSITIONING_DAYS * MS_PER_DAY

    def _kept(self, since_ms: int) -> int:
        return max(since_ms, self.now_ms() - POSITIONING_DAYS * MS_PER_DAY)


Handler = Callable[[ExchangeState, Mapping[str, str]], Awaitable[Answer]]


@dataclass(frozen=True)
class Dialect:
    """How one exchange speaks.

    Parameters
    ----------
    host
        The host name that ccxt asks for.
    routes
        Handlers by method and path, such as ``GET /fapi/v1/klines``.
    rows
        Finds the list of rows in a body, or None where there is none.
    refusal
        Makes the exchange's own body of an error from a status.
    """

    host: str
    routes: Mapping[str, Handler]
    rows: Callable[[Any], list[Any] | None]
    refusal: Callable[[int], Any]


def number(value: float) -> str:
    """Return the shortest text that reads back as the same number."""
    return repr(value)


def pair_of(symbol: str) -> tuple[str, str]:
    """Return base and quote of an exchange id such as BTCUSDT."""
    for quote in ("USDT", "USDC"):
        if symbol.endswith(quote) and symbol != quote:
            return symbol.removesuffix(quote), quote
    return symbol[:-4], symbol[-4:]


def _unfinished(bars: pl.DataFrame, step: int, now_ms: int) -> pl.DataFrame:
    """Return bars whose open one has moved only as far as its time has: not its final values."""
    share = (now_ms - pl.col("ts")) / step
    is_open = (pl.col("ts") <= now_ms) & (pl.col("ts") + step > now_ms)
    opening = pl.col("open")
    moved = [(opening + share * (pl.col(name) - opening)).alias(name) for name in PRICES]
    moving = [*moved, (share * pl.col("volume")).alias("volume")]
    return bars.with_columns(
        pl.when(is_open)
        .then(new)
        .otherwise(pl.col(new.meta.output_name()))
        .alias(new.meta.output_name())
        for new in moving
    )
