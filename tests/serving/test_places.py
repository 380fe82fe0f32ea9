"""Heavy requests beyond their places are refused; light ones and what is no request pass."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from serving.errors import ErrorContract
from serving.http import PREFIX, api
from serving.places import HEAVY_PATHS, HeavyPlaces


class Inside:
    """An app that answers when told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        await self.go.wait()
        if scope["path"].endswith("ensemble"):
            raise RuntimeError("broken")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


async def ask(app: Any, path: str) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    await app({"type": "http", "path": path, "method": "GET"}, receive, send)
    return sent


def test_only_heavy_requests_are_counted_and_places_are_given_back() -> None:
    async def story() -> None:
        inside = Inside()
        counted: list[tuple[str, str]] = []
        app = ErrorContract(
            HeavyPlaces(inside, places=2),
            retry_after_s=3,
            refusal_pause_s=0,
            on_error=lambda kind, path: counted.append((kind, path)),
        )
        running = [
            asyncio.create_task(ask(app, path))
            for path in ("/ml/predict_deep", "/ml/predict_ensemble", "/ml/predict", "/ml/predict")
        ]
        await asyncio.sleep(0)
        assert len(inside.paths) == 4
        start, body = await ask(app, "/predict_deep")
        assert start["status"] == 429
        assert (b"retry-after", b"3") in start["headers"]
        assert json.loads(body["body"])["error"] == "overloaded"
        assert len(inside.paths) == 4, "a refused request reaches nothing"
        inside.go.set()
        answers = [await task for task in running]
        assert [answer[0]["status"] for answer in answers] == [200, 500, 200, 200]
        assert (await ask(app, "/ml/predict_deep"))[0]["status"] == 200
        assert (await ask(app, "/ml/predict_many"))[0]["status"] == 200
        assert counted == [("overloaded", "/predict_deep"), ("internal", "/ml/predict_ensemble")]

    asyncio.run(story())


def test_a_refusal_from_inside_holds_no_place_while_it_waits_to_be_sent() -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 429, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def story() -> None:
        app = ErrorContract(
            HeavyPlaces(refusing, places=1),
            retry_after_s=3,
            refusal_pause_s=60,
            on_error=lambda kind, path: None,
        )
        waiting = [asyncio.create_task(ask(app, "/ml/predict_deep")) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()

    reached: list[str] = []
    asyncio.run(story())
    assert reached == ["/ml/predict_deep"] * 2


def test_the_heavy_paths_exist() -> None:
    ours = {f"{PREFIX}{route.path}" for route in api.routes}  # type: ignore[attr-defined]
    assert {path for path in HEAVY_PATHS if path.startswith(PREFIX)} <= ours
