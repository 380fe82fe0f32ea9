"""The main job, end to end: what `make demo` runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.demo_summary import print_summary, wide_console
from pipelines.progress import Stages, progress_bar
from pipelines.up.homes import DEMO_HOME, FINISHED, recordable
from tradewind.clock import WallClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_json
from tradewind.settings import MS_PER_DAY, Profile, Settings, load_settings

if TYPE_CHECKING:
    from pipelines.retrain import RetrainOutcome

LOOSENED = {
    "TRADEWIND_ENGINE__REQUIRE_EDGE": "false",
    "TRADEWIND_THRESHOLDS__BASE": "0.51",
    "TRADEWIND_SERVING__VOTE__LEAST_SKILL": "0.000001",
}
"""What the demo loosens, unless the environment says otherwise: honest probabilities seldom
reach the default threshold, hardly ever pay their costs, and come from members that a month
of calibration often shows no skill of, so the paper machinery would stand still. The summary
says so, beside what the defaults would have done."""
EXPIRY = "TRADEWIND_REGISTRY__MODEL_EXPIRY_DAYS"
STATE_FOLDER = "demo"
REPLAY_DAYS = {Profile.QUICK: 5, Profile.FULL: 28}
UNREAD_DAYS = 9
"""Days at the end that the demo leaves alone: `tradewind up` carries on through them."""


@dataclass(frozen=True)
class Stretch:
    """The replayed stretch: models see bars before ``start_ms`` only.

    Bars after ``end_ms`` stay unread, for `tradewind up` to carry on with.
    """

    start_ms: int
    end_ms: int
    source_name: str
    source_kind: str
    set_id: str


def run_demo(*, replay_days: int, fresh: bool, summary: Path) -> None:
    """Run every stage, continuing an earlier demo that did not end, and write the summary.

    Raises
    ------
    TradewindError
        ``bad_input`` when the state folder holds a demo of other settings, or anything that
        is not a demo's: nothing is removed unasked.
    """
    home = Path(os.environ.get("TRADEWIND_HOME", DEMO_HOME)).absolute()
    os.environ["TRADEWIND_HOME"] = str(home)
    os.environ["TRADEWIND_CLOCK"] = "replay"
    for name, value in LOOSENED.items():
        os.environ.setdefault(name, value)
    settings = load_settings()
    days = replay_days or REPLAY_DAYS[settings.profile]
    settings = outliving(settings, days)
    asked = _asked(settings, days)
    _make_room(home, asked, fresh=fresh)
    console = wide_console()
    stages = Stages(console, home / STATE_FOLDER / "stages.json")
    stretch = _ingest(settings, stages, days, asked)
    outcome = _retrain(settings, stages)
    prediction, paper = _serve_and_trade(settings, stages, stretch)
    found = _summary(settings, stages, stretch, outcome, prediction, paper)
    write_json(summary, found)
    write_json(
        home / FINISHED,
        {"summary": str(summary.absolute()), "environment": recordable(os.environ)},
    )
    print_summary(console, found, summary)


def outliving(settings: Settings, replay_days: int) -> Settings:
    """Return settings under which no version expires before the last day is read.

    The demo trains once, and `tradewind up` carries on through the days that it leaves unread.
    What the environment says holds.
    """
    lasting = replay_days + UNREAD_DAYS + 1
    limit = settings.registry.model_expiry_days
    if EXPIRY in os.environ or not 0 < limit < lasting:
        return settings
    os.environ[EXPIRY] = str(lasting)
    return load_settings()


def _asked(settings: Settings, days: int) -> str:
    """Return the identity of what is asked for: a demo continues only the same demo."""
    wanted = settings.model_dump(mode="json", exclude={"home", "serving"})
    text = json.dumps({"settings": wanted, "days": days, "unread": UNREAD_DAYS}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _make_room(home: Path, asked: str, *, fresh: bool) -> None:
    """Start over where an earlier demo ended; continue one that did not; refuse the rest."""
    state = home / STATE_FOLDER
    plan = state / "plan.json"
    if not home.exists() or not any(home.iterdir()):
        return
    if not state.is_dir():
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"TRADEWIND_HOME = {home} holds something that is not a demo",
            "Point TRADEWIND_HOME at an empty folder, or unset it (default var/demo)",
        )
    _refuse_where_up_ran(home, fresh=fresh)
    same = not plan.exists() or _read(plan)["asked"] == asked
    if fresh or (home / FINISHED).exists():
        shutil.rmtree(home)
    elif not same:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"{home} holds an unfinished demo of other settings (profile, data, days)",
            "Run `tradewind demo --fresh` to start over, or restore those settings to continue",
        )


def _refuse_where_up_ran(home: Path, *, fresh: bool) -> None:
    """Keep what `up` went on with in this home: its account and its models."""
    from pipelines.up.state import load

    known = load(home)
    if known is None:
        return
    if known.running:
        raise TradewindError(
            ErrorCode.ALREADY_RUNNING,
            f"`tradewind up` runs in {home} (pid {known.pid})",
            "Stop it with Ctrl-C first, or point TRADEWIND_HOME at an empty folder",
        )
    if not fresh:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"`tradewind up` went on with the demo in {home}: a new one would remove its account",
            "Run `tradewind demo --fresh` to remove it, or point TRADEWIND_HOME at an empty folder",
        )


def _ingest(settings: Settings, stages: Stages, days: int, asked: str) -> Stretch:
    state = settings.home / STATE_FOLDER
    if (state / "plan.json").exists():
        stretch = Stretch(**_read(state / "plan.json")["stretch"])
        _say_source(stages.console, stretch.source_name, stretch.source_kind)
        stages.console.print(f"[cyan]continuing the demo in {settings.home}[/]")
        return stretch
    from pipelines.launch import ingest_symbols, open_instance
    from tradewind.ledger import open_ledger
    from tradewind.ledger.clock import set_replay_clock
    from tradewind.market.active import active_set, store_for
    from tradewind.market.open_source import settle_source

    state.mkdir(parents=True, exist_ok=True)
    found = settle_source(settings, WallClock())
    _say_source(stages.console, found.source_name, found.source_kind)
    with stages.stage("ingest", "bars and features, one Dagster run a symbol"):
        with open_ledger(settings) as ledger:
            set_replay_clock(ledger, WallClock().now_ms())
        ingest_symbols(settings, open_instance(settings), stages.console)
        store = store_for(settings)
        timeframe = settings.market.timeframe
        ends = [store.last_ts(symbol, timeframe) for symbol in settings.market.all_symbols]
        newest_ms = min(end for end in ends if end is not None) + settings.market.timeframe_ms
        end_ms = newest_ms - UNREAD_DAYS * MS_PER_DAY
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
        write_json(state / "plan.json", {"asked": asked, "stretch": stretch.__dict__})
    return stretch


def _say_source(console: Console, name: str, kind: str) -> None:
    """Say in the first line where the bars come from; a simulated market is labelled."""
    if kind == "simulated":
        console.print(f"[bold red]SIMULATED MARKET[/] ({name}): no figure here means anything")
    else:
        console.print(f"bars: {name}")


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _retrain(settings: Settings, stages: Stages) -> RetrainOutcome:
    from pipelines.retrain import known_outcome, run_retrain

    state = settings.home / STATE_FOLDER / "retrain.json"
    if state.exists():
        return known_outcome(_read(state))
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
            "unread_days": UNREAD_DAYS,
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
        "loosened": {name: os.environ[name] for name in (*LOOSENED, EXPIRY) if name in os.environ},
        "paper": paper,
        "stages": stages.figures,
        "retrain_steps": outcome.step_seconds,
        "dagster_run_id": outcome.run_id,
        "home": str(settings.home),
    }
