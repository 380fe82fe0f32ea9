"""Both clients against a server on loopback that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from tests.support.server_process import wait_until
from tradewind.client import AsyncServingClient, ServingClient
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import ServingSettings

LONGEST_S = 10.0
SETTINGS = ServingSettings(
    client_timeout_s=LONGEST_S, client_attempts=3, client_backoff_s=0.01, client_longest_wait_s=1.0
)
HASTY = SETTINGS.model_copy(update={"client_timeout_s": 0.4})
"""Only against servers that take their time: others may be slow because the machine is."""
Send = Callable[[socket.socket], None]


def answer(status: int, content: Any, **headers: str) -> Send:
    """Answer whole, and keep the connection open."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    names = {
        "Content-Length": str(len(body)),
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in names.items())
    text = f"HTTP/1.1 {status} Some\r\n{head}\r\n".encode() + body
    return lambda peer: peer.sendall(text)


def overloaded(status: int = 429, after: str | None = "0") -> Send:
    body = {"error": "overloaded", "detail": "too much", "hint": "later"}
    return answer(status, body, **({} if after is None else {"Retry_After": after}))


def half(peer: socket.socket) -> None:
    peer.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"models"')
    peer.shutdown(socket.SHUT_RDWR)


def nothing(peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_RDWR)


def garbage(peer: socket.socket) -> None:
    peer.sendall(b"\x00\x01 this is no HTTP \xff\r\n\r\n")
    peer.shutdown(socket.SHUT_RDWR)


def drop_by_drop(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        try:
            peer.sendall(b" ")
        except OSError:
            return  # given up
        time.sleep(0.05)


def silent(peer: socket.socket) -> None:
    peer.settimeout(LONGEST_S)
    try:
        peer.recv(1)  # until the client hangs up
    except OSError:
        return


def not_zipped(peer: socket.socket) -> None:
    answer(200, b"not gzip at all", Content_Encoding="gzip")(peer)


def one_and_close(peer: socket.socket) -> None:
    """Answer well, then close the connection that the client believes to be open."""
    GOOD(peer)
    peer.shutdown(socket.SHUT_RDWR)


GOOD = answer(200, {"models": ["up"]})
GOOD_MANY = answer(200, {"predictions": [], "problems": []})


class Server:
    """Plays its script, one step a request; the last step is repeated for ever."""

    def __init__(self, script: Sequence[Send]) -> None:
        self._script = list(script)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests = 0
        self.connections = 0
        self.ended = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(LONGEST_S)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return  # closed by the test
            self.connections += 1
            thread = threading.Thread(target=self._talk, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, peer: socket.socket) -> None:
        with peer:
            try:
                while _read_request(peer):
                    step = self._script[min(self.requests, len(self._script) - 1)]
                    self.requests += 1
                    step(peer)
            except OSError:
                pass  # the client hung up
        self.ended += 1


def _read_request(peer: socket.socket) -> bool:
    """Read a whole request, body too; False if the client hung up before."""
    text = b""
    while b"\r\n\r\n" not in text:
        part = peer.recv(65536)
        if not part:
            return False
        text += part
    head, _, body = text.partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    length = lengths[0] if lengths else 0
    while len(body) < length:
        body += peer.recv(65536)
    return True


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*script: Send) -> Server:
        started.append(Server(script))
        return started[-1]

    yield start
    for server in started:
        server.close()


class Sync:
    """The blocking client, asked once."""

    @staticmethod
    def status(url: str, settings: ServingSettings = SETTINGS) -> Any:
        with ServingClient(url, settings=settings) as client:
            return client.status()

    @staticmethod
    def many(url: str, settings: ServingSettings = SETTINGS) -> Any:
        with ServingClient(url, settings=settings) as client:
            return client.predict_ensemble_many(["BTCUSDT"])


class Async:
    """The asynchronous client, asked once."""

    @staticmethod
    def status(url: str, settings: ServingSettings = SETTINGS) -> Any:
        async def ask() -> Any:
            async with AsyncServingClient(url, settings=settings) as client:
                return await client.status()

        return asyncio.run(ask())

    @staticmethod
    def many(url: str, settings: ServingSettings = SETTINGS) -> Any:
        async def ask() -> Any:
            async with AsyncServingClient(url, settings=settings) as client:
                return await client.predict_ensemble_many(["BTCUSDT"])

        return asyncio.run(ask())


both = pytest.mark.parametrize("client", [Sync, Async])


@both
@pytest.mark.parametrize("fault", [half, nothing, garbage, overloaded(), overloaded(503)])
def test_a_read_is_repeated(client: Any, fault: Send, serve: Callable[..., Server]) -> None:
    server = serve(fault, fault, GOOD)
    assert client.status(server.url) == {"models": ["up"]}
    assert server.requests == 3


@both
@pytest.mark.parametrize("fault", [half, nothing, garbage])
def test_repeats_of_a_read_are_bounded(
    client: Any, fault: Send, serve: Callable[..., Server]
) -> None:
    server = serve(fault)
    with pytest.raises(TradewindError) as caught:
        client.status(server.url)
    assert caught.value.code is ErrorCode.SERVING_UNREACHABLE
    assert server.requests == SETTINGS.client_attempts


@both
def test_an_overload_that_lasts_is_told_in_the_server_s_words(
    client: Any, serve: Callable[..., Server]
) -> None:
    server = serve(overloaded())
    with pytest.raises(TradewindError) as caught:
        client.status(server.url)
    assert (caught.value.code, caught.value.detail) == (ErrorCode.OVERLOADED, "too much")
    assert server.requests == SETTINGS.client_attempts


@both
@pytest.mark.parametrize(
    "fault", [half, nothing, garbage, drop_by_drop, silent, overloaded(), overloaded(503)]
)
def test_what_was_sent_and_is_no_read_is_never_sent_again(
    client: Any, fault: Send, serve: Callable[..., Server]
) -> None:
    server = serve(fault, GOOD_MANY)
    settings = HASTY if fault in (drop_by_drop, silent) else SETTINGS
    with pytest.raises(TradewindError):
        client.many(server.url, settings)
    assert wait_until(lambda: server.requests > 0, LONGEST_S)
    assert server.requests == 1


@both
def test_retry_after_is_kept_to(client: Any, serve: Callable[..., Server]) -> None:
    server = serve(overloaded(503, "1"), GOOD)
    began = time.monotonic()
    assert client.status(server.url) == {"models": ["up"]}
    assert time.monotonic() - began >= 1
    assert server.requests == 2


@both
@pytest.mark.parametrize("after", ["60", None, "Wed, 21 Oct 2015 07:28:00 GMT", "-1", "1e9"])
def test_an_answer_that_names_no_short_time_is_final(
    client: Any, after: str | None, serve: Callable[..., Server]
) -> None:
    server = serve(overloaded(503, after), GOOD)
    with pytest.raises(TradewindError, match="overloaded"):
        client.status(server.url)
    assert server.requests == 1


@both
@pytest.mark.parametrize("fault", [silent, drop_by_drop])
def test_a_server_that_takes_its_time_is_given_up_once(
    client: Any, fault: Send, serve: Callable[..., Server]
) -> None:
    server = serve(fault)
    began = time.monotonic()
    with pytest.raises(TradewindError, match=r"did not answer within 0\.4 s") as caught:
        client.status(server.url, HASTY)
    assert caught.value.code is ErrorCode.SERVING_UNREACHABLE
    assert time.monotonic() - began < LONGEST_S / 2
    assert wait_until(lambda: server.requests > 0, LONGEST_S)
    assert server.requests == 1


@both
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (not_zipped, ErrorCode.SERVING_UNREACHABLE),
        (answer(200, b"{broken"), ErrorCode.INTERNAL),
        (answer(200, b"\xff\xfe"), ErrorCode.INTERNAL),
        (answer(200, []), ErrorCode.INTERNAL),
        (answer(404, {"error": "unknown_symbol"}), ErrorCode.INTERNAL),
        (answer(500, b""), ErrorCode.INTERNAL),
    ],
)
def test_what_cannot_be_understood_is_one_error_and_asked_for_once(
    client: Any, sent: Send, code: ErrorCode, serve: Callable[..., Server]
) -> None:
    server = serve(sent)
    with pytest.raises(TradewindError) as caught:
        client.status(server.url)
    assert caught.value.code is code
    assert caught.value.hint
    assert server.requests == 1


def test_one_connection_serves_many_requests(serve: Callable[..., Server]) -> None:
    server = serve(GOOD)
    with ServingClient(server.url, settings=SETTINGS) as client:
        for _ in range(5):
            client.status()
    assert (server.requests, server.connections) == (5, 1)


def test_a_connection_closed_in_between_is_opened_anew(serve: Callable[..., Server]) -> None:
    server = serve(one_and_close, one_and_close, GOOD_MANY)

    def ended(count: int) -> bool:
        return server.ended == count

    with ServingClient(server.url, settings=SETTINGS) as client:
        for closed in (1, 2):
            assert client.status() == {"models": ["up"]}
            assert wait_until(partial(ended, closed), LONGEST_S)
        client.predict_ensemble_many(["BTCUSDT"])
    assert server.connections == 3


def test_choices_of_a_version_are_sent_under_the_server_s_names(
    serve: Callable[..., Server],
) -> None:
    lines: list[bytes] = []
    server = serve(answer(404, {"error": "unknown_version", "detail": "d", "hint": "h"}))
    with ServingClient(server.url, settings=SETTINGS) as client:
        hook = client._http.event_hooks
        hook["request"] = [lambda request: lines.append(request.url.raw_path)]
        client._http.event_hooks = hook
        for ask in (
            lambda: client.predict("BTCUSDT", model_version=7),
            lambda: client.predict("BTCUSDT", alias="canary", allow_stale=True),
            lambda: client.predict_deep("BTCUSDT", n_samples=5, seed=0, model_version="a.b/1"),
        ):
            with pytest.raises(TradewindError) as caught:
                ask()
            assert caught.value.code is ErrorCode.UNKNOWN_VERSION
    assert lines == [
        b"/ml/predict?symbol=BTCUSDT&model_version=7",
        b"/ml/predict?symbol=BTCUSDT&allow_stale=1&alias=canary",
        b"/ml/predict_deep?symbol=BTCUSDT&n_samples=5&shadow=0&model_version=a.b%2F1&seed=0",
    ]
