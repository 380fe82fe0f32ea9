"""One ccxt client: what counts as an answer, when to ask again, and how long to wait.

The exchange's own URLs are kept, since ccxt chooses its error classes by them; a proxy and
a CA bundle from the settings decide where requests really go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, stop_after_attempt, wait_exponential_jitter

from tradewind.errors import ErrorCode, TradewindError
from tradewind.masking import mask_passwords
from tradewind.settings import MarketSettings

T = TypeVar("T")
log = structlog.get_logger(__name__)

SPOT_EXCHANGES = ("binance",)
# What ccxt has to load of an exchange; all of its markets would take seconds more.
MARKET_TYPES = {
    "binanceusdm": ["linear"],
    "binance": ["spot"],
    "bybit": ["linear"],
    "okx": ["swap"],
}
ERROR_TEXT = 200
# Enough to hide latency behind the rate limiter, too few to fill its queue with symbols.
MAX_CONCURRENT = 16
RATE_LIMITED = (418, 429)
REFUSED = (401, 403, 451)


class BadAnswerError(Exception):
    """The exchange failed, or said "success" and sent something that is not data."""


class RefusedError(Exception):
    """The exchange will not talk to us: asking again cannot help."""


class RateLimitedError(Exception):
    """The exchange wants fewer requests; ``retry_after_s`` is None where it does not say."""

    def __init__(self, status: int, retry_after_s: float | None) -> None:
        said = "" if retry_after_s is None else f", retry after {retry_after_s:g} s"
        super().__init__(f"HTTP {status}{said}")
        self.retry_after_s = retry_after_s


class CcxtClient:
    """A ccxt exchange whose calls are limited, bounded, repeated where sensible, and named.

    Only public GETs are made here, so that repeating one is harmless.

    Parameters
    ----------
    market
        Timeouts, retries, proxy and CA bundle.
    exchange_id
        ccxt's name of the exchange.
    """

    def __init__(self, market: MarketSettings, exchange_id: str) -> None:
        self.exchange_id = exchange_id
        self.api = _client(market, exchange_id)
        self._market = market
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._free_at = 0.0

    async def call(
        self, function: Callable[..., Awaitable[T]], *args: object, connecting: bool = False
    ) -> T:
        """Call ccxt, repeating what may pass: network errors, bad answers, rate limits.

        Parameters
        ----------
        connecting
            Give up at once where nobody answers, since another exchange may.

        Raises
        ------
        TradewindError
            ``exchange_unreachable``.
        """
        import ccxt

        attempts = AsyncRetrying(
            stop=self._is_over,
            wait=self._pause,
            retry=lambda state: _may_pass(state, connecting=connecting),
            before_sleep=self._log_retry,
            reraise=True,
        )
        try:
            return await attempts(self._attempt, function, *args)
        except (ccxt.BaseError, BadAnswerError, RateLimitedError, RefusedError) as error:
            text = " ".join(str(error).split())[:ERROR_TEXT]
            raise self.unreachable(f"{type(error).__name__}: {text}") from error

    def unreachable(self, reason: str) -> TradewindError:
        """Return the error of an exchange that gave no data."""
        return TradewindError(
            ErrorCode.EXCHANGE_UNREACHABLE,
            f"exchange {self.exchange_id} gave no data ({reason})",
            f"{what_to_check(self._market)}, or set TRADEWIND_MARKET__EXCHANGES or TRADEWIND_DATA"
            " (a folder of bars)",
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.api.close()

    async def _attempt(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        async with self._slots:
            now = asyncio.get_running_loop().time
            while (wait := self._free_at - now()) > 0:
                await asyncio.sleep(wait)
            try:
                return await function(*args)
            except RateLimitedError as error:
                if error.retry_after_s is not None:
                    # One request's Retry-After holds for all of them.
                    asked = min(error.retry_after_s, self._market.retry_after_max_s)
                    self._free_at = max(self._free_at, now() + asked)
                raise
            except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
                # ccxt takes any JSON of a success for an answer, and its parsers trip over it.
                raise BadAnswerError(f"malformed answer, {error!r}"[:ERROR_TEXT]) from error

    def _is_over(self, state: RetryCallState) -> bool:
        error = _error_of(state)
        asked = error.retry_after_s if isinstance(error, RateLimitedError) else None
        if asked is not None and asked > self._market.retry_after_max_s:
            return True
        return stop_after_attempt(self._market.network_attempts)(state)

    def _pause(self, state: RetryCallState) -> float:
        error = _error_of(state)
        if isinstance(error, RateLimitedError) and error.retry_after_s is not None:
            return 0  # the next attempt waits with all other requests
        return wait_exponential_jitter(
            multiplier=self._market.backoff_s,
            max=self._market.backoff_max_s,
            jitter=self._market.backoff_s,
        )(state)

    def _log_retry(self, state: RetryCallState) -> None:
        log.warning(
            "exchange_retry",
            exchange=self.exchange_id,
            attempt=state.attempt_number,
            error=type(_error_of(state)).__name__,
        )


def what_to_check(market: MarketSettings) -> str:
    """Return the first thing to look at when nobody answers: the proxy, where one is set."""
    if market.proxy:
        return f"Check that the proxy {mask_passwords(market.proxy)} (setting market.proxy) runs"
    return "Check the network, or set TRADEWIND_MARKET__PROXY"


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _may_pass(state: RetryCallState, *, connecting: bool) -> bool:
    """Return whether the same request may do better later."""
    import aiohttp
    import ccxt

    error = _error_of(state)
    if isinstance(error, BadAnswerError | RateLimitedError):
        return True
    cause = error.__cause__ if error is not None else None
    # OperationFailed is NetworkError and what exchanges call their own passing failures; a
    # body that broke off, which ccxt takes for a refusal, is the network's.
    if not isinstance(error, ccxt.OperationFailed) and not isinstance(
        cause, aiohttp.ClientPayloadError
    ):
        return False
    nobody = isinstance(error, ccxt.RequestTimeout) or isinstance(
        cause, aiohttp.ClientConnectorError | OSError
    )
    return not (connecting and nobody)


def _checked(
    status: int,
    reason: str,
    url: str,
    method: str,
    headers: Mapping[str, str],
    body: str,
    request_headers: object,
    request_body: object,
) -> str:
    """Return the body of an answer that ccxt may parse (ccxt's hook of this signature)."""
    if status in RATE_LIMITED:
        raise RateLimitedError(status, _retry_after(headers))
    if status in REFUSED:
        raise RefusedError(f"HTTP {status} {reason}")
    if status >= 500:
        # Judged here: with a body of the exchange's own, ccxt calls it something else.
        raise BadAnswerError(f"HTTP {status} {reason}")
    text = body.strip()
    if status < 300 and not text.startswith(("{", "[")):
        what = "a body that is no JSON" if text else "an empty body"
        raise BadAnswerError(f"HTTP {status} with {what}")
    return text


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, which may be a number or a date."""
    found = [text for name, text in headers.items() if name.lower() == "retry-after"]
    if not found:
        return None
    try:
        return max(0.0, float(found[0]))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(found[0]).timestamp() - time.time())
    except ValueError:
        return None


def _client(market: MarketSettings, exchange_id: str) -> Any:
    import ccxt.async_support

    if exchange_id not in ccxt.async_support.exchanges:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"setting market.exchanges names {exchange_id!r}, which ccxt does not know",
            "Use ccxt's ids, such as binanceusdm, bybit or okx",
        )
    config: dict[str, Any] = {
        "enableRateLimit": True,
        # Of the whole request: connecting, waiting and reading to the end.
        "timeout": round(market.request_timeout_s * 1000),
        "options": {
            "defaultType": "spot" if exchange_id in SPOT_EXCHANGES else "swap",
            "fetchCurrencies": False,
        },
    }
    if market.rate_limit_ms is not None:
        config["rateLimit"] = market.rate_limit_ms
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
    client.on_rest_response = _checked
    parse = client.on_json_response

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise BadAnswerError("a body of broken JSON") from error

    client.on_json_response = parsed
    return client
