"""The load generator of `serving.py`: a process of its own, bare sockets with keep-alive.

    python -m benchmarks._serving_load < job.json

One thread runs every caller as a coroutine over raw asyncio streams, because a full HTTP client
costs about a millisecond a request, as much as what is measured. A caller sends its next request
when the last one is answered. Reads ONE JSON job from stdin (see `Job`), prints ONE JSON object.
With ``serve`` instead of ``url`` in the job it is the other side: a server that answers every
request with the same bytes at once, against which the generator's own floor is measured.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

FIXED = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
SHORT_BODY = 200


@dataclass(frozen=True)
class Job:
    """What to send.

    Parameters
    ----------
    port
        Of the server on loopback.
    targets
        Requests taken in turn by all callers; ``{seed}`` in one is replaced by a number that no
        other request of the job has. ``POST path body`` sends the body as JSON.
    callers
        Connections, each with one request at a time.
    warm, requests, limit_s
        Requests before the clock starts; requests timed; seconds after which no new one starts.
    seed
        The first ``{seed}``.
    """

    port: int
    targets: list[str]
    callers: int
    requests: int
    warm: int = 0
    limit_s: float = 60.0
    seed: int = 0


@dataclass
class Tally:
    """What came of it; refusals are counted by status and are no latencies."""

    latencies_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: dict[int, str] = field(default_factory=dict)
    refused_ms: list[float] = field(default_factory=list)
    differing: set[tuple[str, int]] = field(default_factory=set)
    failed: int = 0
    seconds: float = 0.0


def summary(tally: Tally) -> dict[str, Any]:
    """Return counts, rate and quantiles of the good answers."""
    good = sorted(tally.latencies_ms)
    found: dict[str, Any] = {
        "answered": len(good),
        "per_s": round(len(good) / tally.seconds, 1) if tally.seconds else 0.0,
        "mean_ms": round(statistics.fmean(good), 3) if good else None,
        "p50_ms": quantile(good, 0.5),
        "p99_ms": quantile(good, 0.99),
        "different_bars": len(tally.differing),
        "connections_lost": tally.failed,
    }
    if tally.refused_ms:
        refusals = sorted(tally.refused_ms)
        found["refused"] = {str(k): n for k, n in sorted(tally.statuses.items()) if k != 200}
        found["refusal_p50_ms"] = quantile(refusals, 0.5)
        found["first_refusals"] = {str(k): text for k, text in tally.refusals.items()}
    return found


def quantile(rising: list[float], share: float) -> float | None:
    """Return the value below which ``share`` of them lie, None of none."""
    if not rising:
        return None
    return round(rising[min(len(rising) - 1, int(share * len(rising)))], 3)


def encoded(target: str, seed: int) -> bytes:
    """Return the bytes of one request."""
    target = target.replace("{seed}", str(seed))
    if not target.startswith("POST "):
        return f"GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
    _, path, body = target.split(" ", 2)
    head = "host: localhost\r\ncontent-type: application/json\r\n"
    return (
        f"POST {path} HTTP/1.1\r\n{head}content-length: {len(body.encode())}\r\n\r\n{body}".encode()
    )


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Read one answer: status, head, body."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at < 0:
        raise ConnectionError(f"an answer without a length: {head[:SHORT_BODY]!r}")
    length = int(lower[at + 15 : lower.index(b"\r\n", at)])
    return int(head[9:12]), head, await reader.readexactly(length)


class Load:
    """The callers of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.targets = itertools.cycle(job.targets)
        self.seeds = itertools.count(job.seed)
        self.tally = Tally()
        self.left: Iterator[int] = iter(())

    async def run(self) -> Tally:
        """Warm up, then send the timed requests."""
        streams = [await self._connect() for _ in range(self.job.callers)]
        if self.job.warm:
            await self._round(streams, self.job.warm)
        self.tally = Tally()
        started = time.perf_counter()
        await self._round(streams, self.job.requests)
        self.tally.seconds = time.perf_counter() - started
        for _, writer in streams:
            writer.close()
        return self.tally

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.job.port)

    async def _round(self, streams: list[Any], requests: int) -> None:
        self.left = iter(range(requests))
        deadline = time.perf_counter() + self.job.limit_s
        await asyncio.gather(
            *(self._caller(reader, writer, deadline) for reader, writer in streams)
        )

    async def _caller(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deadline: float
    ) -> None:
        for _ in self.left:
            if time.perf_counter() > deadline:
                return
            content = encoded(next(self.targets), next(self.seeds))
            if reader.at_eof():  # the server closes what was idle for seconds
                reader, writer = await self._connect()
            started = time.perf_counter()
            try:
                writer.write(content)
                status, head, body = await answer(reader)
            except (ConnectionError, asyncio.IncompleteReadError):
                self.tally.failed += 1
                return
            self._count(status, head, body, (time.perf_counter() - started) * 1000)

    def _count(self, status: int, head: bytes, body: bytes, took_ms: float) -> None:
        tally = self.tally
        tally.statuses[status] += 1
        if status == 200:
            tally.latencies_ms.append(took_ms)
            if b'"bar_ts":' in body:
                at = body.index(b'"bar_ts":') + 9
                symbol = body[: body.find(b",")].decode()
                tally.differing.add((symbol, int(body[at : body.find(b",", at)])))
            return
        tally.refused_ms.append(took_ms)
        retry = b"retry-after" in head.lower()
        tally.refusals.setdefault(
            status, f"retry-after: {retry}; {body[:SHORT_BODY].decode(errors='replace')}"
        )


async def serve_fixed(port: int) -> None:
    """Answer every request with the same bytes, until killed."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(FIXED)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Run the job of stdin, and print what came of it."""
    import uvloop  # BentoML's own event loop; the callers must not be slower than the server

    given = json.load(sys.stdin)
    if "serve" in given:
        uvloop.run(serve_fixed(given["serve"]))
        return
    job = Job(**given)
    tally = uvloop.run(Load(job).run())
    job_size = {k: v for k, v in asdict(job).items() if k in ("callers", "requests")}
    json.dump({**job_size, **summary(tally)}, sys.stdout)


if __name__ == "__main__":
    main()
