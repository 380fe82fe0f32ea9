"""Requests at fixed arrival times, or as fast as they are answered, and what came back.

Threads with connections of their own ask; the load runs in the process that measures, so that
its own share of a latency (about 0.3 ms) is in every figure alike.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
from rich.console import Console
from rich.progress import track

TIMEOUT_S = 60.0
OK = 200
FIRST_ARRIVAL_S = 0.05
IDLE_S = 2.0
"""The server closes a connection that was idle for 5 s; an HTTP client does not use it then."""


def shown(numbers: Sequence[int], text: str) -> Iterable[int]:
    """Return the numbers, with a bar on a terminal's stderr that tells how far they are."""
    return track(numbers, description=text, console=Console(stderr=True))


@dataclass(frozen=True)
class Call:
    """A request: GET with ``params``, or POST with ``body``."""

    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None

    def send(self, connection: http.client.HTTPConnection) -> tuple[int, Any]:
        """Return status and the JSON of the answer."""
        if self.body is None:
            connection.request("GET", f"{self.path}?{urlencode(self.params)}")
        else:
            headers = {"content-type": "application/json"}
            connection.request("POST", self.path, json.dumps(self.body), headers)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content)


@dataclass(frozen=True)
class Reply:
    """An answer. ``at`` is when it was due to be asked, by the monotonic clock, in seconds.

    ``latency_s`` counts from there: a server that stalls is late for those that wait, too.
    ``status`` is 0 where there was no answer at all; ``content`` then says why.
    """

    call: Call
    at: float
    done: float
    status: int
    content: Any

    @property
    def latency_s(self) -> float:
        """Return the seconds from the due time to the whole answer."""
        return self.done - self.at

    @property
    def ok(self) -> bool:
        """Tell whether this is an answer and not a refusal."""
        return self.status == OK


class Load:
    """Threads that ask ``call(i)`` for i = 0, 1, … until `stop`; a context manager.

    Parameters
    ----------
    rate
        Requests a second, at fixed times whatever the answers do; None: each thread asks
        again once it is answered.
    limit
        Number of requests after which it ends by itself.
    keep
        False keeps failures alone, for runs of many answers; `count` counts all.
    """

    def __init__(
        self,
        url: str,
        call: Callable[[int], Call],
        *,
        rate: float | None = None,
        threads: int = 16,
        limit: int | None = None,
        keep: bool = True,
        on_reply: Callable[[Reply], None] | None = None,
    ) -> None:
        self._address = urlsplit(url).netloc
        self._call = call
        self._rate = rate
        self._numbers = itertools.count()
        self._limit = limit
        self._keep = keep
        self._on_reply = on_reply
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        self._began = 0.0
        self.replies: list[Reply] = []
        self.count = 0
        self._mutex = threading.Lock()

    def __enter__(self) -> Load:
        """Start asking."""
        self._began = time.monotonic() + FIRST_ARRIVAL_S
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop asking, and wait for what is under way."""
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Wait until every thread has ended."""
        for thread in self._threads:
            thread.join()

    @property
    def running(self) -> bool:
        """Tell whether any thread is still asking."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def failures(self) -> list[Reply]:
        """Return what was not answered with 200."""
        return [reply for reply in self.replies if not reply.ok]

    def _work(self) -> None:
        connection, used = self._connect(), 0.0
        while not self._stop.is_set():
            number = next(self._numbers)
            if self._limit is not None and number >= self._limit:
                break
            at = time.monotonic() if self._rate is None else self._began + number / self._rate
            if self._stop.wait(max(0.0, at - time.monotonic())):
                break
            call = self._call(number)
            if time.monotonic() - used > IDLE_S:
                connection.close()  # the next request opens it again
            try:
                status, content = call.send(connection)
            except (OSError, http.client.HTTPException, ValueError) as error:
                status, content = 0, f"{type(error).__name__}: {error}"
                connection.close()
                connection = self._connect()
            used = time.monotonic()
            self._take(Reply(call, at, used, status, content))
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)

    def _take(self, reply: Reply) -> None:
        if self._on_reply is not None:
            self._on_reply(reply)
        with self._mutex:
            self.count += 1
            if self._keep or not reply.ok:
                self.replies.append(reply)


def stretch(url: str, call: Callable[[int], Call], *, rate: float, seconds: float) -> list[Reply]:
    """Return the replies of ``seconds`` at ``rate`` requests a second."""
    load = Load(url, call, rate=rate, limit=max(1, round(rate * seconds)))
    with load:
        load.join()
    return load.replies


def capacity(url: str, call: Callable[[int], Call], *, seconds: float, threads: int = 4) -> float:
    """Return the answers a second that ``threads`` callers get who ask without pause."""
    with Load(url, call, threads=threads) as load:
        time.sleep(seconds)
        answered = load.count
    return answered / seconds


def latencies(replies: Sequence[Reply]) -> dict[str, float]:
    """Return p50, p99 and the longest latency in milliseconds, of those answered."""
    values = [reply.latency_s * 1000 for reply in replies if reply.ok]
    if not values:
        return {"count": 0}
    p50, p99 = np.percentile(values, [50, 99])
    return {
        "count": len(values),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "max_ms": round(max(values), 2),
    }


def metric(url: str, name: str) -> dict[str, float]:
    """Return the samples of a metric of ``url``/metrics, by their labels as text."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = {}
    for line in text.splitlines():
        if line.startswith(f"{name}{{") or line.startswith(f"{name} "):
            labels, value = line.rsplit(" ", 1)
            found[labels.removeprefix(name)] = float(value)
    return found
