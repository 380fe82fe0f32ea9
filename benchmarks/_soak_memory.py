"""Does the worker's memory grow over many requests? Every one is of another bar or seed.

Resident memory is read every `EVERY_S`; after a warm-up share of the requests a line is put
through it. Its slope has a 95 % interval over resampled blocks of neighbouring readings. "Flat"
is a slope whose upper end, times the requests after the warm-up, is below `FLAT_MIB`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks._serving_world import REFERENCES, ServingWorld, make_world, running
from benchmarks._soak_load import Call, Load, Reply, metric

BAR_MS = 900_000
EVERY_S = 0.25
WARM_SHARE = 0.4
"""By then the clock has passed more blocks of features than are kept, in a run of full size."""
FLAT_MIB = 8.0
CALLERS = 4
BLOCKS = 20
LEAST_READINGS = 8
RESAMPLES = 2000
MIB = 2**20
MOST_BARS = 200_000
PROBE_REQUESTS = 300
SLOWER = 3.0
"""The bars last even if requests are answered so much slower than in the probe before."""
BARS_A_REQUEST = 4.0
"""So many that hardly two requests of a symbol share a bar."""


@dataclass(frozen=True)
class MemoryPlan:
    """Sizes of the run."""

    predict: int = 100_000
    deep: int = 10_000


def world_for(folder: Path, plan: MemoryPlan) -> ServingWorld:
    """Return a world with bars for all requests."""
    bars = min(MOST_BARS, 6 * plan.predict // len(REFERENCES) + 1000)
    return make_world(folder, serve_bars=bars)


def run(world: ServingWorld, folder: Path, plan: MemoryPlan) -> dict[str, Any]:
    """Return growth, slope and rate for each endpoint, each on a server of its own."""
    world.reset()
    found: dict[str, Any] = {"flat_means_below_mib": FLAT_MIB}
    for name, count in (("predict", plan.predict), ("predict_deep", plan.deep)):
        with running(world.settings, folder / "serving.log") as server:
            found[name] = _endpoint(world, server, name, count)
    found["ok"] = all(found[name]["ok"] for name in ("predict", "predict_deep"))
    return found


def _endpoint(world: ServingWorld, server: Any, name: str, count: int) -> dict[str, Any]:
    symbols = world.symbols

    def call(number: int) -> Call:
        params: dict[str, Any] = {"symbol": symbols[number % len(symbols)]}
        if name == "predict_deep":
            params["seed"] = number
        return Call(f"/ml/{name}", params)

    rate = _rate(world, server.url, call)
    stored = (world.last_ms - world.first_ms) // BAR_MS - 2
    # Faster than the requests come; a deep request has its own seed, and the clock stands still.
    bars_per_s = min(BARS_A_REQUEST * rate / len(symbols), stored / (SLOWER * count / rate))
    moves = name == "predict"
    world.set_clock(world.first_ms, speed=bars_per_s * BAR_MS / 1000 if moves else 0)
    asked: set[tuple[str, int, int | None]] = set()

    def take(reply: Reply) -> None:
        if reply.ok:
            content = reply.content
            asked.add((content["symbol"], content["bar_ts"], reply.call.params.get("seed")))

    began, readings = time.monotonic(), []
    load = Load(server.url, call, threads=CALLERS, limit=count, keep=False, on_reply=take)
    worker = server.worker
    with load, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"requests on /ml/{name}", total=count)
        while load.running:
            progress.update(task, completed=load.count)
            readings.append((load.count, worker.memory_info().rss / MIB))
            time.sleep(EVERY_S)
        progress.update(task, completed=load.count)
    seconds = time.monotonic() - began
    time.sleep(2 * world.settings.serving.flush_s)
    dropped = sum(metric(server.url, "tradewind_ml_log_dropped_total").values())
    line = _line(np.array(readings), count)
    return {
        "requests": load.count,
        "failed": len(load.failures),
        "failures": [str(reply.content)[:200] for reply in load.failures[:3]],
        "different": round(len(asked) / max(1, load.count), 4),
        "per_s": round(load.count / seconds, 1),
        "log_dropped": int(dropped),
        **line,
        "ok": not load.failures and dropped == 0 and line["flat"],
    }


def _rate(world: ServingWorld, url: str, call: Callable[[int], Call]) -> float:
    """Return how many requests a second are answered, from a short probe."""
    world.set_clock(world.first_ms)
    began = time.monotonic()
    load = Load(url, call, threads=CALLERS, limit=PROBE_REQUESTS)
    with load:
        load.join()
    return PROBE_REQUESTS / (time.monotonic() - began)


def _line(readings: Any, count: int) -> dict[str, Any]:
    """Return the growth of memory after the warm-up, in MiB over the rest of the run."""
    warm = readings[readings[:, 0] >= WARM_SHARE * count]
    if len(warm) < LEAST_READINGS:
        raise RuntimeError(f"{len(warm)} readings after the warm-up are no line: ask for more")
    requests, rss = warm[:, 0], warm[:, 1]
    slope, level = np.polyfit(requests, rss, 1)
    rest = rss - (slope * requests + level)
    rng = np.random.default_rng(0)
    blocks = np.array_split(rest, min(BLOCKS, len(rest) // 2))
    slopes = []
    for _ in range(RESAMPLES):
        order = rng.integers(0, len(blocks), len(blocks) + 1)
        noise = np.concatenate([blocks[i] for i in order])
        noise = np.resize(noise, len(rest))
        slopes.append(np.polyfit(requests, slope * requests + level + noise, 1)[0])
    low, high = np.percentile(slopes, [2.5, 97.5])
    length = requests[-1] - requests[0]
    half = int(np.searchsorted(requests, count / 2))
    return {
        "rss_start_mib": round(float(readings[0, 1]), 1),
        "rss_warm_mib": round(float(rss[0]), 1),
        "rss_end_mib": round(float(rss[-1]), 1),
        "growth_by_line_mib": round(float(slope * length), 2),
        "growth_low_mib": round(float(low * length), 2),
        "growth_last_half_mib": round(
            float(np.median(rss[-20:]) - np.median(rss[half : half + 20])), 2
        ),
        "growth_high_mib": round(float(high * length), 2),
        "readings": len(warm),
        "flat": bool(high * length < FLAT_MIB),
    }
