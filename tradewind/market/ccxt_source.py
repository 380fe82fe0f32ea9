"""Bars from an exchange through ccxt: public endpoints only, no keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from tradewind.errors import ErrorCode, TradewindError
from tradewind.market.ccxt_client import SPOT_EXCHANGES, CcxtClient, what_to_check
from tradewind.market.ccxt_pages import Row, has_holes, series_frame, series_holes, windows
from tradewind.market.schema import (
    BARS,
    FUNDING,
    LONG_SHORT_RATIO,
    OPEN_INTEREST,
    Columns,
    empty,
)
from tradewind.market.sources import SourceKind, unknown_symbol
from tradewind.settings import MS_PER_DAY, TIMEFRAME_MS, Settings

Market = Mapping[str, Any]
Ask = Callable[[int, int, int], Awaitable[list[Row]]]

SETS = {
    "binanceusdm": "binance_usdm_perp",
    "binance": "binance_spot",
    "bybit": "bybit_linear",
    "okx": "okx_swap",
}
DEFAULT_PAGE = 500
# Binance weighs a request by its limit: up to 499 rows cost 2, 500 to 1000 cost 5.
BAR_PAGES = {"binanceusdm": 499}
FUNDING_PAGES = {"binanceusdm": 1000, "bybit": 200}
FUNDING_PAGE = 100
HOUR_MS = TIMEFRAME_MS["1h"]  # no exchange settles funding more often
MINUTE_MS = TIMEFRAME_MS["1m"]
SETTLEMENT_DELAY_MS = 1000
MAX_REPAIRS = 20  # holes of one companion series asked for again


@dataclass(frozen=True)
class Positioning:
    """How an exchange gives open interest and account ratios, and how long it keeps them."""

    kept_days: int
    interest_page: int
    ratio_page: int
    ratio_periods: Mapping[str, str]


POSITIONING = {
    # Thirty days are kept; a request that begins a moment too early is refused whole.
    "binanceusdm": Positioning(29, 500, 500, {}),
    "bybit": Positioning(29, 200, 500, {"5m": "5min", "15m": "15min"}),
}
POSITIONING_PERIODS = {"1m": "5m", "8h": "4h"}  # those that exchanges have not


def set_of(exchange_id: str) -> str:
    """Return the set that an exchange's bars belong to."""
    return SETS.get(exchange_id, f"{exchange_id}_swap")


def resolve_symbol(markets: Mapping[str, Market], symbol: str, where: str) -> str:
    """Return ccxt's unified symbol of an exchange id such as BTCUSDT.

    The exchange's own id wins; otherwise (OKX writes BTC-USDT-SWAP) base and quote do.

    Raises
    ------
    TradewindError
        ``unknown_symbol``, naming ones that resemble it.
    """
    by_id = [name for name, market in markets.items() if market["id"] == symbol]
    by_pair = [name for name, market in markets.items() if _pair(market) == symbol]
    for name in (*by_id, *by_pair):
        return name
    raise unknown_symbol(symbol, {_pair(market) for market in markets.values()}, where)


def _pair(market: Market) -> str:
    return f"{market['base']}{market['quote']}"


class CcxtSource:
    """One exchange; all symbols share one client and its rate limiter.

    Parameters
    ----------
    settings
        Timeouts, retries, proxy and CA bundle are read from ``settings.market``.
    exchange_id
        ccxt's name of the exchange; the first of ``settings.market.exchanges`` by default.
    """

    kind: SourceKind = "ccxt"

    def __init__(self, settings: Settings, exchange_id: str | None = None) -> None:
        market = settings.market
        self.exchange_id = exchange_id or market.exchanges[0]
        self.set_id = set_of(self.exchange_id)
        self.name = f"{self.exchange_id} through ccxt"
        self._period = POSITIONING_PERIODS.get(market.timeframe, market.timeframe)
        self._client = CcxtClient(market, self.exchange_id)
        self._markets: dict[str, Market] = {}
        self._server_ms = -1

    async def connect(self) -> None:
        """Load the exchange's markets.

        Raises
        ------
        TradewindError
            ``exchange_unreachable``; the client is closed then.
        """
        if self._markets:
            return
        try:
            markets = await self._client.call(self._client.api.load_markets, connecting=True)
            self._markets = {
                name: market for name, market in markets.items() if self._is_ours(market)
            }
            if not self._markets:
                raise self._client.unreachable("it answered without any market of that kind")
        except BaseException:
            await self.close()
            raise

    async def fetch_bars(
        self, symbol: str, timeframe: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame:
        """Return bars that open in ``[since_ms, until_ms)`` and have closed by the exchange's time.

        A page that lacks bars, repeats them or is another's is asked for once more; what is
        missing then stays missing, for the caller to record.
        """
        await self.connect()
        unified = resolve_symbol(self._markets, symbol, self.name)
        step = TIMEFRAME_MS[timeframe]
        # The clocks may differ: a bar is closed when both ours and the exchange's say so.
        end_ms = min(until_ms, await self._server_time(until_ms) - step + 1)
        size = BAR_PAGES.get(self.exchange_id) or self._client.api.feature_value(
            unified, "fetchOHLCV", "limit", DEFAULT_PAGE
        )
        listed = self._markets[unified].get("created")
        pages: list[pl.DataFrame] = []
        for start, end in windows(since_ms, end_ms, size * step):
            pages.append(await self._bar_page(unified, timeframe, start, end))
            known = start if listed is None and any(page.height for page in pages[:-1]) else listed
            begin = pages[-1]["ts"].min() if known is None else max(start, known)
            if isinstance(begin, int) and has_holes(pages[-1], begin, end, step):
                pages.append(await self._bar_page(unified, timeframe, start, end))
        bars = pl.concat([empty(BARS), *pages]).unique(keep="last", maintain_order=True)
        return bars.filter(pl.col("ts").is_between(since_ms, end_ms - 1))

    async def fetch_funding(self, symbol: str, since_ms: int, until_ms: int) -> pl.DataFrame | None:
        """Return funding rates, or None where the exchange keeps no history of them."""
        await self.connect()
        api = self._client.api
        if not api.has.get("fetchFundingRateHistory"):
            return None
        unified = resolve_symbol(self._markets, symbol, self.name)

        async def ask(start: int, end: int, limit: int) -> list[Row]:
            # Exchanges stamp a settlement some milliseconds late; its time is the full minute.
            until = end + SETTLEMENT_DELAY_MS
            rows = await api.fetch_funding_rate_history(unified, start, limit, {"until": until})
            return [
                (round(row["timestamp"] / MINUTE_MS) * MINUTE_MS, float(row["fundingRate"]))
                for row in rows
            ]

        page = FUNDING_PAGES.get(self.exchange_id, FUNDING_PAGE)
        # The listing is told later than the first settlements at times: it says what to expect
        # and never what to ask for.
        listed = self._markets[unified].get("created") or 0
        return await self._series(ask, FUNDING, since_ms, until_ms, page, HOUR_MS, listed)

    async def fetch_open_interest(
        self, symbol: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame | None:
        """Return open interest of the last weeks, or None where the exchange has none."""
        await self.connect()
        positioning = POSITIONING.get(self.exchange_id)
        if positioning is None:
            return None
        unified, api = resolve_symbol(self._markets, symbol, self.name), self._client.api

        async def ask(start: int, end: int, limit: int) -> list[Row]:
            rows = await api.fetch_open_interest_history(
                unified, self._period, start, limit, {"until": end}
            )
            return [(row["timestamp"], float(row["openInterestAmount"])) for row in rows]

        since, until = await self._kept_span(since_ms, until_ms, positioning)
        step = TIMEFRAME_MS[self._period]
        page = positioning.interest_page
        return await self._series(ask, OPEN_INTEREST, since, until, page, step)

    async def fetch_long_short_ratio(
        self, symbol: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame | None:
        """Return long over short accounts of the last weeks, or None where there is none."""
        await self.connect()
        positioning = POSITIONING.get(self.exchange_id)
        if positioning is None:
            return None
        unified, api = resolve_symbol(self._markets, symbol, self.name), self._client.api
        renamed = positioning.ratio_periods.get(self._period)

        async def ask(start: int, end: int, limit: int) -> list[Row]:
            # ccxt passes neither a start nor Bybit's name of a period on; the parameters do.
            params = {
                "startTime": start,
                "endTime": end,
                **({"period": renamed} if renamed else {}),
            }
            rows = await api.fetch_long_short_ratio_history(
                unified, self._period, start, limit, params
            )
            return [(row["timestamp"], float(row["longShortRatio"])) for row in rows]

        since, until = await self._kept_span(since_ms, until_ms, positioning)
        step = TIMEFRAME_MS[self._period]
        page = positioning.ratio_page
        return await self._series(ask, LONG_SHORT_RATIO, since, until, page, step)

    async def symbols(self) -> tuple[str, ...]:
        """Return base and quote of every market of this set's kind."""
        await self.connect()
        return tuple(sorted({_pair(market) for market in self._markets.values()}))

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.close()

    def _is_ours(self, market: Market) -> bool:
        if self.exchange_id in SPOT_EXCHANGES:
            return bool(market["spot"])
        return bool(market["swap"] and market["linear"])

    async def _server_time(self, until_ms: int) -> int:
        """Return a time that the exchange's clock has reached; ours where it tells none."""
        if not self._client.api.has.get("fetchTime"):
            return until_ms
        if self._server_ms < until_ms:
            self._server_ms = await self._client.call(self._ask_time)
        return self._server_ms

    async def _ask_time(self) -> int:
        return int(await self._client.api.fetch_time())

    async def _kept_span(
        self, since_ms: int, until_ms: int, positioning: Positioning
    ) -> tuple[int, int]:
        """Return the part of a span that the exchange can still have, by its own clock."""
        now = await self._server_time(until_ms)
        return max(since_ms, now - positioning.kept_days * MS_PER_DAY), min(until_ms, now)

    async def _bar_page(self, unified: str, timeframe: str, start: int, end: int) -> pl.DataFrame:
        limit = -(-(end - start) // TIMEFRAME_MS[timeframe])

        async def ask() -> pl.DataFrame:
            rows = await self._client.api.fetch_ohlcv(
                unified, timeframe, start, limit, {"until": end - 1}
            )
            cut = [row[: len(BARS)] for row in rows]
            return pl.DataFrame(cut, schema=dict(BARS), orient="row", strict=False).filter(
                pl.col("ts").is_between(start, end - 1)
            )

        return await self._client.call(ask)

    async def _series(
        self,
        ask: Ask,
        columns: Columns,
        since_ms: int,
        until_ms: int,
        page: int,
        step: int,
        listed_ms: int = 0,
    ) -> pl.DataFrame:
        """Ask for a companion series page by page, and once more for what seems missing."""
        rows: list[Row] = []
        for start, end in windows(since_ms, until_ms + 1, page * step):
            rows += await self._client.call(ask, start, end - 1, page)
        found = series_frame(rows, columns, since_ms, until_ms)
        expected = max(since_ms, listed_ms)
        holes = series_holes(found, expected, until_ms)
        if found.is_empty() and expected <= until_ms:
            holes = [(max(expected, until_ms - page * step + 1), until_ms)]
        for start, end in holes[-MAX_REPAIRS:]:
            for first, after in windows(start, end + 1, page * step):
                rows += await self._client.call(ask, first, after - 1, page)
        return series_frame(rows, columns, since_ms, until_ms)


async def first_reachable(settings: Settings, exchange_ids: tuple[str, ...]) -> CcxtSource:
    """Connect to the first exchange, in this order, that answers.

    All are tried at once within ``connect_timeout_s``; a later one is taken only when every
    earlier one has failed or run out of time.

    Raises
    ------
    TradewindError
        ``exchange_unreachable``, with every exchange's reason.
    """
    sources = [CcxtSource(settings, exchange_id) for exchange_id in exchange_ids]
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.market.connect_timeout_s
    tasks = [asyncio.create_task(_connect_until(source, deadline)) for source in sources]
    reasons: list[str] = []
    chosen: CcxtSource | None = None
    try:
        for source, task in zip(sources, tasks, strict=True):
            failure = await task
            if failure is None:
                chosen = source
                return source
            reasons.append(failure)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(source.close() for source in sources if source is not chosen))
    raise TradewindError(
        ErrorCode.EXCHANGE_UNREACHABLE,
        f"none of the exchanges {', '.join(exchange_ids)} answers: {'; '.join(reasons)}",
        f"{what_to_check(settings.market)}, or point TRADEWIND_DATA at a folder of bars",
    )


async def _connect_until(source: CcxtSource, deadline: float) -> str | None:
    """Return None once connected, else why not."""
    try:
        async with asyncio.timeout_at(deadline):
            await source.connect()
    except TimeoutError:
        return f"exchange {source.exchange_id} did not answer in time"
    except TradewindError as error:
        return error.detail
    return None
