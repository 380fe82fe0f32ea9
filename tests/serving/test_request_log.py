"""One line a request, with ids that lead from the caller to the ledger."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from serving import request_log
from serving.request_log import LineFormatter, RequestLog, configure_logging

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Configure logging as a worker does, and put it back afterwards."""
    ours = logging.getLogger("tradewind")
    before = ours.handlers, ours.level, ours.propagate
    text = io.StringIO()
    configure_logging("auto", text)
    yield text
    ours.handlers, ours.level, ours.propagate = before


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def answering(request: Request) -> PlainTextResponse:
    """Answer in a thread, as FastAPI's plain handlers and BentoML's methods do."""
    note = request_log.current()
    assert note is not None
    note.symbols.append("BTCUSDT")
    note.decision_ids.append("d-1")
    logging.getLogger("tradewind.serving").warning("half-way")
    return PlainTextResponse(request_log.ledger_id())


def raising(request: Request) -> PlainTextResponse:
    raise ValueError("no\nanswer")


@pytest.fixture
def app() -> ASGIApp:
    paths = {"/ml/predict": answering, "/livez": answering, "/raise": raising}
    return RequestLog(Starlette(routes=[Route(path, it) for path, it in paths.items()]))


async def _get(app: ASGIApp, path: str, **headers: str | bytes) -> httpx.Response:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        sent = [(n, v if isinstance(v, bytes) else v.encode()) for n, v in headers.items()]
        return await client.get(path, headers=[(n.encode(), v) for n, v in sent])


def get(app: ASGIApp, path: str, **headers: str | bytes) -> httpx.Response:
    import asyncio

    return asyncio.run(_get(app, path, **headers))


def test_a_request_is_one_line_with_its_ids(app: ASGIApp, lines: Lines) -> None:
    answer = get(app, "/ml/predict?symbol=BTCUSDT")
    own, access = lines()
    assert own["message"] == "half-way"
    assert own["request_id"] == access["request_id"] == answer.headers["x-request-id"]
    assert answer.text == access["request_id"], "the ledger's id is the request's"
    assert access["latency_ms"] > 0
    shown = {name: access[name] for name in ("level", "method", "path", "status")}
    assert shown == {"level": "INFO", "method": "GET", "path": "/ml/predict", "status": 200}
    assert (access["symbols"], access["decision_ids"]) == (["BTCUSDT"], ["d-1"])


def test_the_caller_s_id_is_kept_and_unique_in_the_ledger(app: ASGIApp, lines: Lines) -> None:
    given = {"X-Request-ID": "order-7.a_B"}
    first, second = (get(app, "/ml/predict", **given) for _ in range(2))
    assert first.headers["x-request-id"] == "order-7.a_B"
    assert {line["request_id"] for line in lines()} == {"order-7.a_B"}
    assert first.text.startswith("order-7.a_B~")
    assert first.text != second.text
    assert len(first.text) <= 64


@pytest.mark.parametrize("given", ["", "a b", "x" * 56, "ü", 'a"b', "../x"])
def test_an_unsound_id_is_replaced(app: ASGIApp, lines: Lines, given: str) -> None:
    answer = get(app, "/ml/predict", **{"X-Request-ID": given.encode()})
    assert answer.status_code == 200
    assert len(answer.headers["x-request-id"]) == 32
    assert len(lines()) == 2


def test_a_failure_is_logged_with_its_status(app: ASGIApp, lines: Lines) -> None:
    answer = get(app, "/raise")
    (line,) = lines()
    assert line["status"] == 500
    assert line["request_id"] == answer.headers["x-request-id"]


def test_probes_are_quiet(app: ASGIApp, lines: Lines) -> None:
    assert get(app, "/livez").status_code == 200
    assert [line["message"] for line in lines()] == ["half-way"]


def test_a_long_request_is_shortened(app: ASGIApp, lines: Lines) -> None:
    note = request_log.RequestNote("r", symbols=["S" * 1000] * 500)
    scope = {"path": "/p" * 5000, "method": "POST"}
    request_log._say(scope, note, 200, 1.0)
    (line,) = lines()
    assert line["symbols_asked"] == 500
    assert len(json.dumps(line)) < 3000


def test_secrets_and_line_breaks_stay_out(stream: io.StringIO) -> None:
    logger = logging.getLogger("tradewind.test")
    try:
        raise ValueError("postgresql://tw:s3cret@host/db is down")
    except ValueError:
        logger.exception("two\nlines, postgresql://tw:s3cret@host/db")
    as_json = stream.getvalue()
    stream.truncate(0)
    configure_logging("text", stream)
    try:
        raise ValueError("postgresql://tw:s3cret@host/db is down")
    except ValueError:
        logger.exception("two\nlines, postgresql://tw:s3cret@host/db")
    for text in (as_json, stream.getvalue()):
        assert "s3cret" not in text
        assert "ValueError" in text
        assert text.count("\n") == 1


def test_threads_do_not_share_a_note(app: ASGIApp, lines: Lines) -> None:
    threads = [
        threading.Thread(target=get, args=(app, "/ml/predict"), kwargs={"X-Request-ID": f"r{i}"})
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [(line["message"], line["request_id"]) for line in lines()]
    assert sorted(found) == sorted(
        (message, f"r{i}") for i in range(8) for message in ("half-way", "request")
    )
    assert request_log.current() is None


def test_both_forms_of_a_line() -> None:
    record = logging.LogRecord("tradewind.x", logging.INFO, "", 0, "hello %s", ("you",), None)
    record.fields = {"status": 200}
    assert json.loads(LineFormatter(as_json=True).format(record))["message"] == "hello you"
    text = LineFormatter(as_json=False).format(record)
    assert text.endswith("INFO tradewind.x hello you status=200")
