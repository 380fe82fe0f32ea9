"""Binance USD-M, public half: paths, parameters and bodies as on fapi.binance.com."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from policy.replay_exchange.state import Answer, Dialect, ExchangeState, Handler, number, pair_of
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import TIMEFRAME_MS

HOST = "fapi.binance.com"
Query = Mapping[str, str]

KLINES_DEFAULT, KLINES_MOST = 500, 1500
FUNDING_DEFAULT, FUNDING_MOST = 100, 1000
POSITIONING_DEFAULT, POSITIONING_MOST = 30, 500
POSITIONING_PERIODS = ("5m", "15m", "1h", "4h", "1d")
FUNDING_DELAY_MS = 7  # settlements are stamped some milliseconds late
PERPETUAL_DELIVERY_MS = 4_133_404_800_000
WEIGHT_A_MINUTE = 2400
TICKS = {"BTCUSDT": ("0.10", "0.001"), "ETHUSDT": ("0.01", "0.001"), "SOLUSDT": ("0.0100", "0.01")}
DEFAULT_TICKS = ("0.00001", "1")

BAD_SYMBOL = Answer({"code": -1121, "msg": "Invalid symbol."}, 400)
BAD_INTERVAL = Answer({"code": -1120, "msg": "Invalid interval."}, 400)
BAD_START = Answer({"code": -1130, "msg": "parameter 'startTime' is invalid."}, 400)


async def ping(state: ExchangeState, query: Query) -> Answer:
    """GET /fapi/v1/ping."""
    return Answer({})


async def time(state: ExchangeState, query: Query) -> Answer:
    """GET /fapi/v1/time."""
    return Answer({"serverTime": state.now_ms()})


async def exchange_info(state: ExchangeState, query: Query) -> Answer:
    """GET /fapi/v1/exchangeInfo."""
    symbols = [
        _symbol(symbol, await state.listed_ms(symbol)) for symbol in await state.source.symbols()
    ]
    weight = {"interval": "MINUTE", "intervalNum": 1, "limit": WEIGHT_A_MINUTE}
    return Answer(
        {
            "timezone": "UTC",
            "serverTime": state.now_ms(),
            "futuresType": "U_MARGINED",
            "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", **weight}],
            "exchangeFilters": [],
            "assets": [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"}],
            "symbols": symbols,
        }
    )


async def klines(state: ExchangeState, query: Query) -> Answer:
    """GET /fapi/v1/klines: oldest first from startTime, else the newest ones."""
    interval = query.get("interval", "")
    if interval not in TIMEFRAME_MS:
        return BAD_INTERVAL
    since, until, limit = _window(state, query, KLINES_DEFAULT, KLINES_MOST)
    try:
        bars = await state.bars(query.get("symbol", ""), interval, since, until)
    except TradewindError as error:
        return _refused(error)
    step = TIMEFRAME_MS[interval]
    rows = _page(bars, query, limit).iter_rows()
    return Answer([[ts, *map(number, values), ts + step - 1, *_UNKNOWN] for ts, *values in rows])


# Quote volume, trades, taker's base and quote volume, and a field that is always "0": a set
# of bars does not have them.
_UNKNOWN = ("0", 0, "0", "0", "0")


async def funding_rate(state: ExchangeState, query: Query) -> Answer:
    """GET /fapi/v1/fundingRate."""
    since, until, limit = _window(state, query, FUNDING_DEFAULT, FUNDING_MOST)
    symbol = query.get("symbol", "")
    rates = await state.funding(symbol, since - FUNDING_DELAY_MS, until - FUNDING_DELAY_MS)
    return Answer(
        [
            {
                "symbol": symbol,
                "fundingTime": ts + FUNDING_DELAY_MS,
                "fundingRate": f"{rate:.8f}",
                "markPrice": "",
            }
            for ts, rate in _page(rates, query, limit).select("ts", "funding_rate").iter_rows()
        ]
    )


async def open_interest_hist(state: ExchangeState, query: Query) -> Answer:
    """GET /futures/data/openInterestHist: the last 30 days only."""
    refused = _positioning_refusal(state, query)
    if refused is not None:
        return refused
    since, until, limit = _window(state, query, POSITIONING_DEFAULT, POSITIONING_MOST)
    symbol = query["symbol"]
    found = _on_grid(await state.open_interest(symbol, since, until), query["period"])
    return Answer(
        [
            {
                "symbol": symbol,
                "sumOpenInterest": number(amount),
                "sumOpenInterestValue": "",
                "timestamp": ts,
            }
            for ts, amount in _page(found, query, limit).select("ts", "open_interest").iter_rows()
        ]
    )


async def long_short_ratio(state: ExchangeState, query: Query) -> Answer:
    """GET /futures/data/globalLongShortAccountRatio: the last 30 days only."""
    refused = _positioning_refusal(state, query)
    if refused is not None:
        return refused
    since, until, limit = _window(state, query, POSITIONING_DEFAULT, POSITIONING_MOST)
    symbol = query["symbol"]
    found = _on_grid(await state.long_short_ratio(symbol, since, until), query["period"])
    page = _page(found, query, limit).select("ts", "long_short_ratio")
    return Answer(
        [
            {
                "symbol": symbol,
                "longShortRatio": number(ratio),
                "longAccount": f"{ratio / (1 + ratio):.4f}",
                "shortAccount": f"{1 / (1 + ratio):.4f}",
                "timestamp": ts,
            }
            for ts, ratio in page.iter_rows()
        ]
    )


ROUTES: Mapping[str, Handler] = {
    "GET /fapi/v1/ping": ping,
    "GET /fapi/v1/time": time,
    "GET /fapi/v1/exchangeInfo": exchange_info,
    "GET /fapi/v1/klines": klines,
    "GET /fapi/v1/fundingRate": funding_rate,
    "GET /futures/data/openInterestHist": open_interest_hist,
    "GET /futures/data/globalLongShortAccountRatio": long_short_ratio,
}


def _rows(body: Any) -> list[Any] | None:
    return body if isinstance(body, list) else None


def _refusal(status: int) -> Any:
    if status in (418, 429):
        return {"code": -1003, "msg": "Too many requests; please slow down."}
    return {"code": -1001, "msg": "Internal error; unable to process your request."}


BINANCE = Dialect(HOST, ROUTES, _rows, _refusal)


def _window(state: ExchangeState, query: Query, default: int, most: int) -> tuple[int, int, int]:
    now = state.now_ms()
    limit = min(int(query.get("limit", default)), most)
    return int(query.get("startTime", 0)), min(int(query.get("endTime", now)), now), limit


def _page(rows: pl.DataFrame, query: Query, limit: int) -> pl.DataFrame:
    return rows.head(limit) if "startTime" in query else rows.tail(limit)


def _on_grid(rows: pl.DataFrame, period: str) -> pl.DataFrame:
    return rows.filter(pl.col("ts") % TIMEFRAME_MS[period] == 0)


def _positioning_refusal(state: ExchangeState, query: Query) -> Answer | None:
    if query.get("period") not in POSITIONING_PERIODS:
        return BAD_INTERVAL
    if "startTime" in query and state.too_old(int(query["startTime"])):
        return BAD_START
    return None if query.get("symbol") else BAD_SYMBOL


def _refused(error: TradewindError) -> Answer:
    if error.code is ErrorCode.UNKNOWN_SYMBOL:
        return BAD_SYMBOL
    if error.code in (ErrorCode.NO_BARS, ErrorCode.BAD_INPUT):
        return BAD_INTERVAL
    raise error


def _symbol(symbol: str, listed_ms: int) -> dict[str, Any]:
    base, quote = pair_of(symbol)
    tick, lot = TICKS.get(symbol, DEFAULT_TICKS)
    lots = {"minQty": lot, "maxQty": "1000000", "stepSize": lot}
    return {
        "symbol": symbol,
        "pair": symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": PERPETUAL_DELIVERY_MS,
        "onboardDate": listed_ms,
        "status": "TRADING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": base,
        "quoteAsset": quote,
        "marginAsset": quote,
        "pricePrecision": 5,
        "quantityPrecision": 3,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": tick,
                "maxPrice": "10000000",
                "tickSize": tick,
            },
            {"filterType": "LOT_SIZE", **lots},
            {"filterType": "MARKET_LOT_SIZE", **lots},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ],
        "orderTypes": [
            *("LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"),
            "TRAILING_STOP_MARKET",
        ],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }
