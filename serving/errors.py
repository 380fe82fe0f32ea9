"""The one error contract: every refusal is ``{error, detail, hint}``, never a stack trace.

FastAPI, BentoML's own API and its traffic limits each have an error form of their own;
`ErrorContract` stands around them all and turns whatever they say into ours.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tradewind.errors import ErrorCode, TradewindError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("tradewind.serving")

STATUS: Mapping[ErrorCode, int] = {
    ErrorCode.BAD_INPUT: HTTPStatus.UNPROCESSABLE_ENTITY,
    ErrorCode.UNKNOWN_SYMBOL: HTTPStatus.NOT_FOUND,
    ErrorCode.NO_CHALLENGER: HTTPStatus.NOT_FOUND,
    ErrorCode.UNKNOWN_VERSION: HTTPStatus.NOT_FOUND,
    ErrorCode.NO_BARS: HTTPStatus.CONFLICT,
    ErrorCode.NOT_ENOUGH_BARS: HTTPStatus.CONFLICT,
    ErrorCode.OUT_OF_RANGE: HTTPStatus.CONFLICT,
    ErrorCode.OVERLOADED: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.STALE_FEATURES: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.NO_CHAMPION: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.MODEL_UNUSABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.MODEL_EXPIRED: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.TRACKING_UNREACHABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.DATA_UNREADABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.CORRUPT_FILE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.LEDGER_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}
SHOWN_FAULTS = 5
CONTRACT_FIELDS = ("error", "detail", "hint")
SEE_DOCS = "docs/api.md lists the endpoints and their parameters"
OVERLOAD_STATUSES = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.GATEWAY_TIMEOUT)


def status_of(error: TradewindError) -> int:
    """Return the HTTP status of an error; 500 for one that no caller can act on."""
    return int(STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR))


async def refuse(
    error: TradewindError,
    status: HTTPStatus,
    *asgi: Any,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer from a middleware, before any framework; ``asgi`` is scope, receive and send."""
    from starlette.responses import JSONResponse

    await JSONResponse(error.body(), status_code=status, headers=headers)(*asgi)


class ErrorContract:
    """ASGI middleware: rewrites foreign error bodies, and adds Retry-After to an overload.

    Parameters
    ----------
    app
        The application inside.
    retry_after_s
        Seconds a caller is asked to wait when the server is overloaded.
    refusal_pause_s
        Seconds after which a 429 is sent. Callers that ask again at once, whatever Retry-After
        says, would otherwise take the processor from those that were let in.
    on_error
        Told the kind and the path of every error answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        retry_after_s: int,
        refusal_pause_s: float,
        on_error: Callable[[str, str], None],
    ) -> None:
        self._app = app
        self._retry_after_s = retry_after_s
        self._refusal_pause_s = refusal_pause_s
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass good answers through untouched; hold an error until the application has ended.

        So long as it waits to be sent, it holds no place in there.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held: Message | None = None
        begun = whole = False
        body = bytearray()

        async def send_checked(message: Message) -> None:
            nonlocal held, begun, whole
            if message["type"] == "http.response.start" and message["status"] >= 400:
                held = message
            elif held is None:
                begun = True
                await send(message)
            else:
                body.extend(message.get("body", b""))
                whole = not message.get("more_body", False)

        try:
            await self._app(scope, receive, send_checked)
        except Exception:
            # The frameworks answer 500 and raise again, for the server to log and to drop
            # the connection with every request behind it; logged here, answered, and kept.
            log.exception("%s %s failed", scope["method"], scope["path"])
            if begun:
                raise  # part of a good answer is out: only a dropped connection tells
            if not whole:
                held, body = {"status": int(HTTPStatus.INTERNAL_SERVER_ERROR)}, bytearray()
        if held is not None:
            await self._send_error(send, held, bytes(body), scope)

    async def _send_error(self, send: Send, start: Message, body: bytes, scope: Scope) -> None:
        status, content = contract_of(start["status"], body, scope)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            await asyncio.sleep(self._refusal_pause_s)
        self._on_error(content["error"], scope["path"])
        payload = json.dumps(content, ensure_ascii=False).encode()
        headers = [
            (name, value)
            for name, value in start.get("headers", [])
            if name.lower() not in (b"content-length", b"content-type", b"retry-after")
        ]
        headers += [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(payload)).encode()),
        ]
        if content["error"] == ErrorCode.OVERLOADED.value:
            headers.append((b"retry-after", str(self._retry_after_s).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": payload})


def contract_of(
    status: int, body: bytes, scope: MutableMapping[str, Any]
) -> tuple[int, dict[str, str]]:
    """Return status and ``{error, detail, hint}`` for an error answer of any origin."""
    content = _json(body)
    if _is_contract(content):
        return status, {name: str(content[name]) for name in CONTRACT_FIELDS}
    path = scope.get("path", "")
    if status in OVERLOAD_STATUSES:
        error = TradewindError(
            ErrorCode.OVERLOADED,
            _overload(status, path),
            "Ask again after the time in Retry-After, or raise serving.max_concurrency",
        )
        answer = HTTPStatus.SERVICE_UNAVAILABLE if status != 429 else status
        return int(answer), error.body()
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
        return HTTPStatus.UNPROCESSABLE_ENTITY, bad_input(content)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return status, _refused(status, path, scope.get("method", ""))
    error = TradewindError(
        ErrorCode.INTERNAL,
        f"{path} failed (HTTP {status})",
        "Look into serving's log for the request at this time",
    )
    return status, error.body()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:  # plain text, as some of the frameworks' own errors are
        return None


def _is_contract(content: Any) -> bool:
    return isinstance(content, dict) and all(
        isinstance(content.get(name), str) for name in CONTRACT_FIELDS
    )


def _overload(status: int, path: str) -> str:
    if status == HTTPStatus.GATEWAY_TIMEOUT:
        return f"{path} was not answered within serving.timeout_s"
    return f"{path} refused: serving.max_concurrency requests are already being answered"


def bad_input(content: Any) -> dict[str, str]:
    """Name the field and the fault of a validation error, FastAPI's or BentoML's."""
    faults = content.get("detail") if isinstance(content, dict) else None
    if isinstance(faults, list) and faults and isinstance(faults[0], dict):
        detail = "; ".join(_fault(fault) for fault in faults[:SHOWN_FAULTS])
        if len(faults) > SHOWN_FAULTS:
            detail += f"; and {len(faults) - SHOWN_FAULTS} more"
    else:
        detail = "the request cannot be read as what this endpoint takes"
    return TradewindError(ErrorCode.BAD_INPUT, detail, SEE_DOCS).body()


def _fault(fault: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in fault.get("loc", ()) if part not in ("query", "body"))
    given = f" = {fault['input']!r}" if isinstance(fault.get("input"), str | int | float) else ""
    return f"{where or 'body'}{given}: {fault.get('msg', 'not valid')}"


def _refused(status: int, path: str, method: str) -> dict[str, str]:
    known = {item.value: item.phrase.lower() for item in HTTPStatus}
    phrase = known.get(status, f"refused with HTTP {status}")
    return TradewindError(ErrorCode.BAD_INPUT, f"{method} {path}: {phrase}", SEE_DOCS).body()
