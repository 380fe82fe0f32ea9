"""The replay and the callers of `serving.py`: requests that differ, and the server's readings.

A timing gets a feature block of its own (1024 bars), whose features are known before it starts;
the replay clock then runs a bar in some milliseconds, so that no two requests see the same one.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._serving_world import RunningServer, free_port
from tradewind.contracts import POOLED, registered_name
from tradewind.features.definitions import ANCHOR_BARS
from tradewind.ledger import open_ledger, set_replay_clock
from tradewind.market.recent import FOR_EVER_MS
from tradewind.market.store import BarStore
from tradewind.models.bundle import ModelBundle
from tradewind.settings import Settings

LOAD = Path(__file__).parent / "_serving_load.py"
PREDICT, DEEP = "/ml/predict?symbol={symbol}", "/ml/predict_deep?symbol={symbol}"
FIRST_BAR = 100
"""Bars of a block that a timing leaves at its beginning, for the clock to be set in."""
SHARE_OF_A_BAR = 0.8
"""A bar lasts this share of the time until its symbol is asked for again."""
PAST_BLOCKS, MOST_BLOCKS = 5, 24
"""Blocks before the replay begins (the longest memory of a feature), and used by it."""
MIB = 1 << 20


@dataclass(frozen=True)
class Server:
    """The running server and its readings."""

    running: RunningServer

    @property
    def port(self) -> int:
        return self.running.settings.serving.port

    def rss_mib(self) -> dict[str, float]:
        """Return the resident memory of the worker, and with the supervisor's."""
        worker = self.running.worker.memory_info().rss
        both = worker + self.running.supervisor.memory_info().rss
        return {"worker": round(worker / MIB, 1), "all": round(both / MIB, 1)}

    def cpu_s(self) -> float:
        """Return the processor time that the worker has used."""
        return float(sum(self.running.worker.cpu_times()[:2]))

    def threads(self) -> int:
        """Return the threads of the worker."""
        return int(self.running.worker.num_threads())

    def text(self, path: str) -> str:
        """Return the body of an answer, a refusal's too."""
        try:
            with urllib.request.urlopen(f"{self.running.url}{path}", timeout=60) as response:
                content: bytes = response.read()
        except urllib.error.HTTPError as refusal:
            content = refusal.read()
        return content.decode()


@dataclass
class Replay:
    """Puts the server's clock on fresh bars, and lets it run so that requests differ."""

    settings: Settings
    server: Server
    blocks: list[int]
    used: int = 0
    seed: int = 1

    def load(self, targets: Sequence[str], *, bar_every_s: float = 0.0, **job: Any) -> Any:
        """Run one timing on a block of its own whose features are known."""
        step, symbols = self.settings.market.timeframe_ms, self.settings.market.symbols
        start = self.blocks[self.used % len(self.blocks)] + FIRST_BAR * step
        self.used += 1
        set_clock(self.settings, start)
        for symbol in symbols:
            self.server.text(PREDICT.format(symbol=symbol))
        if bar_every_s:
            set_clock(self.settings, start, bar_every_s=bar_every_s)
        stages, cpu_s = stage_sums(self.server), self.server.cpu_s()
        found = self.timing([t for target in targets for t in self._named(target)], **job)
        cpu_ms = 1000 * (self.server.cpu_s() - cpu_s)
        if bar_every_s:
            set_clock(self.settings, start)
        found["server_cpu_ms"] = over(cpu_ms, found["answered"] + job.get("warm", 0))
        return found | {"server_mean_ms": stage_means(stages, stage_sums(self.server))}

    def predict(self, requests: int, callers: int, **job: Any) -> Any:
        """Time ``/ml/predict``, the clock as fast as its requests are."""
        first = self.load([PREDICT], requests=max(callers, requests // 4), callers=callers)
        pace = SHARE_OF_A_BAR * len(self.settings.market.symbols) / max(1.0, first["per_s"])
        fits = int((ANCHOR_BARS - FIRST_BAR) * pace * first["per_s"] * SHARE_OF_A_BAR)
        return self.load(
            [PREDICT], bar_every_s=pace, requests=min(requests, fits), callers=callers, **job
        )

    def deep(self, requests: int, callers: int, *, passes: int = 20, **job: Any) -> Any:
        """Time ``/ml/predict_deep``, a seed a request."""
        target = f"{DEEP}&n_samples={passes}&seed={{seed}}"
        return self.load([target], requests=requests, callers=callers, **job)

    def _named(self, target: str) -> list[str]:
        if "{symbol}" not in target:
            return [target]
        return [target.replace("{symbol}", name) for name in self.settings.market.symbols]

    def timing(self, targets: list[str], **job: Any) -> Any:
        """Run the callers' process, and return its summary."""
        with self.started(targets, **job) as process:
            return finished(process)

    @contextlib.contextmanager
    def started(self, targets: list[str], **job: Any) -> Iterator[subprocess.Popen[str]]:
        """Yield the callers' running process."""
        given = {"port": self.server.port, "targets": targets, "seed": self.seed, **job}
        self.seed += 10 * (job["requests"] + job.get("warm", 0))
        with callers(given) as process:
            yield process


@contextlib.contextmanager
def callers(job: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """Start the load generator's process with a job."""
    process = subprocess.Popen(
        [sys.executable, str(LOAD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(job))
    process.stdin.close()
    process.stdin = None
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finished(process: subprocess.Popen[str]) -> Any:
    """Wait for the callers, and return their summary."""
    text, _ = process.communicate()
    if process.returncode:
        raise SystemExit("the load generator failed")
    return json.loads(text)


def set_clock(settings: Settings, ms: int, *, bar_every_s: float = 0.0) -> None:
    """Set market time; with ``bar_every_s`` it runs on, one bar in so many seconds."""
    speed = settings.market.timeframe_ms / 1000 / bar_every_s if bar_every_s else 0.0
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, ms, speed)


def champion(settings: Settings, family: str) -> ModelBundle:
    """Return the champion that answers for the first symbol, as the server has fetched it."""
    from registry.tracking import Tracking
    from registry.versions import alias_table, fetch_bundle

    tracking = Tracking(settings)
    table = alias_table(tracking)
    names = [registered_name(family, key) for key in (settings.market.symbols[0], POOLED)]
    name = next(name for name in names if "champion" in table.get(name, {}))
    cache = settings.home / "serving" / "models"
    version = table[name]["champion"]
    return ModelBundle.load(fetch_bundle(tracking, name, version=version, cache_dir=cache))


def live_blocks(settings: Settings, store: BarStore) -> list[int]:
    """Return the opening times of the last whole feature blocks that every symbol has."""
    timeframe, length = settings.market.timeframe, ANCHOR_BARS * settings.market.timeframe_ms
    ends, starts = [], []
    for symbol in settings.market.symbols:
        ts = store.read_bars(symbol, timeframe, until_ms=FOR_EVER_MS)["ts"]
        starts.append(int(ts[0]))
        ends.append(int(ts[-1]))
    first = -(-max(starts) // length) + PAST_BLOCKS
    last = min(ends) // length
    return [number * length for number in range(max(first, last - MOST_BLOCKS), last)]


def generator_floor(requests: int) -> dict[str, Any]:
    """Return what the load generator itself costs, against a server that answers at once."""
    port = free_port()
    with callers({"serve": port}):
        time.sleep(1.0)
        with callers(
            {"port": port, "targets": ["/"], "callers": 1, "requests": requests, "warm": 50}
        ) as process:
            found = finished(process)
    return {"p50_ms": found["p50_ms"], "p99_ms": found["p99_ms"]}


def stage_sums(server: Server) -> dict[str, float]:
    """Return the sums and counts of the server's own stage times."""
    lines = [
        line for line in server.text("/metrics").splitlines() if "_ml_request_seconds_" in line
    ]
    return {
        line.split(" ")[0].split("_ml_request_seconds_")[1]: float(line.split(" ")[1])
        for line in lines
        if "_sum{" in line or "_count{" in line
    }


def stage_means(before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """Return the mean milliseconds of each endpoint's stages between two readings."""
    means: dict[str, dict[str, float]] = {}
    for name in after:
        if not name.startswith("sum"):
            continue
        counted = name.replace("sum", "count", 1)
        count = after[counted] - before.get(counted, 0.0)
        if count:
            _, endpoint, _, stage, _ = name.split('"')
            mean = 1000 * (after[name] - before.get(name, 0.0)) / count
            means.setdefault(endpoint, {})[stage] = round(mean, 3)
    return means


def over(one: float | None, other: float | None) -> float | None:
    """Return the ratio of two figures, None where there is none."""
    return round(one / other, 3) if one is not None and other else None
