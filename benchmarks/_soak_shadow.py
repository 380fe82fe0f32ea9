"""What a challenger costs the champion's callers: none, one that is sound, sleeps, or raises.

Short stretches of each, in turns, in a new order every round; the difference of p99 to the
stretches without a challenger comes with a 95 % interval over resampled rounds. "Unchanged within
noise" is an interval that holds 0, or lies below `WORTH_MS`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl

from benchmarks._faults import FAULTS_FILE, SLEEP_S
from benchmarks._serving_world import ServingWorld, make_world, running
from benchmarks._soak_load import Call, metric, shown, stretch
from tradewind.ledger import open_ledger

MODES = ("none", "sound", "sleeps", "raises")
FAMILY = "lightgbm"
BAR_MS = 900_000
WORTH_MS = 0.5
RESAMPLES = 2000
SERVING = {"poll_s": 0.5, "shadow_queue": 200, "shadow_wait_s": 3.0}
"""A short queue, so that a sleeper's jobs are gone when the next stretch begins."""


@dataclass(frozen=True)
class ShadowPlan:
    """Sizes of the run."""

    rounds: int = 10
    seconds: float = 10.0
    rate: float = 50.0


def world_for(folder: Path, plan: ShadowPlan) -> ServingWorld:
    """Return a world with a version for every mode."""
    bars = int(plan.rate * plan.seconds)
    return make_world(folder, serve_bars=bars, versions=len(MODES), serving=SERVING)


def run(world: ServingWorld, folder: Path, plan: ShadowPlan) -> dict[str, Any]:
    """Return p50 and p99 by mode, the differences to no challenger, and what was logged."""
    world.reset()
    versions = dict(zip(MODES, world.versions[FAMILY], strict=True))
    faults = {versions["sleeps"].label: "sleep", versions["raises"].label: "raise"}
    (world.settings.home / FAULTS_FILE).write_text(json.dumps(faults), encoding="utf-8")
    port = str(world.settings.serving.port)
    service = f"{__package__}._faulty_service:Tradewind"
    command = [sys.executable, "-m", "bentoml", "serve", service, "--port", port]
    taken: dict[str, list[list[float]]] = {mode: [] for mode in MODES}
    failed, before = 0, ""
    with running(world.settings, folder / "serving.log", command=command) as server:
        rng = np.random.default_rng(0)
        for number in shown(range(plan.rounds), "rounds of four challengers"):
            for mode in rng.permutation(MODES):
                if before == "sleeps":
                    time.sleep(SLEEP_S)  # the job that it is at; what waits is old by then
                before = mode
                _point(world, server.url, mode, versions)
                bars_per_s = plan.rate / len(world.symbols)
                world.set_clock(world.first_ms, speed=bars_per_s * BAR_MS / 1000)
                call = _calls(world, f"{mode}-{number}")
                replies = stretch(server.url, call, rate=plan.rate, seconds=plan.seconds)
                failed += sum(not reply.ok for reply in replies)
                taken[mode].append([reply.latency_s * 1000 for reply in replies])
        serving = world.settings.serving
        time.sleep(SLEEP_S + serving.shadow_wait_s + 2 * serving.flush_s)
        counted = metric(server.url, "tradewind_ml_shadow_total")
    against = {mode: difference(taken[mode], taken["none"]) for mode in MODES[1:]}
    logged = _logged(world, versions)
    calm = all(item["low_ms"] <= WORTH_MS for item in against.values())
    return {
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "rate_per_s": plan.rate,
        "failed": failed,
        "latency": {mode: _latency(taken[mode]) for mode in MODES},
        "p99_against_none": against,
        "p99_unchanged": calm,
        "counted": _by_outcome(counted),
        "logged": logged,
        "ok": failed == 0 and calm and logged["ok"] and _by_outcome(counted)["failed"] > 0,
    }


def _calls(world: ServingWorld, name: str) -> Any:
    def call(number: int) -> Call:
        symbol = world.symbols[number % len(world.symbols)]
        return Call("/ml/predict", {"symbol": symbol, "decision_id": f"{name}-{number}"})

    return call


def _point(world: ServingWorld, url: str, mode: str, versions: Any) -> None:
    """Make the mode's version the challenger, and wait until serving has it."""
    if mode == "none":
        if any("challenger" in item for item in _loaded(url)):
            world.unpoint(FAMILY, "challenger")
        wanted = None
    else:
        world.point(versions[mode], "challenger")
        wanted = str(versions[mode].version)
    name = versions[mode].name
    deadline = time.monotonic() + 30
    while _loaded(url).get((name, "challenger")) != wanted:
        if time.monotonic() > deadline:
            raise RuntimeError(f"challenger {wanted} of {name} is not loaded")
        time.sleep(0.05)


def _loaded(url: str) -> dict[tuple[str, str], str]:
    """Return version by name and alias, of what is loaded."""
    status = httpx.get(f"{url}/ml/models/status", trust_env=False).json()
    found = {}
    for slots in _walk(status):
        if slots.get("loaded") and slots.get("alias"):
            name, version = str(slots["model_version"]).rsplit("/", 1)
            found[name, slots["alias"]] = version
    return found


def _walk(item: Any) -> Any:
    if isinstance(item, dict):
        yield item
        for value in item.values():
            yield from _walk(value)
    elif isinstance(item, list):
        for value in item:
            yield from _walk(value)


def difference(
    mine: Sequence[Sequence[float]], base: Sequence[Sequence[float]]
) -> dict[str, float]:
    """Return the difference of p99 in ms, with its 95 % interval over resampled rounds."""
    rng = np.random.default_rng(1)
    rounds = len(base)

    def p99(stretches: Sequence[Sequence[float]], chosen: Any) -> float:
        return float(np.percentile(np.concatenate([stretches[i] for i in chosen]), 99))

    draws = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, rounds, rounds)
        draws.append(p99(mine, chosen) - p99(base, chosen))
    low, high = np.percentile(draws, [2.5, 97.5])
    everything = range(rounds)
    found = p99(mine, everything) - p99(base, everything)
    return {
        "p99_difference_ms": round(found, 2),
        "low_ms": round(float(low), 2),
        "high_ms": round(float(high), 2),
    }


def _latency(stretches: Sequence[Sequence[float]]) -> dict[str, float]:
    p50, p99 = np.percentile(np.concatenate(stretches), [50, 99])
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def _by_outcome(counted: dict[str, float]) -> dict[str, int]:
    found = {"answered": 0, "failed": 0, "dropped": 0}
    for labels, value in counted.items():
        for outcome in found:
            if f'outcome="{outcome}"' in labels:
                found[outcome] += int(value)
    return found


def _logged(world: ServingWorld, versions: Any) -> dict[str, Any]:
    """Return how many decisions of each mode have a champion's and a challenger's row."""
    with open_ledger(world.settings) as ledger:
        rows = ledger.predictions(model_type=FAMILY)
    rows = rows.with_columns(mode=pl.col("decision_id").str.split("-").list.first())
    found: dict[str, Any] = {}
    for mode in MODES:
        mine = rows.filter(pl.col("mode") == mode)
        champion = mine.filter(pl.col("role") == "champion")
        shadow = mine.filter(pl.col("role") == "shadow")
        both = set(champion["decision_id"]) & set(shadow["decision_id"])
        found[mode] = {
            "decisions": champion["decision_id"].n_unique(),
            "with_both": len(both),
            "challenger_rows_of_its_version": bool(
                (shadow["model_version"] == versions[mode].label).all()
            ),
        }
    sleeping = rows.filter((pl.col("mode") == "sleeps") & (pl.col("role") == "shadow"))
    late_ms = sleeping["latency_ms"].min()
    found["least_latency_of_a_sleeper_ms"] = late_ms
    found["ok"] = (
        found["sound"]["with_both"] == found["sound"]["decisions"] > 0
        and found["raises"]["with_both"] == found["none"]["with_both"] == 0
        and found["sleeps"]["with_both"] > 0
        and isinstance(late_ms, float)
        and late_ms >= SLEEP_S * 1000
    )
    return found
