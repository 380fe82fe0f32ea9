"""Bars from an exchange through ccxt: public endpoints only, no keys.

The exchange's own URLs are kept, since ccxt chooses its error classes by them; a proxy and
a CA bundle from the settings decide where requests really go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import polars as pl
import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from tradewind.errors import ErrorCode, TradewindError
from tradewind.market.schema import BARS, FUNDING, empty
from tradewind.market.sources import SourceKind, unknown_symbol
from tradewind.settings import TIMEFRAME_MS, Settings

T = TypeVar("T")
Market = Mapping[str, Any]
log = structlog.get_logger(__name__)

SETS = {
    "binanceusdm": "binance_usdm_perp",
    "binance": "binance_spot",
    "bybit": "bybit_linear",
    "okx": "okx_swap",
}
SPOT_EXCHANGES = ("binance",)
# What ccxt has to load of an exchange; all of its markets would take seconds more.
MARKET_TYPES = {
    "binanceusdm": ["linear"],
    "binance": ["spot"],
    "bybit": ["linear"],
    "okx": ["swap"],
}
DEFAULT_PAGE = 500
FUNDING_PAGE = 100
HOUR_MS = TIMEFRAME_MS["1h"]  # no exchange settles funding more often
MINUTE_MS = TIMEFRAME_MS["1m"]
ERROR_TEXT = 200


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
        self._market = market
        self._client = _client(settings, self.exchange_id)
        self._markets: dict[str, Market] = {}

    async def connect(self, *, retry: bool = True) -> None:
        """Load the exchange's markets.

        Raises
        ------
        TradewindError
            ``exchange_unreachable``; the client is closed then.
        """
        if self._markets:
            return
        try:
            markets = await self._call(self._client.load_markets, retry=retry)
            self._markets = {
                name: market for name, market in markets.items() if self._is_ours(market)
            }
            if not self._markets:
                raise self._unreachable("it answered without any market of that kind")
        except BaseException:
            await self.close()
            raise

    async def fetch_bars(
        self, symbol: str, timeframe: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame:
        """Return bars that open in ``[since_ms, until_ms)``, page by page.

        Pages are windows of time, so an outage longer than a page cannot end the download.
        """
        await self.connect()
        unified = resolve_symbol(self._markets, symbol, self.name)
        step = TIMEFRAME_MS[timeframe]
        limit = self._client.feature_value(unified, "fetchOHLCV", "limit", DEFAULT_PAGE)
        rows: list[list[Any]] = []
        for start in range(since_ms, until_ms, limit * step):
            end = min(start + limit * step, until_ms)
            rows += await self._call(
                self._client.fetch_ohlcv, unified, timeframe, start, limit, {"until": end - 1}
            )
        bars = pl.DataFrame(
            [row[: len(BARS)] for row in rows], schema=dict(BARS), orient="row", strict=False
        )
        inside = (pl.col("ts") >= since_ms) & (pl.col("ts") < until_ms)
        return bars.filter(inside | pl.col("ts").is_null())

    async def fetch_funding(self, symbol: str, since_ms: int, until_ms: int) -> pl.DataFrame | None:
        """Return funding rates, or None where the exchange keeps no history of them."""
        await self.connect()
        if not self._client.has.get("fetchFundingRateHistory"):
            return None
        unified = resolve_symbol(self._markets, symbol, self.name)
        rows: list[dict[str, Any]] = []
        for start in range(since_ms, until_ms + 1, FUNDING_PAGE * HOUR_MS):
            end = min(start + FUNDING_PAGE * HOUR_MS - 1, until_ms)
            rows += await self._call(
                self._client.fetch_funding_rate_history,
                unified,
                start,
                FUNDING_PAGE,
                {"until": end},
            )
        if not rows:
            return empty(FUNDING)
        # Exchanges stamp a settlement some milliseconds late; its time is the full minute.
        return pl.DataFrame(
            {
                "ts": [round(row["timestamp"] / MINUTE_MS) * MINUTE_MS for row in rows],
                "funding_rate": [row["fundingRate"] for row in rows],
            },
            schema=dict(FUNDING),
        ).filter(pl.col("ts").is_between(since_ms, until_ms))

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

    async def _call(
        self, function: Callable[..., Awaitable[T]], *args: object, retry: bool = True
    ) -> T:
        """Call ccxt, repeating on network errors only: every request here is a GET."""
        import ccxt

        attempts = AsyncRetrying(
            stop=stop_after_attempt(self._market.network_attempts if retry else 1),
            wait=wait_exponential_jitter(
                multiplier=self._market.backoff_s,
                max=self._market.backoff_max_s,
                jitter=self._market.backoff_s,
            ),
            retry=retry_if_exception_type(ccxt.NetworkError),
            before_sleep=self._log_retry,
            reraise=True,
        )
        try:
            return await attempts(function, *args)
        except ccxt.BaseError as error:
            text = " ".join(str(error).split())[:ERROR_TEXT]
            raise self._unreachable(f"{type(error).__name__}: {text}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # ccxt takes any JSON of a success for an answer, and its parsers trip over it.
            raise self._unreachable(f"malformed answer, {error!r}"[:ERROR_TEXT]) from error

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "exchange_retry",
            exchange=self.exchange_id,
            attempt=state.attempt_number,
            error=type(error).__name__,
        )

    def _unreachable(self, reason: str) -> TradewindError:
        return TradewindError(
            ErrorCode.EXCHANGE_UNREACHABLE,
            f"exchange {self.exchange_id} gave no data ({reason})",
            "Check the network, or set TRADEWIND_MARKET__PROXY, TRADEWIND_MARKET__EXCHANGES or"
            " TRADEWIND_DATA (a folder of bars)",
        )


def _client(settings: Settings, exchange_id: str) -> Any:
    import ccxt.async_support

    market = settings.market
    if exchange_id not in ccxt.async_support.exchanges:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"setting market.exchanges names {exchange_id!r}, which ccxt does not know",
            "Use ccxt's ids, such as binanceusdm, bybit or okx",
        )
    config: dict[str, Any] = {
        "enableRateLimit": True,
        "timeout": round(market.request_timeout_s * 1000),
        "options": {
            "defaultType": "spot" if exchange_id in SPOT_EXCHANGES else "swap",
            "fetchCurrencies": False,
        },
    }
    if exchange_id in MARKET_TYPES:
        config["options"]["fetchMarkets"] = {"types": MARKET_TYPES[exchange_id]}
    if market.proxy:
        config["httpsProxy"] = market.proxy
    if market.ca_file:
        if not market.ca_file.is_file():
            raise TradewindError(
                ErrorCode.BAD_SETTING,
                f"setting market.ca_file = {market.ca_file} is no file",
                "Point TRADEWIND_MARKET__CA_FILE at the PEM bundle, or unset it",
            )
        config["cafile"] = str(market.ca_file)
    client = getattr(ccxt.async_support, exchange_id)(config)
    client.has["fetchCurrencies"] = False  # a private call on several exchanges
    return client


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
        "Check the network, or set TRADEWIND_MARKET__PROXY, or point TRADEWIND_DATA at a folder"
        " of bars",
    )


async def _connect_until(source: CcxtSource, deadline: float) -> str | None:
    """Return None once connected, else why not."""
    try:
        async with asyncio.timeout_at(deadline):
            await source.connect(retry=False)
    except TimeoutError:
        return f"exchange {source.exchange_id} did not answer in time"
    except TradewindError as error:
        return error.detail
    return None
