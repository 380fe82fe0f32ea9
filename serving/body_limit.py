"""No request's body is read beyond a limit: one caller must not fill the memory of all."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from tradewind.errors import ErrorCode, TradewindError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class TooLargeError(Exception):
    """A body that was announced shorter than it came, or not at all."""


class BodyLimit:
    """ASGI middleware: 413 for a body that is announced, or turns out, larger than the limit.

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
        """Refuse at once what is announced as too large, else count what comes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._limit:
            await self._refuse(send)
            return
        taken = 0
        over = False

        async def counted() -> Message:
            nonlocal taken, over
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit:
                over = True
                raise TooLargeError
            return message

        async def guarded(message: Message) -> None:
            # Whatever the frameworks make of the interrupted reading, the answer is ours.
            if not over:
                await send(message)

        try:
            await self._app(scope, counted, guarded)
        except Exception:
            if not over:
                raise
        if over:
            await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        error = TradewindError(
            ErrorCode.BAD_INPUT,
            f"the body is larger than serving.max_body_bytes = {self._limit}",
            "Ask for fewer symbols in one request, or raise TRADEWIND_SERVING__MAX_BODY_BYTES",
        )
        payload = json.dumps(error.body()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(payload)).encode()),
            (b"connection", b"close"),  # the rest of the body is not read
        ]
        status = int(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": payload})
