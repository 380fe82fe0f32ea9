"""A loopback exchange that speaks Binance USD-M's public wire format to an unmodified ccxt.

ccxt keeps its own URLs: it reaches this server through an HTTPS CONNECT proxy with a test
CA. Any host that is not served is refused by the proxy, so nothing leaves the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import polars as pl
import trustme
from aiohttp import web

from tradewind.settings import TIMEFRAME_MS

HOST = "fapi.binance.com"
MAX_KLINES = 1500
MAX_FUNDING = 1000


@dataclass
class Exchange:
    """Context manager: a server thread with bars and funding of some symbols.

    Parameters
    ----------
    bars
        Bars of one timeframe by symbol; rows may be as bad as a test needs.
    timeframe
        Their length.
    now_ms
        The exchange's time: later bars are not given out, the open one is.
    folder
        Where the CA's certificate is put.
    funding
        Funding rates by symbol.
    failures
        Answers given instead of the true ones, one a request, after ``pass_first`` good ones.
    drops
        Connections to break before anything is answered.
    """

    bars: Mapping[str, pl.DataFrame]
    timeframe: str
    now_ms: Callable[[], int]
    folder: Path
    funding: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    refused_hosts: list[str] = field(default_factory=list)
    failures: deque[web.Response] = field(default_factory=deque)
    pass_first: int = 0
    drops: int = 0

    def __enter__(self) -> Exchange:
        """Start the server and the proxy on free ports."""
        started: Future[None] = Future()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.result(timeout=20)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything and wait for it."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()

    @property
    def proxy(self) -> str:
        """URL of the CONNECT proxy."""
        return f"http://127.0.0.1:{self._proxy_port}"

    @property
    def market(self) -> dict[str, Any]:
        """Settings that make a ccxt source come here, and fail fast."""
        return {
            "source": "ccxt",
            "exchanges": ("binanceusdm",),
            "proxy": self.proxy,
            "ca_file": self.folder / "ca.pem",
            "backoff_s": 0.01,
            "backoff_max_s": 0.02,
        }

    def asked(self, path: str) -> list[dict[str, str]]:
        """Return the queries that a path has had."""
        return [query for name, query in self.requests if name == path]

    # -- the server's thread ------------------------------------------------------------

    def _run(self, started: Future[None]) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            self._loop.close()

    async def _serve(self, started: Future[None]) -> None:
        self._stop = asyncio.Event()
        self._pipes: set[asyncio.Task[None]] = set()
        runner = web.AppRunner(self._app(), shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls())
        await site.start()
        self._server_port: int = runner.addresses[0][1]
        proxy = await asyncio.start_server(self._tunnel, "127.0.0.1", 0)
        self._proxy_port: int = proxy.sockets[0].getsockname()[1]
        started.set_result(None)
        await self._stop.wait()
        proxy.close()
        for task in list(self._pipes):
            task.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        await runner.cleanup()

    def _tls(self) -> ssl.SSLContext:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.folder / "ca.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(context)
        return context

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one CONNECT: pipe bytes to the server, or refuse the host."""
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            host = head.split()[1].decode().partition(":")[0]
            if host != HOST:
                self.refused_hosts.append(host)
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
            there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        except (asyncio.CancelledError, asyncio.IncompleteReadError):
            pass  # the test ended, or the client went away
        finally:
            writer.close()
            self._pipes.discard(task)

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._observe])
        app.router.add_get("/fapi/v1/exchangeInfo", self._exchange_info)
        app.router.add_get("/fapi/v1/klines", self._klines)
        app.router.add_get("/fapi/v1/fundingRate", self._funding_rate)
        return app

    @web.middleware
    async def _observe(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.query)))
        if self.drops > 0:
            self.drops -= 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if self.pass_first > 0:
            self.pass_first -= 1
        elif self.failures:
            return self.failures.popleft()
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _exchange_info(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "timezone": "UTC",
                "serverTime": self.now_ms(),
                "futuresType": "U_MARGINED",
                "rateLimits": [],
                "exchangeFilters": [],
                "assets": [],
                "symbols": [_symbol_info(symbol) for symbol in self.bars],
            }
        )

    async def _klines(self, request: web.Request) -> web.Response:
        query = request.query
        bars = self.bars.get(query["symbol"])
        if bars is None:
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        assert query["interval"] == self.timeframe
        found = _window(bars, query, self.now_ms(), MAX_KLINES)
        step = TIMEFRAME_MS[self.timeframe]
        return web.json_response([_kline(row, step) for row in found.iter_rows(named=True)])

    async def _funding_rate(self, request: web.Request) -> web.Response:
        symbol = request.query["symbol"]
        rates = self.funding.get(symbol)
        if rates is None:
            return web.json_response([])
        found = _window(rates, request.query, self.now_ms(), MAX_FUNDING)
        return web.json_response(
            [
                {
                    "symbol": symbol,
                    "fundingTime": ts + 7,  # the real one is some milliseconds late as well
                    "fundingRate": f"{rate:.8f}",
                    "markPrice": "1.0",
                }
                for ts, rate in found.select("ts", "funding_rate").iter_rows()
            ]
        )


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
    writer.close()


def _window(rows: pl.DataFrame, query: Mapping[str, str], now_ms: int, most: int) -> pl.DataFrame:
    """Return rows as the exchange pages them: from startTime on, oldest first."""
    until = min(int(query.get("endTime", now_ms)), now_ms)
    limit = min(int(query.get("limit", 500)), most)
    kept = rows.filter(pl.col("ts") <= until)
    if "startTime" not in query:
        return kept.tail(limit)
    return kept.filter(pl.col("ts") >= int(query["startTime"])).head(limit)


def _kline(row: Mapping[str, Any], step: int) -> list[Any]:
    """Return one row of the klines payload: prices and volumes are strings."""
    ts = row["ts"]
    prices = [repr(row[name]) for name in ("open", "high", "low", "close", "volume")]
    return [ts, *prices, ts + step - 1, "0", 1, "0", "0", "0"]


def _symbol_info(symbol: str) -> dict[str, Any]:
    base, quote = symbol.removesuffix("USDT"), "USDT"
    return {
        "symbol": symbol,
        "pair": symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000,
        "onboardDate": 1569398400000,
        "status": "TRADING",
        "baseAsset": base,
        "quoteAsset": quote,
        "marginAsset": quote,
        "pricePrecision": 2,
        "quantityPrecision": 3,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": "0.01",
                "maxPrice": "1000000",
                "tickSize": "0.01",
            },
            {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.001"},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP_MARKET", "TAKE_PROFIT_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }
