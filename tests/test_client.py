"""The client of serving against a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from tradewind.client import AsyncServingClient, ServingClient, ServingProblem
from tradewind.contracts import Action, Prediction, Signal, Vote
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import ServingSettings

PATIENCE = ServingSettings(client_timeout_s=5, client_attempts=3, client_backoff_s=0.01)


def prediction(symbol: str, **changes: Any) -> Prediction:
    values: dict[str, Any] = {
        "symbol": symbol,
        "model_type": "lightgbm",
        "p_up": 0.6,
        "mu": 0.001,
        "uncertainty": 0.01,
        "epistemic": 0.002,
        "aleatoric": 0.009,
        "epistemic_p": 0.01,
        "confidence": 0.2,
        "conviction": 0.5,
        "signal": Signal.ENTRY_LONG,
        "model_version": "tradewind.lightgbm.BTCUSDT/1",
        "bar_ts": 1_735_689_600_000,
        "staleness_s": 0.0,
    }
    return Prediction(**(values | changes))


VOTE = Vote(
    family="lightgbm",
    model_version="tradewind.lightgbm.BTCUSDT/1",
    action=Action.BUY,
    p_up=0.6,
    mu=0.001,
    confidence=0.2,
    weight=0.01,
)


class Seen:
    """What the server was asked, and how ready it says it is."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.bodies: list[dict[str, Any]] = []
        self.ready = True


def build_app(seen: Seen) -> FastAPI:
    app = FastAPI()

    def refuse(status: int, code: str) -> JSONResponse:
        body = {"error": code, "detail": f"detail of {code}", "hint": f"hint of {code}"}
        return JSONResponse(body, status_code=status)

    @app.get("/ml/predict")
    def predict(request: Request, symbol: str) -> Any:
        seen.requests.append(request)
        if symbol == "DOGEUSDT":
            return refuse(404, "unknown_symbol")
        if symbol == "NEWCODE":
            return refuse(500, "a_code_of_the_future")
        if symbol == "HTML":
            return PlainTextResponse("<html>proxy</html>", status_code=502)
        if symbol == "BARE":
            return JSONResponse({"message": "no"}, status_code=500)
        if symbol == "ALIEN":
            return {"symbol": symbol, "p_up": 7}
        if symbol == "SLOW":
            time.sleep(0.5)
        return prediction(symbol).model_dump(mode="json")

    @app.get("/ml/predict_deep")
    def predict_deep(request: Request, symbol: str, n_samples: int, shadow: int) -> Any:
        seen.requests.append(request)
        if shadow:
            return refuse(404, "no_challenger")
        made = prediction(symbol, model_type="deep_transformer", mc_samples=n_samples)
        return made.model_dump(mode="json")

    @app.get("/ml/predict_ensemble")
    def predict_ensemble(symbol: str) -> Any:
        made = prediction(symbol, model_type="ensemble", consensus="strong", votes=(VOTE,))
        return made.model_dump(mode="json")

    @app.post("/ml/predict_many")
    async def predict_many(request: Request) -> Any:
        body = await request.json()
        seen.bodies.append(body)
        ids = body["decision_ids"] or {}
        return {
            "predictions": [
                prediction(symbol, decision_id=ids.get(symbol, "")).model_dump(mode="json")
                for symbol in body["symbols"]
                if symbol.startswith("BTC")
            ],
            "problems": [
                {"symbol": symbol, "error": "not_enough_bars", "detail": "90 missing", "hint": "h"}
                for symbol in body["symbols"]
                if symbol.startswith("ETH")
            ],
        }

    @app.get("/ml/models/status")
    def status() -> Any:
        return {"models": []}

    @app.get("/readyz")
    def readyz() -> Any:
        return PlainTextResponse("", status_code=200 if seen.ready else 503)

    return app


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="module")
def url(seen: Seen) -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(build_app(seen), log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(url: str) -> Iterator[ServingClient]:
    with ServingClient(url, settings=PATIENCE) as opened:
        yield opened


def test_predict_sends_symbol_and_decision_id(client: ServingClient, seen: Seen) -> None:
    answer = client.predict("BTCUSDT", decision_id="abc")
    assert answer == prediction("BTCUSDT")
    assert dict(seen.requests[-1].query_params) == {"symbol": "BTCUSDT", "decision_id": "abc"}


def test_predict_deep_takes_the_number_of_passes_from_the_settings(client: ServingClient) -> None:
    assert client.predict_deep("BTCUSDT").mc_samples == ServingSettings().n_samples
    assert client.predict_deep("BTCUSDT", n_samples=50).mc_samples == 50


def test_ensemble_carries_the_votes(client: ServingClient) -> None:
    answer = client.predict_ensemble("BTCUSDT")
    assert answer.votes == (VOTE,)
    assert answer.consensus == "strong"


def test_many_answers_every_symbol_asked_in_order(client: ServingClient, seen: Seen) -> None:
    symbols = ["ETHUSDT", "BTCUSDT", "SOLUSDT"]
    answers = client.predict_ensemble_many(symbols, decision_ids={"BTCUSDT": "id-1"})
    assert list(answers) == symbols
    assert seen.bodies[-1] == {
        "kind": "ensemble",
        "symbols": symbols,
        "decision_ids": {"BTCUSDT": "id-1"},
        "n_samples": 20,
    }
    known = answers["BTCUSDT"]
    assert isinstance(known, Prediction)
    assert known.decision_id == "id-1"
    missing = answers["ETHUSDT"]
    assert isinstance(missing, ServingProblem)
    assert missing.to_error().code is ErrorCode.NOT_ENOUGH_BARS
    forgotten = answers["SOLUSDT"]
    assert isinstance(forgotten, ServingProblem)
    assert "SOLUSDT" in forgotten.detail


@pytest.mark.parametrize(
    ("symbol", "code", "words"),
    [
        ("DOGEUSDT", ErrorCode.UNKNOWN_SYMBOL, "detail of unknown_symbol"),
        ("NEWCODE", ErrorCode.INTERNAL, "detail of a_code_of_the_future"),
        ("HTML", ErrorCode.INTERNAL, "HTTP 502, not understood: it is not JSON"),
        ("BARE", ErrorCode.INTERNAL, "HTTP 500, not understood"),
        ("ALIEN", ErrorCode.INTERNAL, "breaks the contract at "),
    ],
)
def test_errors_keep_the_servers_words(
    client: ServingClient, symbol: str, code: ErrorCode, words: str
) -> None:
    with pytest.raises(TradewindError) as caught:
        client.predict(symbol)
    assert caught.value.code is code
    assert words in caught.value.detail
    assert caught.value.hint


def test_an_error_answer_is_not_asked_for_twice(client: ServingClient, seen: Seen) -> None:
    before = len(seen.requests)
    with pytest.raises(TradewindError):
        client.predict("NEWCODE")
    assert len(seen.requests) == before + 1


def test_no_challenger_is_its_own_error(client: ServingClient) -> None:
    with pytest.raises(TradewindError) as caught:
        client.predict_deep("BTCUSDT", shadow=True)
    assert caught.value.code is ErrorCode.NO_CHALLENGER


def test_ready_and_status(client: ServingClient, seen: Seen) -> None:
    assert client.status() == {"models": []}
    assert client.ready()
    seen.ready = False
    try:
        assert not client.ready()
    finally:
        seen.ready = True


def test_a_slow_answer_times_out_without_a_repeat(url: str, seen: Seen) -> None:
    before = len(seen.requests)
    with (
        ServingClient(url, settings=PATIENCE, timeout_s=0.1) as impatient,
        pytest.raises(TradewindError) as caught,
    ):
        impatient.predict("SLOW")
    assert caught.value.code is ErrorCode.SERVING_UNREACHABLE
    assert "within 0.1 s" in caught.value.detail
    assert len(seen.requests) == before + 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_refused_connection_names_address_and_command() -> None:
    port = free_port()
    settings = PATIENCE.model_copy(update={"port": port})
    with ServingClient(settings=settings) as lonely:
        with pytest.raises(TradewindError) as caught:
            lonely.predict("BTCUSDT")
        assert not lonely.ready()
    assert caught.value.code is ErrorCode.SERVING_UNREACHABLE
    assert f"http://127.0.0.1:{port}" in caught.value.detail
    assert "tradewind serve" in caught.value.hint


class DroppingServer:
    """Accepts connections; hangs up on the first ``drops`` of them, then answers JSON."""

    def __init__(self, drops: int) -> None:
        self.drops = drops
        self.accepted = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> DroppingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed by the test
            self.accepted += 1
            with connection:
                connection.recv(65536)
                if self.accepted > self.drops:
                    body = b'{"models": ["up"]}'
                    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                    connection.sendall(head.encode() + body)


def test_a_read_survives_a_dropped_connection() -> None:
    with DroppingServer(drops=2) as server, ServingClient(server.url, settings=PATIENCE) as client:
        assert client.status() == {"models": ["up"]}
        assert server.accepted == 3


def test_repeats_are_bounded() -> None:
    with DroppingServer(drops=99) as server, ServingClient(server.url, settings=PATIENCE) as client:
        with pytest.raises(TradewindError) as caught:
            client.status()
        assert caught.value.code is ErrorCode.SERVING_UNREACHABLE
        assert server.accepted == PATIENCE.client_attempts


def test_a_request_for_many_that_was_sent_is_not_sent_again() -> None:
    with DroppingServer(drops=99) as server, ServingClient(server.url, settings=PATIENCE) as client:
        with pytest.raises(TradewindError):
            client.predict_ensemble_many(["BTCUSDT"])
        assert server.accepted == 1


def test_proxy_of_the_environment_is_not_used(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with ServingClient(url, settings=PATIENCE) as client:
        assert client.ready()


def test_async_client_gives_the_same_answers_and_errors(url: str) -> None:
    async def ask() -> tuple[Any, ...]:
        async with AsyncServingClient(url, settings=PATIENCE) as client:
            both = await asyncio.gather(client.predict("BTCUSDT"), client.predict("ETHUSDT"))
            many = await client.predict_ensemble_many(["BTCUSDT", "ETHUSDT"])
            with pytest.raises(TradewindError) as caught:
                await client.predict("DOGEUSDT")
            deep = await client.predict_deep("BTCUSDT", n_samples=7)
            ensemble = await client.predict_ensemble("BTCUSDT")
            return (
                both,
                many,
                caught.value,
                deep,
                ensemble,
                await client.status(),
                (await client.ready()),
            )

    both, many, error, deep, ensemble, status, ready = asyncio.run(ask())
    assert [answer.symbol for answer in both] == ["BTCUSDT", "ETHUSDT"]
    assert isinstance(many["BTCUSDT"], Prediction)
    assert isinstance(many["ETHUSDT"], ServingProblem)
    assert error.code is ErrorCode.UNKNOWN_SYMBOL
    assert deep.mc_samples == 7
    assert ensemble.votes == (VOTE,)
    assert (status, ready) == ({"models": []}, True)


def test_async_refused_connection() -> None:
    async def ask() -> None:
        async with AsyncServingClient(f"http://127.0.0.1:{free_port()}", settings=PATIENCE) as c:
            assert not await c.ready()
            await c.predict("BTCUSDT")

    with pytest.raises(TradewindError) as caught:
        asyncio.run(ask())
    assert caught.value.code is ErrorCode.SERVING_UNREACHABLE


@pytest.mark.parametrize("kind", [ServingClient, AsyncServingClient])
def test_an_address_without_its_scheme_is_refused_at_once(
    kind: type[ServingClient | AsyncServingClient],
) -> None:
    with pytest.raises(TradewindError, match=r"url = 'localhost:3000' is no web address") as found:
        kind("localhost:3000")
    assert found.value.code is ErrorCode.BAD_INPUT
    assert found.value.hint == "Begin it with http://"


def test_one_text_is_not_taken_for_a_list_of_letters(client: ServingClient, seen: Seen) -> None:
    before = len(seen.bodies)
    with pytest.raises(TradewindError, match=r"symbols = 'BTCUSDT' is one text") as found:
        client.predict_many("deep", "BTCUSDT")
    assert found.value.code is ErrorCode.BAD_INPUT
    assert found.value.hint == "Pass ['BTCUSDT']"
    assert len(seen.bodies) == before
