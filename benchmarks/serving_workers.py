"""What a second worker costs and brings: start-up, memory, throughput, one server after the other.

    python -m benchmarks.serving_workers [--workers 1 2] [--seconds 10] [--callers 8]

Random-walk bars, models of the default sizes. Deep requests differ in their seed, light ones in
their decision id alone: all are of the newest bar. A caller asks again once it is answered, so
latencies are those of a full server. The load comes from threads of this process, which takes
cores from the servers alike. Prints ONE JSON object last.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks._serving_world import TINY, RunningServer, make_world, running
from tradewind.settings import Settings

MIB = 1024 * 1024
PATHS = {
    "predict": "/ml/predict?symbol={symbol}&decision_id=d-{number}",
    "predict_deep": "/ml/predict_deep?symbol={symbol}&n_samples=20&seed={number}",
}
WARM_UP = 20


def main() -> None:
    """Measure every number of workers in turn, several times, and compare with the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="small models, to try the script")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"sizes": TINY} if given.tiny else {}
        world = make_world(Path(folder), versions=1, **sizes)
        log = Path(folder) / "serving.log"
        found: dict[int, list[dict[str, float]]] = {count: [] for count in given.workers}
        for number in range(given.rounds):
            for count in given.workers:
                settings = with_workers(world.settings, count)
                with running(settings, log) as server:
                    found[count].append(measure(server, given.seconds, given.callers))
                print(f"round {number + 1}, {count} workers: {found[count][-1]}")
    medians = {
        count: {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
        for count, rounds in found.items()
    }
    base = medians[given.workers[0]]
    ratios = {
        count: {name: round(value / base[name], 3) for name, value in figures.items()}
        for count, figures in medians.items()
    }
    print(json.dumps({"callers": given.callers, "medians": medians, "ratios": ratios}))


def with_workers(settings: Settings, count: int) -> Settings:
    """Return the settings with so many workers."""
    serving = settings.serving.model_copy(update={"workers": count})
    return settings.model_copy(update={"serving": serving})


def measure(server: RunningServer, seconds: float, callers: int) -> dict[str, float]:
    """Return start-up, memory and, for each endpoint, throughput and latencies."""
    symbols = server.settings.market.symbols
    found = {"ready_s": round(server.ready_s, 2)}
    for name, path in PATHS.items():
        times = load(server.url, path, symbols, seconds, callers)
        found |= {
            f"{name}_per_s": round(len(times) / seconds, 1),
            f"{name}_p50_ms": round(1000 * statistics.median(times), 2),
            f"{name}_p99_ms": round(1000 * statistics.quantiles(times, n=100)[98], 2),
        }
    workers = [item.memory_full_info() for item in worker_processes(server)]
    return found | {
        "worker_rss_mib": round(statistics.mean(item.rss for item in workers) / MIB, 1),
        "workers_pss_mib": round(sum(item.pss for item in workers) / MIB, 1),
    }


def worker_processes(server: RunningServer) -> list[psutil.Process]:
    """Return the processes that hold the models."""
    every = server.supervisor.children(recursive=True)
    return [item for item in every if "--worker-id" in item.cmdline()]


def load(
    url: str, path: str, symbols: tuple[str, ...], seconds: float, callers: int
) -> list[float]:
    """Ask from ``callers`` threads for some seconds; return the seconds of every answer."""
    address = urlsplit(url).netloc
    numbers = itertools.count(1)
    times: list[list[float]] = [[] for _ in range(callers)]
    failures: list[str] = []

    def ask(connection: http.client.HTTPConnection) -> float:
        number = next(numbers)
        began = time.perf_counter()
        symbol = symbols[number % len(symbols)]
        connection.request("GET", path.format(symbol=symbol, number=number))
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK:
            failures.append(text.decode(errors="replace"))
        return time.perf_counter() - began

    def call(mine: list[float]) -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        for _ in range(WARM_UP):
            ask(connection)
        start.wait()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            mine.append(ask(connection))
        connection.close()

    start = threading.Barrier(callers)
    threads = [threading.Thread(target=call, args=(mine,)) for mine in times]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"{len(failures)} requests failed, the first: {failures[0]}")
    return [second for mine in times for second in mine]


if __name__ == "__main__":
    main()
