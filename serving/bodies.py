"""Only JSON is read, and no body beyond a limit: one caller must not fill the memory of all.

BentoML also reads forms, and fails on a malformed one; FastAPI reads JSON whatever it is called.
Both read half of a surrogate pair, which no answer can name. NaN they read too: where it stands is
named by the endpoint.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from serving.errors import refuse
from tradewind.errors import ErrorCode, TradewindError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


JSON: Final = b"application/json"
WITH_BODY: Final = ("POST", "PUT", "PATCH")
UNSUPPORTED: Final = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
UNPROCESSABLE: Final = HTTPStatus.UNPROCESSABLE_ENTITY
TOO_LARGE: Final = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
CLOSE: Final = {"connection": "close"}
"""What is left of a refused body is not read."""


class TooLargeError(Exception):
    """A body that was announced shorter than it came, or not at all."""


class JsonBodies:
    """ASGI middleware: 415 for another content type than JSON, 422 for no JSON, 413 for too much.

    A body counts as JSON where no type is named. One that is larger than announced, or announced
    not at all, is refused as soon as the limit is passed.

    Parameters
    ----------
    app
        The application inside.
    limit_bytes
        The largest body that is read.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse at once what is announced as too large; read the rest, and look at it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        kind = headers.get(b"content-type", JSON).split(b";")[0].strip().lower()
        reads = scope["method"] in WITH_BODY
        if reads and kind != JSON:
            await refuse(_not_json(kind), UNSUPPORTED, scope, receive, send, headers=CLOSE)
            return
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limit:
            await refuse(self._too_large(), TOO_LARGE, scope, receive, send, headers=CLOSE)
            return
        if not reads:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._whole(receive)
        except TooLargeError:
            await refuse(self._too_large(), TOO_LARGE, scope, receive, send, headers=CLOSE)
            return
        fault = fault_of(body)
        if fault:
            await refuse(_no_json(fault), UNPROCESSABLE, scope, receive, send, headers=CLOSE)
            return
        given = False

        async def once() -> Message:
            nonlocal given
            if given:
                return await receive()  # that the caller has gone
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, once, send)

    async def _whole(self, receive: Receive) -> bytes:
        """Return the body; what was read of one that is cut off is refused as no JSON."""
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._limit:
                raise TooLargeError
            if message["type"] != "http.request" or not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> TradewindError:
        return TradewindError(
            ErrorCode.BAD_INPUT,
            f"the body is larger than serving.max_body_bytes = {self._limit}",
            "Ask for fewer symbols in one request, or raise TRADEWIND_SERVING__MAX_BODY_BYTES",
        )


def fault_of(body: bytes) -> str:
    """Return why ``body`` is no JSON, nothing where it is, or where there is none."""
    if not body:
        return ""
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair"
    except RecursionError:
        return "it is nested too deep"
    except ValueError as error:  # of the syntax or of the encoding
        return str(error)
    return ""


def _no_json(fault: str) -> TradewindError:
    return TradewindError(
        ErrorCode.BAD_INPUT,
        f"the body is not what JSON allows: {fault}",
        "Send one JSON object, in UTF-8",
    )


def _not_json(kind: bytes) -> TradewindError:
    return TradewindError(
        ErrorCode.BAD_INPUT,
        f"content-type = {kind.decode('latin-1')!r} is not read here",
        "Send JSON, with content-type: application/json",
    )
