"""The main job, end to end: what `make demo` runs."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.demo_summary import print_summary, wide_console
from pipelines.progress import Stages, progress_bar
from tradewind.clock import WallClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_json
from tradewind.settings import MS_PER_DAY, Profile, Settings, load_settings

if TYPE_CHECKING:
    from pipelines.retrain import RetrainOutcome

LOOSENED = {"TRADEWIND_ENGINE__REQUIRE_EDGE": "false", "TRADEWIND_THRESHOLDS__BASE": "0.51"}
"""What the demo loosens, unless the environment says otherwise: honest probabilities seldom
reach the default threshold and hardly ever pay their costs, so the paper machinery would
stand still. The summary says so, beside what the defaults would have done."""
REPLAY_DAYS = {Profile.QUICK: 5, Profile.FULL: 28}


@dataclass(frozen=True)
class Stretch:
    """The replayed stretch: models see bars before ``start_ms`` only."""

    start_ms: int
    end_ms: int
    source_name: str
    source_kind: str
    set_id: str


def run_demo(*, replay_days: int, fresh: bool, summary: Path) -> None:
    """Run every stage, continuing an earlier demo that did not end, and write the summary."""
    home = Path(os.environ.get("TRADEWIND_HOME", "var/demo")).absolute()
    if fresh and home.exists():
        shutil.rmtree(home)
    os.environ["TRADEWIND_HOME"] = str(home)
    os.environ["TRADEWIND_CLOCK"] = "replay"
    for name, value in LOOSENED.items():
        os.environ.setdefault(name, value)
    settings = load_settings()
    console = wide_console()
    _say_source(console, settings)
    stages = Stages(console)
    days = replay_days or REPLAY_DAYS[settings.profile]
    stretch = _ingest(settings, stages, days)
    outcome = _retrain(settings, stages, stretch)
    prediction, paper = _serve_and_trade(settings, stages, stretch)
    found = _summary(settings, stages, stretch, outcome, prediction, paper)
    write_json(summary, found)
    print_summary(console, found, summary)


def _ingest(settings: Settings, stages: Stages, days: int) -> Stretch:
    plan_file = settings.home / "demo.json"
    if plan_file.exists():
        stages.console.print(f"[cyan]continuing the demo in {settings.home}[/]")
        return Stretch(**json.loads(plan_file.read_text(encoding="utf-8"))["stretch"])
    from pipelines.definitions import defs
    from pipelines.launch import QUIET, open_instance
    from tradewind.ledger import open_ledger
    from tradewind.ledger.clock import set_replay_clock
    from tradewind.market.active import active_set, store_for

    with stages.stage("ingest", "bars and features, one Dagster run a symbol"):
        with open_ledger(settings) as ledger:
            set_replay_clock(ledger, WallClock().now_ms())
        instance = open_instance(settings)
        job = defs.resolve_job_def("ingest")
        symbols = settings.market.all_symbols
        with progress_bar(stages.console) as bar:
            task = bar.add_task("ingest", total=len(symbols), note="")
            for symbol in symbols:
                bar.update(task, note=symbol)
                job.execute_in_process(
                    instance=instance, partition_key=symbol, run_config=QUIET, raise_on_error=True
                )
                bar.advance(task)
        store = store_for(settings)
        ends = [store.last_ts(symbol, settings.market.timeframe) for symbol in symbols]
        end_ms = min(end for end in ends if end is not None) + settings.market.timeframe_ms
        active = active_set(settings)
        assert active is not None, "an ingestion that succeeded remembers its set"
        stretch = Stretch(
            start_ms=end_ms - days * MS_PER_DAY,
            end_ms=end_ms,
            source_name=active.source_name,
            source_kind=active.source_kind,
            set_id=active.set_id,
        )
        with open_ledger(settings) as ledger:
            set_replay_clock(ledger, stretch.start_ms)
        write_json(plan_file, {"stretch": stretch.__dict__})
    return stretch


def _say_source(console: Console, settings: Settings) -> None:
    """Say in the first line where the bars come from; a simulated market is labelled."""
    from tradewind.market.open_source import open_source

    async def look() -> tuple[str, str]:
        source = await open_source(settings, WallClock())
        await source.close()
        return source.name, source.kind

    name, kind = asyncio.run(look())
    if kind == "simulated":
        console.print(f"[bold red]SIMULATED MARKET[/] ({name}): no figure here means anything")
    else:
        console.print(f"bars: {name}")


def _retrain(settings: Settings, stages: Stages, stretch: Stretch) -> RetrainOutcome:
    from pipelines.retrain import known_outcome, run_retrain

    state = settings.home / "demo-retrain.json"
    if state.exists():
        return known_outcome(json.loads(state.read_text(encoding="utf-8")))
    with stages.stage("retrain", "fit, walk forward, calibrate, gate, promote (Dagster job)"):
        outcome = run_retrain(settings, allow_failed_gates=True, console=stages.console)
        if not outcome.success:
            raise TradewindError(
                ErrorCode.INTERNAL,
                f"retrain run {outcome.run_id} failed: {'; '.join(outcome.errors)}",
                "Correct the cause and run the same command again: finished work is kept",
            )
        write_json(state, outcome.to_dict())
    return outcome


def _serve_and_trade(
    settings: Settings, stages: Stages, stretch: Stretch
) -> tuple[dict[str, Any], dict[str, Any]]:
    from pipelines.paper import entries_at_defaults, replay, report
    from pipelines.servers import serving
    from tradewind.client import ServingClient

    with stages.stage("serve and trade", "BentoML on loopback, the paper engine over HTTP"):
        with serving(settings, settings.home / "logs" / "serving.log", {}) as url:
            with ServingClient(url) as client:
                symbol = settings.market.symbols[0]
                example = client.predict_deep(symbol, n_samples=settings.serving.n_samples)
            with progress_bar(stages.console) as bar:
                total = (stretch.end_ms - stretch.start_ms) // settings.market.timeframe_ms
                task = bar.add_task("paper trading", total=total, note="")
                replay(
                    settings,
                    url,
                    stretch.start_ms,
                    stretch.end_ms,
                    lambda done, note: bar.update(task, completed=done, note=note),
                )
        paper = report(settings, stretch.start_ms, stretch.end_ms)
        paper["entries_at_default_settings"] = entries_at_defaults(
            settings, stretch.start_ms, stretch.end_ms
        )
    return example.model_dump(mode="json"), paper


def _summary(
    settings: Settings,
    stages: Stages,
    stretch: Stretch,
    outcome: RetrainOutcome,
    prediction: dict[str, Any],
    paper: dict[str, Any],
) -> dict[str, Any]:
    from pipelines.demo_summary import model_figures

    return {
        "simulated": stretch.source_kind == "simulated",
        "profile": settings.profile.value,
        "data": {
            "source": stretch.source_name,
            "kind": stretch.source_kind,
            "set": stretch.set_id,
            "timeframe": settings.market.timeframe,
            "symbols": list(settings.market.symbols),
            "days_back": settings.training.days_back,
            "trained_until_ms": stretch.start_ms,
            "replay_start_ms": stretch.start_ms,
            "replay_end_ms": stretch.end_ms,
        },
        "models": model_figures(settings),
        "promoted": [
            {
                "version": f"{item.name}/{item.version}",
                "alias": item.alias,
                "gates": item.gates,
                "missed": item.failed,
            }
            for item in outcome.candidates
        ],
        "gates": "passed"
        if all(item.gates == "passed" for item in outcome.candidates)
        else "failed",
        "prediction": prediction,
        "loosened": {name: os.environ[name] for name in LOOSENED},
        "paper": paper,
        "stages": stages.figures,
        "retrain_steps": outcome.step_seconds,
        "dagster_run_id": outcome.run_id,
        "home": str(settings.home),
    }
