"""The error contract: foreign error bodies become ours, good answers pass untouched."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import STATUS, ErrorContract, contract_of, status_of
from tradewind.errors import ErrorCode, TradewindError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "api.md"
SCOPE = {"path": "/ml/predict", "method": "GET"}


@pytest.mark.parametrize(
    ("status", "body", "answered", "error"),
    [
        (
            422,
            {"detail": [{"loc": ["query", "n"], "msg": "too big", "input": "7"}]},
            422,
            "bad_input",
        ),
        (
            400,
            {"error": "1 validation error", "detail": [{"loc": [], "msg": "x"}]},
            422,
            "bad_input",
        ),
        (400, {"error": "other"}, 422, "bad_input"),
        (404, {"detail": "Not Found"}, 404, "bad_input"),
        (405, None, 405, "bad_input"),
        (415, {"error": "no pickle"}, 415, "bad_input"),
        (429, {"error": "Too many requests"}, 429, "overloaded"),
        (504, {"error": "Not able to process"}, 503, "overloaded"),
        (500, {"error": "An unexpected error"}, 500, "internal"),
        (503, {"error": "stale_features", "detail": "d", "hint": "h"}, 503, "stale_features"),
    ],
)
def test_every_origin_gets_the_one_form(status: int, body: Any, answered: int, error: str) -> None:
    content = b"plain text" if body is None else json.dumps(body).encode()
    found_status, found = contract_of(status, content, dict(SCOPE))
    assert (found_status, found["error"]) == (answered, error)
    assert set(found) == {"error", "detail", "hint"}


def test_a_validation_error_names_field_and_value() -> None:
    body = {"detail": [{"loc": ["query", "n_samples"], "msg": "must be ≤ 1000", "input": "2000"}]}
    _, found = contract_of(422, json.dumps(body).encode(), dict(SCOPE))
    assert found["detail"] == "n_samples = '2000': must be ≤ 1000"


@given(st.integers(400, 599), st.binary(max_size=200))
def test_any_body_at_all_gets_the_one_form(status: int, body: bytes) -> None:
    _, found = contract_of(status, body, dict(SCOPE))
    assert set(found) == {"error", "detail", "hint"}


async def _run(
    app: Any, refusal_pause_s: float = 0
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    sent: list[dict[str, Any]] = []
    counted: list[tuple[str, str]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    contract = ErrorContract(
        app,
        retry_after_s=3,
        refusal_pause_s=refusal_pause_s,
        on_error=lambda kind, path: counted.append((kind, path)),
    )
    await contract({"type": "http", **SCOPE}, receive, send)
    return sent, counted


def run(app: Any) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    return asyncio.run(_run(app))


def test_a_good_answer_passes_untouched_in_pieces() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    sent, counted = run(app)
    assert [message.get("body") for message in sent] == [None, b"a", b"b"]
    assert counted == []


def test_an_overload_says_when_to_come_back_and_is_counted() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"99"), (b"x-kept", b"1")]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    sent, counted = run(app)
    headers = dict(sent[0]["headers"])
    assert headers[b"retry-after"] == b"3"
    assert headers[b"x-kept"] == b"1"
    assert int(headers[b"content-length"]) == len(sent[1]["body"])
    assert counted == [("overloaded", "/ml/predict")]


@pytest.mark.parametrize(("status", "waits"), [(429, True), (503, False), (404, False)])
def test_only_a_refusal_of_one_too_many_waits_before_it_is_sent(status: int, waits: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def sent_within(limit_s: float) -> bool:
        answering = asyncio.create_task(_run(app, refusal_pause_s=60))
        done, _ = await asyncio.wait([answering], timeout=limit_s)
        if done:
            assert answering.result()[0][0]["status"] == status
        answering.cancel()
        return bool(done)

    assert asyncio.run(sent_within(0.2)) is not waits


def test_an_exception_before_any_answer_becomes_one() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("secret")

    sent, counted = run(app)
    assert sent[0]["status"] == 500
    assert b"secret" not in sent[1]["body"]
    assert counted == [("internal", "/ml/predict")]


def test_an_exception_inside_a_good_answer_is_not_hidden() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        run(app)


def test_an_error_nobody_can_act_on_is_a_500() -> None:
    assert status_of(TradewindError(ErrorCode.INTERNAL, "d", "h")) == 500


def test_the_docs_name_every_error_with_its_status() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for code, status in STATUS.items():
        assert any(
            f"`{code.value}`" in line and f"| {int(status)}" in line for line in text.splitlines()
        ), f"{code.value} with {int(status)} is not in docs/api.md"
