"""`tradewind up`: one at a time, prepared, started, watched, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from pipelines.servers import REPOSITORY
from pipelines.up import homes, ports
from pipelines.up.health import read_engine
from pipelines.up.mode import Mode, choose_mode
from pipelines.up.parts import ENGINE, Plan, make_plan, write_workspace
from pipelines.up.saying import Say
from pipelines.up.state import UpState, end, folder_of, load, log_of, orphans
from pipelines.up.supervisor import TICK_S, Supervisor
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger.lease import process_identity
from tradewind.settings import Settings, load_settings

OWN_LOG = "up"
FAILED = 1
TOGGLE = """
mutation ($selector: ScheduleSelector!) {
  startSchedule(scheduleSelector: $selector) { __typename ... on PythonError { message } }
}
"""
LIVE_SCHEDULE = "ingest_15m"


@dataclass(frozen=True)
class Asked:
    """What the command line asked for."""

    mode: Mode | None
    pace_s: float
    replay_days: int


def run_up(asked: Asked, console: Console) -> int:
    """Run everything until Ctrl-C; return the exit status (1: a process was given up).

    Raises
    ------
    TradewindError
        ``already_running`` while another `up` runs in this home.
    """
    home = homes.choose_home()
    with _alone(home):
        say = Say(log_of(home, OWN_LOG), console)
        _say_home(home, homes.adopt(home), say)
        left = _clean(home, say)
        settings = _settings(home, asked, left)
        chosen = ports.choose(settings, left.ports if left else {})
        plan = make_plan(settings, chosen, asked.pace_s)
        write_workspace(home, chosen[ports.CODE_SERVER])
        homes.record_databases(home, settings)
        state = UpState(
            pid=os.getpid(),
            identity=process_identity(os.getpid()),
            mode=settings.clock,
            ports=chosen,
            started_ms=time.time_ns() // 1_000_000,
        )
        supervisor = Supervisor(plan, state, say)
        with _signals(supervisor) as stopping:
            _prepare(settings, plan, asked, left, stopping)
            try:
                _watch(supervisor, stopping, say)
            finally:
                supervisor.stop()
            say("all stopped; run the same command to carry on")
        return FAILED if supervisor.given_up else 0


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Refuse a second `up` in one home; the system takes the lock from a killed one."""
    folder = folder_of(home)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        known = load(home)
        who = f"pid {known.pid}" if known and known.running else "a process that is just starting"
        raise TradewindError(
            ErrorCode.ALREADY_RUNNING,
            f"`tradewind up` already runs in {home}: {who}",
            "Look at `tradewind status`; stop it with Ctrl-C there, or choose another "
            "TRADEWIND_HOME",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _say_home(home: Path, adopted: dict[str, str], say: Say) -> None:
    say.show(f"home {home}")
    if adopted:
        words = ", ".join(f"{name}={value}" for name, value in adopted.items())
        say.show(
            f"it holds a finished demo, which goes on with the demo's own settings: {words} "
            "(what the demo loosened so that orders flow stays loosened; a variable of the "
            "environment wins)"
        )


def _clean(home: Path, say: Say) -> UpState | None:
    """End what a killed `up` left running; return what it had written."""
    known = load(home)
    left = orphans(home)
    if left:
        who = f"pid {known.pid}" if known else "unknown"
        say(f"an earlier `tradewind up` ({who}) was killed: ending {len(left)} processes it left")
        end(left)
    return known


def _settings(home: Path, asked: Asked, before: UpState | None) -> Settings:
    settings = load_settings(home=home)
    mode = choose_mode(settings, asked.mode, before)
    return settings.model_copy(update={"clock": mode})


def _prepare(
    settings: Settings,
    plan: Plan,
    asked: Asked,
    before: UpState | None,
    stopping: threading.Event,
) -> None:
    """Prepare the home in a process of its own, with the tracker as it is without a server."""
    tracking = json.dumps(settings.registry.model_dump(mode="json"))
    dead = before.ports.get(ports.CODE_SERVER, 0) if before else 0
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pipelines.up.prepare"),
            *("--replay-days", str(asked.replay_days), "--dead-code-server", str(dead)),
        ],
        cwd=REPOSITORY,
        env={**plan.environment, "TRADEWIND_REGISTRY": tracking},
    )
    while process.poll() is None:
        if stopping.wait(TICK_S):
            process.terminate()
            process.wait()
            return
    if process.returncode:
        raise TradewindError(
            ErrorCode.INTERNAL,
            f"the home could not be prepared (status {process.returncode}, told above)",
            "Correct the cause and start again: what is done is kept",
        )


def _watch(supervisor: Supervisor, stopping: threading.Event, say: Say) -> None:
    shown = False
    while not stopping.is_set():
        supervisor.turn()
        if not shown and supervisor.settled:
            shown = True
            if supervisor.plan.settings.clock == "wall":
                _start_ingest_schedule(supervisor)
            _print(supervisor, say)
        stopping.wait(TICK_S)
    say("stopping, the last started first (Ctrl-C again kills)")


def _print(supervisor: Supervisor, say: Say) -> None:
    view = Table(title="tradewind is up", title_justify="left")
    for column in ("process", "address", "state", "pid", "log"):
        view.add_column(column, justify="right" if column == "pid" else "left", overflow="fold")
    folder = folder_of(supervisor.plan.settings.home)
    for item in supervisor.state.processes:
        view.add_row(
            item.name,
            item.address or "–",
            item.state,
            str(item.pid or "–"),
            str(Path(item.log).relative_to(folder)),
        )
    say.show(view)
    settings = supervisor.plan.settings
    told = _told(settings)
    say.show(
        f"logs below {folder}; `tradewind logs NAME -f` follows one, `tradewind status` shows all\n"
        + (f"{ENGINE}: {told['state']}, {told['detail']}\n" if told else "")
        + "in another terminal: "
        f"export TRADEWIND_HOME={settings.home.absolute()} TRADEWIND_CLOCK={settings.clock}\n"
        "Ctrl-C stops everything"
    )


def _told(settings: Settings) -> dict[str, Any] | None:
    try:
        return read_engine(settings.home)
    except (OSError, ValueError):  # the engine's probe has named it
        return None


def _start_ingest_schedule(supervisor: Supervisor) -> None:
    """Switch the schedule on that reads a bar when it has closed: live means new bars."""
    import httpx

    selector = {
        "repositoryLocationName": "tradewind",
        "repositoryName": "__repository__",
        "scheduleName": LIVE_SCHEDULE,
    }
    url = f"{supervisor.plan.settings.links.dagster_url}/graphql"
    body = {"query": TOGGLE, "variables": {"selector": selector}}
    try:
        answer = httpx.post(url, json=body, timeout=30)
        answer.raise_for_status()
        done = answer.json()["data"]["startSchedule"]
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        supervisor.say(
            f"schedule {LIVE_SCHEDULE} could not be started ({type(error).__name__}: {error}): "
            "do it in the UI"
        )
        return
    started = done.get("__typename") == "ScheduleStateResult"
    supervisor.say(f"schedule {LIVE_SCHEDULE} {'is on' if started else f'was not started: {done}'}")


@contextmanager
def _signals(supervisor: Supervisor) -> Iterator[threading.Event]:
    """SIGINT and SIGTERM stop everything in order; the second one kills."""
    stopping = threading.Event()

    def wish(_number: int, _frame: FrameType | None) -> None:
        if stopping.is_set():
            supervisor.hurry.set()
        stopping.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, wish) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
