"""A TLS server and its proxy in a thread: exchanges that answer from a folder of bars."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

import trustme
from aiohttp import web

from policy.replay_exchange.binance import BINANCE
from policy.replay_exchange.bybit import BYBIT
from policy.replay_exchange.faults import Fault, FaultKind, Faults
from policy.replay_exchange.proxy import LOOPBACK, Proxy
from policy.replay_exchange.state import Answer, Dialect, ExchangeState
from policy.replay_exchange.tampering import ROW_FAULTS, tampered_body, tampered_text
from tradewind.errors import ErrorCode, TradewindError
from tradewind.market.sources import BarSource

DIALECTS = {"binanceusdm": BINANCE, "bybit": BYBIT}
CA_NAME = "ca.pem"
REMEMBERED = 100_000
START_S = 20
STATUSES = {
    FaultKind.TOO_MANY_REQUESTS: 429,
    FaultKind.BANNED: 418,
    FaultKind.SERVER_ERROR: 503,
}
TEXT_FAULTS = (
    FaultKind.EMPTY,
    FaultKind.NULL,
    FaultKind.HTML,
    FaultKind.TRUNCATED,
    FaultKind.BODY,
)
WINDOW_NAMES = ("startTime", "start", "endTime", "end")
Request = tuple[str, dict[str, str]]


class ReplayExchange:
    """Context manager: exchanges on loopback, reached through a proxy with a test CA.

    ccxt keeps its own URLs: set its proxy to `proxy` and its CA file to `ca_file`. Hosts that
    are not served here are refused, so nothing of that client leaves the machine.

    Parameters
    ----------
    sources
        What each exchange (``binanceusdm``, ``bybit``) answers from.
    timeframe
        A timeframe that the sources have.
    clock
        The exchanges' time in ms: what is later does not exist yet.
    folder
        Where the CA's certificate is put.
    faults
        What goes wrong; none by default.
    proxy_port
        Port of the proxy; 0 takes a free one.
    """

    def __init__(
        self,
        sources: dict[str, BarSource],
        timeframe: str,
        clock: Callable[[], int],
        folder: Path,
        faults: Faults | None = None,
        proxy_port: int = 0,
    ) -> None:
        unknown = sorted(set(sources) - set(DIALECTS))
        if unknown:
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"the replay exchange does not speak as {', '.join(unknown)}",
                f"Use {' or '.join(DIALECTS)}",
            )
        self.folder = folder
        self.faults = faults or Faults()
        self.requests: deque[Request] = deque(maxlen=REMEMBERED)
        self.answered = 0
        self.states = {
            name: ExchangeState(source, timeframe, clock) for name, source in sources.items()
        }
        self._hosts: dict[str, tuple[Dialect, ExchangeState]] = {
            DIALECTS[name].host: (DIALECTS[name], state) for name, state in self.states.items()
        }
        self._last: dict[str, Any] = {}
        self._wanted_port = proxy_port

    def __enter__(self) -> ReplayExchange:
        """Start the server and the proxy."""
        self.folder.mkdir(parents=True, exist_ok=True)
        started: Future[None] = Future()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, args=(started,), daemon=True, name="replay-exchange"
        )
        self._thread.start()
        started.result(timeout=START_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything and wait for it."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=START_S)

    @property
    def proxy(self) -> str:
        """URL of the CONNECT proxy."""
        return f"http://{LOOPBACK}:{self._proxy_port}"

    @property
    def ca_file(self) -> Path:
        """Certificate of the CA that signs the exchanges' names."""
        return self.folder / CA_NAME

    @property
    def refused_hosts(self) -> Sequence[str]:
        """Hosts that a client asked for and did not get."""
        return self._proxy.refused

    def environment(self) -> dict[str, str]:
        """Return the variables that make every Tradewind process trade against this server."""
        return {
            "TRADEWIND_MARKET__SOURCE": "ccxt",
            "TRADEWIND_MARKET__EXCHANGES": json.dumps(list(self.states)),
            "TRADEWIND_MARKET__PROXY": self.proxy,
            "TRADEWIND_MARKET__CA_FILE": str(self.ca_file.absolute()),
        }

    def asked(self, path: str) -> list[dict[str, str]]:
        """Return the queries that a path has had, oldest first."""
        return [query for name, query in list(self.requests) if name == path]

    def add_fault(self, fault: Fault) -> None:
        """Inject a fault into a coming request; from any thread."""
        self._loop.call_soon_threadsafe(self.faults.add, fault)

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
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, LOOPBACK, 0, ssl_context=self._tls())
        await site.start()
        self._proxy = Proxy(self._hosts, runner.addresses[0][1])
        try:
            self._proxy_port = await self._proxy.start(self._wanted_port)
        except OSError as error:
            await runner.cleanup()
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"port {self._wanted_port} cannot be listened on ({error.strerror})",
                "Choose another port, or 0 for a free one",
            ) from error
        started.set_result(None)
        await self._stop.wait()
        await self._proxy.stop()
        await runner.cleanup()

    def _tls(self) -> ssl.SSLContext:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*self._hosts).configure_cert(context)
        return context

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        served = self._hosts.get(request.host.partition(":")[0])
        if served is None:
            return web.Response(status=421, text="this name is not served here")
        self.requests.append((request.path, dict(request.query)))
        self.answered += 1
        fault = self.faults.take(request.path)
        if fault is not None and fault.kind is FaultKind.DROP_BEFORE:
            return _dropped(request)
        dialect, state = served
        if fault is not None and fault.kind in STATUSES:
            return _refused(dialect, fault)
        if fault is not None and fault.kind is FaultKind.SLOW:
            await asyncio.sleep(fault.delay_s)
        answer = await self._handle(dialect, state, request, fault)
        text = json.dumps(answer.body, separators=(",", ":"))
        if fault is not None and fault.kind is FaultKind.DROP_AFTER:
            return _dropped(request)
        if fault is not None and fault.kind is FaultKind.CUT:
            return await _cut(request, text)
        if fault is not None and fault.kind in TEXT_FAULTS:
            text = tampered_text(text, fault)
        return web.Response(text=text, status=answer.status, content_type="application/json")

    async def _handle(
        self,
        dialect: Dialect,
        state: ExchangeState,
        request: web.Request,
        fault: Fault | None,
    ) -> Answer:
        handler = dialect.routes.get(f"{request.method} {request.path}")
        if handler is None:
            return Answer({"code": -5000, "msg": f"Path {request.path} is invalid"}, 404)
        query = dict(request.query)
        if fault is not None and fault.kind is FaultKind.UNFINISHED:
            query = {name: text for name, text in query.items() if name not in WINDOW_NAMES}
        answer = await handler(state, query)
        before, self._last[request.path] = self._last.get(request.path), answer.body
        if fault is None:
            return answer
        if fault.kind is FaultKind.REPEATED_PAGE and before is not None:
            return Answer(before)
        if fault.kind in ROW_FAULTS:
            return Answer(tampered_body(answer.body, dialect.rows, fault.kind), answer.status)
        return answer


def _dropped(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _refused(dialect: Dialect, fault: Fault) -> web.Response:
    status = STATUSES[fault.kind]
    headers = {}
    if status in (418, 429) and fault.retry_after_s is not None:
        headers["Retry-After"] = f"{fault.retry_after_s:g}"
    return web.json_response(dialect.refusal(status), status=status, headers=headers)


async def _cut(request: web.Request, text: str) -> web.StreamResponse:
    body = text.encode()
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", "Content-Length": str(len(body))}
    )
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return _dropped(request)
