"""Only paths that exist reach the frameworks: BentoML's metrics keep a series for every path."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus
from typing import TYPE_CHECKING

from serving.errors import refuse
from tradewind.errors import ErrorCode, TradewindError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

SHOWN_CHARACTERS = 80


class KnownPaths:
    """ASGI middleware: 404 for a path that is not served; the root leads to the page to try it on.

    Parameters
    ----------
    app
        The application inside.
    known
        The paths that are served.
    front
        Where a person who asks for ``/`` is sent.
    """

    def __init__(self, app: ASGIApp, *, known: Collection[str], front: str) -> None:
        self._app = app
        self._known = frozenset(known)
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on if its path is known."""
        if scope["type"] != "http" or scope["path"] in self._known:
            await self._app(scope, receive, send)
            return
        if scope["path"] == "/":
            from starlette.responses import RedirectResponse

            await RedirectResponse(self._front)(scope, receive, send)
            return
        error = TradewindError(
            ErrorCode.BAD_INPUT,
            f"{scope['method']} {scope['path'][:SHOWN_CHARACTERS]}: not found",
            f"See {self._front} for what there is",
        )
        await refuse(error, HTTPStatus.NOT_FOUND, scope, receive, send)
