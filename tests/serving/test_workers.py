"""Two workers behind one port: they share the registry, the store and the ledger, nothing else."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil
import pytest
from prometheus_client import CollectorRegistry

from registry.tracking import Tracking
from serving.runtime import Runtime
from tests.support.server import free_port
from tests.support.server_process import running, wait_until
from tests.support.serving import World
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import open_ledger
from tradewind.models.bundle import ModelBundle

WORKERS = 2
SWAPS = 4
SWAP_S = 15
BODY = {"kind": "deep", "symbols": ["BTCUSDT", "ETHUSDT"], "n_samples": 20}


@dataclass
class Load:
    """Threads that ask without pause, by a new connection each time: any worker may get it."""

    url: str
    answers: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                answer = httpx.post(
                    f"{self.url}/ml/predict_many", json=BODY, trust_env=False, timeout=30
                )
            except httpx.TransportError as error:
                self.failures.append(repr(error))
                continue
            if answer.status_code == 200:
                self.answers.append(answer.json())
            else:
                self.failures.append(answer.text)


def versions_in(content: dict[str, Any]) -> set[str]:
    return {item["model_version"] for item in content["predictions"]}


def sample(url: str, name: str) -> float:
    """Return the sum of a metric's series."""
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    lines = re.findall(rf"^tradewind_ml_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, lines))


def logged(world: World) -> pl.DataFrame:
    """Return the deep answers that are in the ledger by now."""
    with open_ledger(world.settings) as ledger:
        return ledger.predictions(model_type="deep_transformer")


def status_of(url: str) -> int:
    """Return what /readyz says, 0 where the connection is cut."""
    try:
        return httpx.get(f"{url}/readyz", trust_env=False, timeout=5).status_code
    except httpx.TransportError:
        return 0


def workers_of(process: int) -> list[psutil.Process]:
    """Return the living processes that hold the models."""
    found = []
    for child in psutil.Process(process).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, or gone meanwhile
            if "--worker-id" in child.cmdline():
                found.append(child)
    return found


def test_a_worker_waits_for_a_registry_that_is_away_for_a_moment(
    make_world: Callable[..., World], bundles: dict[str, ModelBundle]
) -> None:
    world = make_world(serving={"workers": WORKERS, "poll_s": 0.5})
    world.point(world.register(bundles["btc"]))
    runtime = Runtime(world.settings, CollectorRegistry())
    tries: list[int] = []

    def connect() -> Tracking:
        tries.append(1)
        if len(tries) == 1:
            raise TradewindError(ErrorCode.TRACKING_UNREACHABLE, "it is away", "wait")
        return Tracking(world.settings)

    runtime.table._connect = connect
    try:
        runtime.start()
        assert runtime.table.snapshot.read, "it takes requests with no model"
        assert len(tries) == 2
    finally:
        runtime.stop()


@pytest.mark.slow
def test_two_workers_swap_under_load_and_write_one_ledger(
    make_world: Callable[..., World], bundles: dict[str, ModelBundle], tmp_path: Path
) -> None:
    world = make_world(
        serving={
            "port": free_port(),
            "workers": WORKERS,
            "poll_s": 0.5,
            "flush_s": 0.2,
            "gauges_s": 0.5,
        }
    )
    world.point(world.register(bundles["btc"]))
    first = world.register(bundles["deep"])
    second = world.register(bundles["deep2"])
    world.point(first)
    world.point(second, "challenger")
    with running(world, tmp_path / "output.txt") as server:
        # Ready means: every worker is.
        assert sample(server.url, "workers_ready") == WORKERS
        assert len(workers_of(server.process.pid)) == WORKERS
        load = Load(server.url)
        threads = [threading.Thread(target=load.run) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            assert wait_until(lambda: len(load.answers) > 20, 30), load.failures
            for swap in range(SWAPS):
                new = (second, first)[swap % 2]
                world.point(new)
                name = f"{new.name}/{new.version}"

                def everywhere(name: str = name) -> bool:
                    done = len(load.answers)
                    time.sleep(0.3)
                    latest = load.answers[done:]
                    return bool(latest) and all(versions_in(item) == {name} for item in latest)

                assert wait_until(everywhere, SWAP_S), "a worker still answers with the old one"
        finally:
            load.stop.set()
            for thread in threads:
                thread.join()
        assert load.failures == []
        probabilities: dict[tuple[str, str], set[float]] = {}
        for content in load.answers:
            assert len(versions_in(content)) == 1, "one request mixes versions"
            assert len(content["predictions"]) == 2
            for item in content["predictions"]:
                key = item["model_version"], item["symbol"]
                probabilities.setdefault(key, set()).add(round(item["p_up"], 6))
        assert all(len(found) == 1 for found in probabilities.values()), probabilities
        assert len(probabilities) == 4

        # Every worker took its part, and the counters are their sum.
        assert sample(server.url, "predictions_total") == 2 * len(load.answers)
        assert sample(server.url, "model_swaps_total") >= WORKERS * (2 + SWAPS)
        # The queue's gauge is of the last flush: it may say 0 with answers in the queue.
        answered = 2 * len(load.answers)
        wait_until(lambda: Counter(logged(world)["role"])["champion"] >= answered, 30)
        rows = logged(world)
        roles = Counter(rows["role"])
        assert roles["champion"] == answered, "one ledger has the answers of both"
        shadows = rows.filter(rows["role"] == "shadow").select("decision_id", "model_version")
        assert len(shadows) == len(shadows.unique()), "a decision is shadowed once, not by each"

        # One that is killed is missed until there is another, which answers with its models only.
        victim = workers_of(server.process.pid)[0]
        os.kill(victim.pid, signal.SIGKILL)
        assert wait_until(lambda: status_of(server.url) == 503, 10), "nobody misses the worker"
        assert wait_until(lambda: status_of(server.url) == 200, 60)
        assert sample(server.url, "workers_ready") == WORKERS
        assert len({item.pid for item in workers_of(server.process.pid)} - {victim.pid}) == WORKERS
