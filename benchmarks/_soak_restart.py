"""The same bar, version and seed give the same answer: after restarts, and in any batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks._serving_world import ServingWorld, make_world, running
from benchmarks._soak_load import Call, Load, shown
from benchmarks._soak_oracle import TOLERANCE

BAR_MS = 900_000
KINDS = ("lightgbm", "deep")
NUMBERS = ("p_up", "mu", "uncertainty", "epistemic_p")
CALLERS = 8


@dataclass(frozen=True)
class RestartPlan:
    """Sizes of the run; the largest batch says how many symbols are served."""

    restarts: int = 3
    bars: int = 5
    batches: tuple[int, ...] = (1, 3, 8, 64)


Answers = dict[tuple[Any, ...], tuple[float, ...]]


def world_for(folder: Path, plan: RestartPlan) -> ServingWorld:
    """Return a world of as many symbols as the largest batch has."""
    return make_world(folder, symbols=max(plan.batches), serve_bars=plan.bars + 1)


def run(world: ServingWorld, folder: Path, plan: RestartPlan) -> dict[str, Any]:
    """Return the largest differences over restarts, batch sizes and shared forwards."""
    world.reset()
    starts: list[Answers] = []
    between: dict[str, float] = {}
    with running(world.settings, folder / "serving.log") as server:
        starts.append(_singles(world, server.url, plan))
        for kind in KINDS:
            alone = _many(server.url, kind, world.symbols, 1)
            for size in plan.batches[1:]:
                found = _many(server.url, kind, world.symbols, size)
                between[f"{kind}_{size}"] = _most(alone, found)
        between["deep_concurrent"] = _most(
            _many(server.url, "deep", world.symbols[:CALLERS], 1), _together(world, server.url)
        )
    for _ in shown(range(plan.restarts - 1), "restarts"):
        with running(world.settings, folder / "serving.log") as server:
            starts.append(_singles(world, server.url, plan))
    over_restarts = max(_most(starts[0], other) for other in starts[1:])
    return {
        "restarts": plan.restarts,
        "answers_a_start": len(starts[0]),
        "largest_difference_over_restarts": over_restarts,
        "exactly_equal_over_restarts": over_restarts == 0,
        "largest_difference_over_batches": between,
        "ok": over_restarts <= TOLERANCE and max(between.values()) <= TOLERANCE,
    }


def _singles(world: ServingWorld, url: str, plan: RestartPlan) -> Answers:
    """Return the answers to one symbol at a time, over bars, with and without a seed."""
    found: Answers = {}
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        for bar in range(plan.bars):
            world.set_clock(world.first_ms + bar * BAR_MS)
            for symbol in world.symbols[:3]:
                for path, seed in (("predict", None), ("predict_deep", None), ("predict_deep", 7)):
                    params = {"symbol": symbol} | ({} if seed is None else {"seed": seed})
                    answer = client.get(f"/ml/{path}", params=params).raise_for_status().json()
                    key = path, seed, symbol, answer["bar_ts"], answer["model_version"]
                    found[key] = tuple(answer[name] for name in NUMBERS)
    return found


def _many(url: str, kind: str, symbols: Sequence[str], size: int) -> Answers:
    """Return the answers to all symbols, asked ``size`` at a time."""
    found: Answers = {}
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        for start in range(0, len(symbols), size):
            body = {"kind": kind, "symbols": list(symbols[start : start + size])}
            content = client.post("/ml/predict_many", json=body).raise_for_status().json()
            found |= _by_symbol(content["predictions"])
    return found


def _together(world: ServingWorld, url: str) -> Answers:
    """Return the answers to callers who ask at once, so that they share forwards."""
    symbols = world.symbols[:CALLERS]

    def call(number: int) -> Call:
        return Call("/ml/predict_deep", {"symbol": symbols[number % len(symbols)]})

    load = Load(url, call, threads=CALLERS, limit=5 * len(symbols))
    with load:
        load.join()
    return _by_symbol([reply.content for reply in load.replies if reply.ok])


def _by_symbol(predictions: Sequence[Mapping[str, Any]]) -> Answers:
    return {
        (item["symbol"], item["bar_ts"], item["model_version"]): tuple(
            item[name] for name in NUMBERS
        )
        for item in predictions
    }


def _most(one: Answers, other: Answers) -> float:
    """Return the largest difference of any number; every answer has to be in both."""
    if one.keys() != other.keys():
        raise RuntimeError(f"not the same answers: {list(one.keys() ^ other.keys())[:3]}")
    return max(abs(a - b) for key in one for a, b in zip(one[key], other[key], strict=True))
