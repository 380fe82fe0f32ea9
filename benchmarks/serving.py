"""Serving at the limit: the forward against its floor, the path around it, and many callers.

    make bench-serving
    OMP_NUM_THREADS=1 python -m benchmarks.serving [--quick | --smoke] [--home FOLDER]

One run on one machine, alone on it, everything that is compared measured in turn. Without
``--home`` it makes its own world in a temporary folder: random-walk bars, both default families in
their real size (trained for moments: the weights do not matter), registered and promoted in a
local MLflow. The server is the real one, ``python -m serving``, on loopback; the callers are a
process of their own (`_serving_load`) whose own floor is measured against a server that answers at
once. With ``--home`` give a COPY: its replay clock is moved and its ledger written to.

- ``raw``: one symbol's forward in this process against the matrix products it cannot avoid, as
  many separate passes, and a plain torch encoder in training mode run S times (`_serving_raw`).
- ``stages``: features, windowing (once more than a request does), forward, calibration and
  serialisation in this process, each bar a new one.
- ``one_caller``: in turn, again and again: the raw forward (hot, in this process), the framework's
  own ``/livez``, ``/ml/predict`` and ``/ml/predict_deep``. ``overhead_ms`` is end to end less
  the raw forward less the ping, medians each. ``overhead_same_requests_ms`` takes the mean forward
  of the very requests from the server's own metric instead: what the forward loses to colder
  caches in a server is not in it. ``server_cpu_ms`` is the processor time of all the server's
  threads for one answer, which a busy machine stretches less.
- ``callers``: 1, 8 and 64 at once, each with one request at a time.
- ``many``: symbols in one ``POST /ml/predict_many``, S = 20.
- ``beside_deep``: a caller of ``/ml/predict``, and probes, while deep callers keep the server full.
- ``overload``: more callers than are let in. Refusals are counted, and are no latencies.

Every timed request differs: those of ``/ml/predict_deep`` in their seed, all others in their bar,
because the replay clock runs a bar in some milliseconds meanwhile (a feature block, 1024 bars, is
computed before each timing; ``different_bars`` tells how many (symbol, bar) were answered). The
ledger's row of that clock is read by each request that comes 10 ms after the last reading: a
cost of replays, which a live server has not. Prints ONE JSON object last.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks._serving_raw import Stages, alternating, middle, raw_figures
from benchmarks._serving_replay import (
    DEEP,
    FIRST_BAR,
    Replay,
    Server,
    champion,
    finished,
    generator_floor,
    live_blocks,
    over,
)
from benchmarks._serving_world import free_port, make_world, running
from tradewind.clock import ManualClock
from tradewind.features.definitions import ANCHOR_BARS
from tradewind.features.samples import FeatureRow, rows_to_samples
from tradewind.features.view import FeatureView
from tradewind.market.active import store_for
from tradewind.models.bundle import ModelBundle, row_seeds
from tradewind.settings import Settings, load_settings

PING = "/livez"
FAMILIES = ("lightgbm", "transformer")
CALLERS = (1, 8, 64)
CROWDS = (64, 200, 500)
PROBES = ("/livez", "/readyz", "/metrics")
MANY = 50
SERVE_BLOCKS = 12
"""Blocks of bars that the replay of a made-up world runs through."""
PAUSE_S = 1.0
"""After a crowd, so that what is still being answered is not in the next timing."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    raw_rounds: int = 15
    slow_rounds: int = 5
    stage_rounds: int = 200
    rounds: int = 5
    light: int = 600
    deep: int = 60
    crowd_light: int = 2000
    crowd_deep: int = 400
    many: int = 20
    limit_s: float = 20.0


QUICK = Sizes(
    raw_rounds=3,
    slow_rounds=1,
    stage_rounds=20,
    rounds=2,
    light=150,
    deep=10,
    crowd_light=300,
    crowd_deep=70,
    many=3,
    limit_s=5.0,
)


SMOKE = Sizes(
    raw_rounds=1,
    slow_rounds=1,
    stage_rounds=3,
    rounds=1,
    light=60,
    deep=5,
    crowd_light=80,
    crowd_deep=70,
    many=2,
    limit_s=3.0,
)


@dataclass
class Bench:
    """One run of everything."""

    settings: Settings
    sizes: Sizes
    progress: Progress
    bundles: dict[str, ModelBundle]
    blocks: list[int]
    rows: list[FeatureRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.view = FeatureView(self.settings, store_for(self.settings), ManualClock(0))
        step = self.settings.market.timeframe_ms
        self.bars = [
            self.blocks[0] + (FIRST_BAR + n) * step for n in range(ANCHOR_BARS - FIRST_BAR)
        ]
        self.view.clock.set(self.blocks[0] + ANCHOR_BARS * step)  # type: ignore[attr-defined]
        self.rows = [self.view.at(self.settings.market.symbols[0], ts) for ts in self.bars[::40]]

    def raw(self) -> dict[str, Any]:
        """Measure the forward by itself, and the stages of a request."""
        sizes, deep = self.sizes, self.bundles["transformer"]
        found = raw_figures(
            self.settings, deep, self.rows, rounds=sizes.raw_rounds, slow=sizes.slow_rounds
        )
        stages = {
            family: Stages(self.settings, self.view, bundle, self.bars).figures(sizes.stage_rounds)
            for family, bundle in self.bundles.items()
        }
        return {"raw": found, "stages": stages}

    def forward_ms(self, family: str, passes: int, rounds: int) -> list[float]:
        """Return times of one row's forward in this process, hot."""
        samples = [rows_to_samples([row]) for row in self.rows]
        forecaster = self.bundles[family].forecaster

        def once(number: int) -> None:
            at = samples[number % len(samples)]
            forecaster.sample(at, n_samples=passes, seeds=row_seeds("benchmark", at))

        return alternating({family: once}, rounds)[family]

    def one_caller(self, replay: Replay) -> dict[str, Any]:
        """Measure both endpoints against the raw forward and the ping, in turn."""
        sizes = self.sizes
        forward: dict[str, list[float]] = {"predict": [], "predict_deep": []}
        seen: dict[str, list[dict[str, Any]]] = {"ping": [], "predict": [], "predict_deep": []}
        for _ in range(sizes.rounds):
            forward["predict"] += self.forward_ms("lightgbm", 20, sizes.light // 5)
            forward["predict_deep"] += self.forward_ms("transformer", 20, sizes.deep // 5)
            seen["ping"].append(replay.timing([PING], callers=1, requests=sizes.light, warm=50))
            seen["predict"].append(replay.predict(sizes.light, 1))
            seen["predict_deep"].append(replay.deep(sizes.deep, 1))
        ping = middle([found["p50_ms"] for found in seen["ping"]])
        ping_mean = middle([found["mean_ms"] for found in seen["ping"]])
        return {
            "ping_p50_ms": ping,
            **{
                name: path_figures(name, own, seen[name], ping, ping_mean)
                for name, own in forward.items()
            },
        }

    def many_callers(self, replay: Replay) -> dict[str, Any]:
        """Measure 1, 8 and 64 callers of each endpoint, S = 20 and 100."""
        sizes, found = self.sizes, {}
        for name, passes in (("predict", 0), ("predict_deep", 20), ("predict_deep", 100)):
            family = "transformer" if passes else "lightgbm"
            label = f"{name}_{passes}" if passes else name
            deep = max(CALLERS[-1] + 6, sizes.crowd_deep // (1 if passes == 20 else 4))
            of: dict[str, Any] = {}
            for count in CALLERS:
                raw = middle(self.forward_ms(family, passes or 20, 20 if passes != 100 else 5))
                if passes:
                    wanted = max(10, deep // 8) if count == 1 else deep
                    load = replay.deep(wanted, count, passes=passes, limit_s=sizes.limit_s)
                else:
                    load = replay.predict(sizes.crowd_light, count, limit_s=sizes.limit_s)
                of[str(count)] = load | {
                    "forward_ms": raw,
                    "p50_to_forward": over(load["p50_ms"], raw),
                    "p99_to_p50": over(load["p99_ms"], load["p50_ms"]),
                }
            for load in of.values():
                load["throughput_to_one"] = over(load["per_s"], of["1"]["per_s"])
            found[label] = of
        return found

    def many_symbols(self, replay: Replay, counts: Sequence[int]) -> dict[str, Any]:
        """Measure one request for many symbols."""
        found = {}
        for count in counts:
            names = list(self.settings.market.symbols[:count])
            body = json.dumps({"kind": "deep", "symbols": names, "n_samples": 20})
            load = replay.load(
                [f"POST /ml/predict_many {body}"],
                bar_every_s=0.02,
                requests=self.sizes.many,
                callers=1,
                warm=2,
                limit_s=self.sizes.limit_s,
            )
            raw = middle(self.forward_ms("transformer", 20, 5))
            found[str(count)] = load | {
                "per_symbol_ms": over(load["p50_ms"], count),
                "per_symbol_to_forward": over(load["p50_ms"], count * raw),
            }
        return found

    def beside_deep(self, replay: Replay) -> dict[str, Any]:
        """Measure light requests and probes while deep callers keep the server full."""
        sizes, found = self.sizes, {}
        for crowd in (8, 64, 200):
            alone = replay.predict(sizes.light // 2, 1)
            deep = [
                f"{DEEP.format(symbol=name)}&seed={{seed}}" for name in self.settings.market.symbols
            ]
            job = {"requests": 10**7, "callers": crowd, "limit_s": sizes.limit_s}
            with replay.started(deep, **job) as background:
                time.sleep(1.0)
                light = replay.predict(sizes.light // 2, 1, limit_s=sizes.limit_s / 3)
                probes = {
                    path: replay.timing(
                        [path], callers=1, requests=sizes.light // 10, limit_s=sizes.limit_s / 6
                    )
                    for path in PROBES
                }
                crowded = finished(background)
            found[str(crowd)] = {
                "predict_alone": alone,
                "predict": light,
                "p99_to_alone": over(light["p99_ms"], alone["p99_ms"]),
                "probes": probes,
                "deep": crowded,
            }
            time.sleep(PAUSE_S)
        return found

    def overload(self, replay: Replay) -> dict[str, Any]:
        """Measure more callers than are let in."""
        found = {}
        for crowd in CROWDS:
            found[str(crowd)] = replay.deep(10**7, crowd, limit_s=self.sizes.limit_s / 2) | {
                "server_threads": replay.server.threads()
            }
            time.sleep(PAUSE_S)
        return found


def path_figures(
    name: str, forward: list[float], loads: list[dict[str, Any]], ping: float, ping_mean: float
) -> dict[str, Any]:
    """Return the path of one endpoint against its forward, medians over the rounds."""
    p50, raw = middle([load["p50_ms"] for load in loads]), middle(forward)
    same = [load["mean_ms"] - load["server_mean_ms"][name]["forward"] - ping_mean for load in loads]
    return {
        "p50_ms": p50,
        "p99_ms": middle([load["p99_ms"] for load in loads]),
        "per_s": middle([load["per_s"] for load in loads]),
        "forward_ms": raw,
        "to_forward": round(p50 / raw, 3),
        "overhead_ms": round(p50 - raw - ping, 3),
        "overhead_same_requests_ms": middle(same),
        "server_cpu_ms": middle([load["server_cpu_ms"] for load in loads]),
        "server_mean_ms": {
            stage: middle([load["server_mean_ms"][name][stage] for load in loads])
            for stage in ("features", "forward", "total")
        },
        "different_bars": sum(load["different_bars"] for load in loads),
    }


def measured(settings: Settings, sizes: Sizes, progress: Progress) -> dict[str, Any]:
    """Return the figures of everything but the many symbols of a made-up world."""
    task = progress.add_task("forward and stages", total=7)

    def go(text: str) -> None:
        progress.update(task, description=text, advance=1)

    bundles = {family: champion(settings, family) for family in FAMILIES}
    blocks = live_blocks(settings, store_for(settings))
    bench = Bench(settings, sizes, progress, bundles, blocks)
    found: dict[str, Any] = bench.raw()
    found["load_generator"] = generator_floor(sizes.light)
    go("start the server")
    with running(settings, settings.home / "server.log") as process:
        server = Server(process)
        found["start"] = {"ready_s": round(process.ready_s, 2), "rss_mib": server.rss_mib()}
        replay = Replay(settings, server, blocks)
        go("one caller")
        found["one_caller"] = bench.one_caller(replay)
        go("1, 8, 64 callers")
        found["callers"] = bench.many_callers(replay)
        go("1 and 3 symbols")
        found["many"] = bench.many_symbols(
            replay, [n for n in (1, 3) if n <= len(settings.market.symbols)]
        )
        go("light requests beside deep ones")
        found["beside_deep"] = bench.beside_deep(replay)
        go("overload")
        found["overload"] = bench.overload(replay)
        found["end"] = {"rss_mib": server.rss_mib(), "threads": server.threads()}
        go("done")
    return found


def fifty(settings: Settings, sizes: Sizes, progress: Progress) -> dict[str, Any]:
    """Return the figures of many symbols in one request, from a server of its own."""
    task = progress.add_task(f"{MANY} symbols", total=1)
    bundles = {family: champion(settings, family) for family in FAMILIES}
    blocks = live_blocks(settings, store_for(settings))
    bench = Bench(settings, sizes, progress, bundles, blocks)
    with running(settings, settings.home / "server.log") as process:
        replay = Replay(settings, Server(process), blocks)
        found = bench.many_symbols(replay, [len(settings.market.symbols)])
    progress.advance(task)
    return found


def few_symbols(settings: Settings) -> Settings:
    """Return the settings of a server that serves the reference symbols alone."""
    market = settings.market.model_copy(update={"symbols": settings.market.reference_symbols})
    return settings.model_copy(update={"market": market})


def goals(found: dict[str, Any]) -> dict[str, Any]:
    """Return the goals beside what was reached."""
    raw, one = found["raw"], found["one_caller"]
    lines = {
        "exact_20_to_floor": (raw["exact_20"]["batched_to_floor"], 1.3),
        "last_layer_100_to_floor": (raw["last_layer"]["100_to_floor"], 1.5),
        "predict_overhead_ms": (one["predict"]["overhead_ms"], 1.0),
        "predict_deep_overhead_ms": (one["predict_deep"]["overhead_ms"], 1.0),
        "predict_deep_to_forward": (one["predict_deep"]["to_forward"], 2.0),
    }
    return {
        name: {"is": value, "goal": goal, "reached": value <= goal}
        for name, (value, goal) in lines.items()
    }


def main() -> None:
    """Measure, and print the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, figures not to quote")
    parser.add_argument("--smoke", action="store_true", help="smaller still: does it run at all")
    parser.add_argument("--home", type=Path, help="serve a copy of an existing home")
    given = parser.parse_args()
    name = "smoke" if given.smoke else "quick" if given.quick else "full"
    sizes = {"smoke": SMOKE, "quick": QUICK, "full": Sizes()}[name]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="tradewind-bench-") as folder,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        if given.home:
            settings = load_settings(
                home=given.home,
                clock="replay",
                serving={"port": free_port()},
                registry={"model_expiry_days": 0},
            )
            found = measured(settings, sizes, progress)
        else:
            task = progress.add_task("make bars and models", total=1)
            bars = SERVE_BLOCKS * ANCHOR_BARS
            world = make_world(Path(folder), symbols=MANY, serve_bars=bars, versions=1)
            progress.advance(task)
            found = measured(few_symbols(world.settings), sizes, progress)
            found["many"] |= fifty(world.settings, sizes, progress)
    head = {"sizes": name, "cpus": os.cpu_count()}
    print(json.dumps({**head, "goals": goals(found), **found}, indent=2))


if __name__ == "__main__":
    main()
