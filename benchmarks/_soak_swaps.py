"""Champions are swapped under load: nothing fails, nothing is mixed, and soon the new one answers.

Every answer names its version; its ``p_up`` has to be what that version says of the answer's bar
and seed when it is computed apart (`_soak_oracle`), within 1e-6. So has every vote of an ensemble
asked for many symbols beside it, and all symbols of one such answer have one version a family.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._serving_world import (
    REFERENCES,
    ServingWorld,
    make_world,
    running,
)
from benchmarks._soak_load import Call, Load, Reply, capacity, latencies, metric, shown, stretch
from benchmarks._soak_oracle import TOLERANCE, Oracle, Point

SWAP_LIMIT_S = 10.0
DEEP_SHARE = 0.6
SIDE_RATE = 0.2
"""Ensemble requests for all symbols, a second, beside either load: few, they are deep rows too."""
DWELL_S = 0.2
ALARM_LIMIT_S = 20.0
BAR_MS = 900_000
LAST = 16
"""Answers that have to be of one version before the champion is moved again."""
PATIENT_SWAP_S = 8.0
"""More than a swap takes: bars are stored for as long."""
CLOCK_LEAD = 1.5
"""Bars a second over requests a second of a symbol."""


@dataclass(frozen=True)
class SwapPlan:
    """Sizes of the run."""

    swaps: int = 200
    rate: float = 50.0
    quiet_s: float = 60.0
    capacity_s: float = 10.0


@dataclass
class Seen:
    """When each version first answered since it was forgotten."""

    first: dict[str, float] = field(default_factory=dict)

    def take(self, reply: Reply) -> None:
        """Note an answer of the load."""
        if reply.ok:
            self.first.setdefault(reply.content["model_version"], reply.done)

    def wait(self, version: str, limit_s: float) -> float:
        """Return when ``version`` first answered; infinity if it does not in time."""
        began = time.monotonic()
        while version not in self.first and time.monotonic() - began < limit_s:
            time.sleep(0.01)
        return self.first.get(version, math.inf)

    def forget(self, *versions: str) -> None:
        """Look out for these anew."""
        for version in versions:
            self.first.pop(version, None)


def bars_per_s(plan: SwapPlan) -> float:
    """Return how fast the clock runs: hardly two requests of a symbol share a bar."""
    return CLOCK_LEAD * plan.rate / len(REFERENCES)


def world_for(folder: Path, plan: SwapPlan) -> ServingWorld:
    """Return a world with bars for as long as the run may take."""
    longest_s = plan.swaps * PATIENT_SWAP_S + plan.quiet_s + plan.capacity_s + PATIENT_SWAP_S
    return make_world(folder, serve_bars=round(longest_s * bars_per_s(plan)))


def run(world: ServingWorld, folder: Path, plan: SwapPlan) -> dict[str, Any]:
    """Return the figures of both endpoints, and of a version that cannot be loaded."""
    world.reset()
    speed = bars_per_s(plan) * BAR_MS / 1000
    found: dict[str, Any] = {}
    with running(world.settings, folder / "serving.log") as server:
        for family, name in (("lightgbm", "predict"), ("transformer", "predict_deep")):
            world.set_clock(world.first_ms, speed=speed)
            call = calls(world, name)
            rate = plan.rate
            if family == "transformer":
                most = capacity(server.url, call, seconds=plan.capacity_s)
                rate = DEEP_SHARE * most
                found["deep_capacity_per_s"] = round(most, 1)
            found[name] = swaps(world, server.url, family, call, rate, plan)
        world.set_clock(world.first_ms, speed=speed)
        found["broken"] = broken(world, server.url, plan.rate)
    found["ok"] = all(found[name]["ok"] for name in ("predict", "predict_deep", "broken"))
    return found


def calls(world: ServingWorld, name: str) -> Callable[[int], Call]:
    """Return the requests of an endpoint: symbols in turn, deep ones each with its own seed."""
    symbols = world.symbols

    def call(number: int) -> Call:
        params: dict[str, Any] = {"symbol": symbols[number % len(symbols)]}
        if name == "predict_deep":
            params["seed"] = number
        return Call(f"/ml/{name}", params)

    return call


def swaps(
    world: ServingWorld,
    url: str,
    family: str,
    call: Callable[[int], Call],
    rate: float,
    plan: SwapPlan,
) -> dict[str, Any]:
    """Return what happened to one endpoint while its champion was moved to and fro."""
    quiet = stretch(url, call, rate=rate, seconds=plan.quiet_s)
    body = {"kind": "ensemble", "symbols": list(world.symbols)}
    delays: list[float] = []
    seen = Seen()
    side = Load(url, lambda _: Call("/ml/predict_many", body=body), rate=SIDE_RATE, threads=2)
    with Load(url, call, rate=rate, threads=32, on_reply=seen.take) as load, side:
        time.sleep(1)
        for number in shown(range(1, plan.swaps + 1), f"swaps of {family}"):
            version = world.versions[family][number % 2]
            _settle(load, version.label)
            seen.forget(version.label)
            moved = time.monotonic()
            world.point(version)
            delays.append(seen.wait(version.label, 2 * SWAP_LIMIT_S) - moved)
            time.sleep(DWELL_S)
    everything = [*quiet, *load.replies, *side.replies]
    failures = [reply for reply in everything if not reply.ok]
    checked, wrong = check(world, everything)
    slow = sum(delay > SWAP_LIMIT_S for delay in delays)
    return {
        "swaps": plan.swaps,
        "swaps_seen": sum(delay < math.inf for delay in delays),
        "rate_per_s": round(rate, 1),
        "answers": len(everything),
        "failed": len(failures),
        "failures": dict(Counter(str(reply.content)[:200] for reply in failures)),
        "different": different(load.replies),
        "numbers_checked": checked,
        "mixed": len(wrong),
        "examples": wrong[:3],
        "swap_s_median": round(statistics.median(delays), 2),
        "swap_s_max": round(max(delays), 2),
        "swaps_over_limit": slow,
        "quiet": latencies(quiet),
        "swapping": latencies(load.replies),
        "ok": not failures and not wrong and not slow,
    }


def _settle(load: Load, version: str) -> None:
    """Wait until the last answers come from another version: stragglers look like a swap."""
    deadline = time.monotonic() + SWAP_LIMIT_S
    while time.monotonic() < deadline:
        last = [reply.content["model_version"] for reply in load.replies[-LAST:] if reply.ok]
        if len(last) >= LAST // 2 and version not in last:
            return
        time.sleep(0.02)


def different(replies: Sequence[Reply]) -> float:
    """Return the share of answers whose symbol, bar and seed no other answer has."""
    told = [reply for reply in replies if reply.ok]
    points = {
        (reply.content["symbol"], reply.content["bar_ts"], reply.call.params.get("seed"))
        for reply in told
    }
    return round(len(points) / max(1, len(told)), 4)


def check(world: ServingWorld, replies: Sequence[Reply]) -> tuple[int, list[str]]:
    """Return how many numbers were compared, and what is wrong with those that differ."""
    wrong: list[str] = []
    told: list[tuple[Point, float]] = []
    for reply in replies:
        if not reply.ok:
            continue
        if "predictions" in reply.content:
            told += _votes(reply.content, wrong)
        else:
            told.append((_point(reply.content, reply.call.params.get("seed")), _p(reply.content)))
    n_samples = world.settings.serving.n_samples
    right = Oracle(world).p_up((point for point, _ in told), n_samples)
    wrong += [
        f"{point} answered {p_up}, not {right.get(point)}"
        for point, p_up in told
        if point not in right or abs(right[point] - p_up) > TOLERANCE
    ]
    return len(told), wrong


def _votes(content: dict[str, Any], wrong: list[str]) -> list[tuple[Point, float]]:
    """Return the votes of an ensemble's answer; note in ``wrong`` if they mix versions."""
    found = []
    versions: dict[str, set[str]] = {}
    for item in content["predictions"]:
        for vote in item["votes"]:
            versions.setdefault(vote["family"], set()).add(vote["model_version"])
            point = Point(vote["model_version"], item["symbol"], item["bar_ts"])
            found.append((point, vote["p_up"]))
    if any(len(names) > 1 for names in versions.values()):
        wrong.append(f"one answer of versions {versions}")
    if content["problems"]:
        wrong.append(f"problems {content['problems']}")
    return found


def _point(content: dict[str, Any], seed: int | None) -> Point:
    return Point(content["model_version"], content["symbol"], content["bar_ts"], seed)


def _p(content: dict[str, Any]) -> float:
    return float(content["p_up"])


def broken(world: ServingWorld, url: str, rate: float) -> dict[str, Any]:
    """Point the champion at a version that cannot be loaded; the old one has to serve on."""
    family = "lightgbm"
    call = calls(world, "predict")
    old = stretch(url, call, rate=rate, seconds=1)[-1].content["model_version"]
    bad = world.register_broken(family)
    alarm = "tradewind_ml_model_load_failed"

    def raised() -> bool:
        return any(value == 1 for value in metric(url, alarm).values())

    with Load(url, call, rate=rate) as load:
        world.point(bad)
        rose = _wait(raised)
        time.sleep(1)
    back = next(item for item in world.versions[family] if item.label == old)
    world.point(back)
    fell = _wait(lambda: not raised())
    versions = {reply.content["model_version"] for reply in load.replies if reply.ok}
    return {
        "answers": len(load.replies),
        "failed": len(load.failures),
        "answered_by_the_old_one_alone": versions == {old},
        "alarm_raised_after_s": rose,
        "alarm_gone_after_s": fell,
        "ok": not load.failures and versions == {old} and rose is not None and fell is not None,
    }


def _wait(condition: Callable[[], bool]) -> float | None:
    """Return the seconds until the condition holds, None if it does not in time."""
    began = time.monotonic()
    while time.monotonic() - began < ALARM_LIMIT_S:
        if condition():
            return round(time.monotonic() - began, 2)
        time.sleep(0.1)
    return None
