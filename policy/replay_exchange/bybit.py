"""Bybit v5, public half of linear contracts: paths, parameters and bodies as on api.bybit.com."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import polars as pl

from policy.replay_exchange.state import Answer, Dialect, ExchangeState, Handler, number, pair_of
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import TIMEFRAME_MS

HOST = "api.bybit.com"
Query = Mapping[str, str]

INTERVALS = {"1": "1m", "5": "5m", "15": "15m", "60": "1h", "240": "4h", "D": "1d"}
PERIODS = {"5min": "5m", "15min": "15m", "1h": "1h", "4h": "4h", "1d": "1d"}
KLINES_DEFAULT, KLINES_MOST = 200, 1000
FUNDING_DEFAULT, FUNDING_MOST = 200, 200
INTEREST_DEFAULT, INTEREST_MOST = 50, 200
RATIO_DEFAULT, RATIO_MOST = 50, 500
BAD_PARAMETER = 10001


async def time(state: ExchangeState, query: Query) -> Answer:
    """GET /v5/market/time."""
    now = state.now_ms()
    return _good(state, {"timeSecond": str(now // 1000), "timeNano": str(now * 1_000_000)})


async def instruments_info(state: ExchangeState, query: Query) -> Answer:
    """GET /v5/market/instruments-info: linear perpetuals, on one page."""
    trading = query.get("category") == "linear" and query.get("status", "Trading") == "Trading"
    symbols = await state.source.symbols() if trading else ()
    rows = [_symbol(symbol, await state.listed_ms(symbol)) for symbol in symbols]
    body = {"category": query.get("category", ""), "list": rows, "nextPageCursor": ""}
    return _good(state, body)


async def kline(state: ExchangeState, query: Query) -> Answer:
    """GET /v5/market/kline: newest first, ``end`` counts."""
    interval = INTERVALS.get(query.get("interval", ""))
    if interval is None:
        return _bad(state, "Invalid period!")
    symbol = query.get("symbol", "")
    since, until, limit = _window(state, query, ("start", "end"), KLINES_DEFAULT, KLINES_MOST)
    try:
        bars = await state.bars(symbol, interval, since, until)
    except TradewindError as error:
        if error.code not in (ErrorCode.UNKNOWN_SYMBOL, ErrorCode.NO_BARS, ErrorCode.BAD_INPUT):
            raise
        return _bad(state, "Not supported symbols")
    rows = [
        # The last field, turnover, is not in a set of bars.
        [str(ts), *map(number, values), "0"]
        for ts, *values in bars.tail(limit).reverse().iter_rows()
    ]
    return _good(state, {"symbol": symbol, "category": "linear", "list": rows})


async def funding_history(state: ExchangeState, query: Query) -> Answer:
    """GET /v5/market/funding/history: newest first."""
    symbol = query.get("symbol", "")
    page = await _newest(state.funding, state, query, FUNDING_DEFAULT, FUNDING_MOST)
    rows = [
        {"symbol": symbol, "fundingRate": f"{rate:.8f}", "fundingRateTimestamp": str(ts)}
        for ts, rate in page.select("ts", "funding_rate").iter_rows()
    ]
    return _good(state, {"category": "linear", "list": rows})


async def open_interest(state: ExchangeState, query: Query) -> Answer:
    """GET /v5/market/open-interest: newest first."""
    period = PERIODS.get(query.get("intervalTime", ""))
    if period is None:
        return _bad(state, "Invalid intervalTime")
    sizes = INTEREST_DEFAULT, INTEREST_MOST
    page = await _newest(state.open_interest, state, query, *sizes, period)
    rows = [
        {"openInterest": number(amount), "timestamp": str(ts)}
        for ts, amount in page.select("ts", "open_interest").iter_rows()
    ]
    symbol = query.get("symbol", "")
    body = {"symbol": symbol, "category": "linear", "list": rows, "nextPageCursor": ""}
    return _good(state, body)


async def account_ratio(state: ExchangeState, query: Query) -> Answer:
    """GET /v5/market/account-ratio: newest first, shares of accounts that hold either side."""
    period = PERIODS.get(query.get("period", ""))
    if period is None:
        return _bad(state, "Invalid period")
    page = await _newest(state.long_short_ratio, state, query, RATIO_DEFAULT, RATIO_MOST, period)
    rows = [
        {
            "symbol": query.get("symbol", ""),
            "buyRatio": f"{ratio / (1 + ratio):.4f}",
            "sellRatio": f"{1 / (1 + ratio):.4f}",
            "timestamp": str(ts),
        }
        for ts, ratio in page.select("ts", "long_short_ratio").iter_rows()
    ]
    return _good(state, {"list": rows, "nextPageCursor": ""})


ROUTES: Mapping[str, Handler] = {
    "GET /v5/market/time": time,
    "GET /v5/market/instruments-info": instruments_info,
    "GET /v5/market/kline": kline,
    "GET /v5/market/funding/history": funding_history,
    "GET /v5/market/open-interest": open_interest,
    "GET /v5/market/account-ratio": account_ratio,
}


def _rows(body: Any) -> list[Any] | None:
    found = body.get("result", {}).get("list") if isinstance(body, dict) else None
    return found if isinstance(found, list) else None


def _refusal(status: int) -> Any:
    if status in (418, 429):
        return {"retCode": 10006, "retMsg": "Too many visits!", "result": {}}
    return {"retCode": 10016, "retMsg": "Server error", "result": {}}


BYBIT = Dialect(HOST, ROUTES, _rows, _refusal)


def _window(
    state: ExchangeState, query: Query, names: tuple[str, str], default: int, most: int
) -> tuple[int, int, int]:
    now = state.now_ms()
    since, until = int(query.get(names[0], 0)), int(query.get(names[1], now))
    return since, min(until, now), min(int(query.get("limit", default)), most)


async def _newest(
    fetch: Callable[[str, int, int], Awaitable[pl.DataFrame]],
    state: ExchangeState,
    query: Query,
    default: int,
    most: int,
    period: str | None = None,
) -> pl.DataFrame:
    """Return the page of a companion series that a query asks for, newest first."""
    since, until, limit = _window(state, query, ("startTime", "endTime"), default, most)
    rows = await fetch(query.get("symbol", ""), since, until)
    if period is not None:
        rows = rows.filter(pl.col("ts") % TIMEFRAME_MS[period] == 0)
    return rows.tail(limit).reverse()


def _good(state: ExchangeState, result: Any) -> Answer:
    now = state.now_ms()
    body = {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": now}
    return Answer(body)


def _bad(state: ExchangeState, text: str) -> Answer:
    now = state.now_ms()
    body = {"retCode": BAD_PARAMETER, "retMsg": text, "result": {}, "retExtInfo": {}, "time": now}
    return Answer(body)


def _symbol(symbol: str, listed_ms: int) -> dict[str, Any]:
    base, quote = pair_of(symbol)
    return {
        "symbol": symbol,
        "contractType": "LinearPerpetual",
        "status": "Trading",
        "baseCoin": base,
        "quoteCoin": quote,
        "launchTime": str(listed_ms),
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": "2",
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": "0.10", "maxPrice": "1999999.80", "tickSize": "0.10"},
        "lotSizeFilter": {
            "maxOrderQty": "1190.000",
            "minOrderQty": "0.001",
            "qtyStep": "0.001",
            "postOnlyMaxOrderQty": "1190.000",
            "minNotionalValue": "5",
        },
        "unifiedMarginTrade": True,
        "fundingInterval": 480,
        "settleCoin": quote,
    }
