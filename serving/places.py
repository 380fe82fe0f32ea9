"""Heavy requests may take only a share of the places: light ones and probes always find one.

A deep forward takes a hundred times as long as a boosted one; without this, deep requests would
hold every place of ``serving.max_concurrency``, and `/ml/predict` would be refused with them.
"""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus
from typing import TYPE_CHECKING

from serving.errors import refuse
from tradewind.errors import ErrorCode, TradewindError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HEAVY_PATHS = frozenset(
    {
        "/ml/predict_deep",
        "/ml/predict_ensemble",
        "/ml/predict_many",
        "/predict_deep",
        "/predict_ensemble",
    }
)


class HeavyPlaces:
    """ASGI middleware: refuses heavy requests beyond ``places`` with 429, before any work.

    Parameters
    ----------
    app
        The application inside.
    places
        Heavy requests answered at the same time.
    paths
        Which are heavy.
    """

    def __init__(self, app: ASGIApp, *, places: int, paths: Collection[str] = HEAVY_PATHS) -> None:
        self._app = app
        self._places = places
        self._paths = paths
        self._taken = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on if it is light, or if a place is free."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        if self._taken >= self._places:
            error = self._refusal(scope["path"])
            await refuse(error, HTTPStatus.TOO_MANY_REQUESTS, scope, receive, send)
            return
        self._taken += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._taken -= 1

    def _refusal(self, path: str) -> TradewindError:
        return TradewindError(
            ErrorCode.OVERLOADED,
            f"{path} refused: {self._places} such requests are already being answered",
            "Ask again after the time in Retry-After, or raise serving.max_concurrency",
        )
