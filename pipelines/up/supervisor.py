"""Starts the processes, watches them, brings back what dies, and stops all at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.servers import REPOSITORY
from pipelines.up.health import Started
from pipelines.up.parts import Part, Plan
from pipelines.up.state import ProcessState, UpState, end, log_of, orphans
from tradewind.ledger.lease import process_identity

TICK_S = 0.25
PROBE_STARTING_S = 0.5
PROBE_HEALTHY_S = 5.0
START_LIMIT_S = 240.0
SILENT_LIMIT_S = 120.0
"""A process that is there but does not answer for so long is killed and started again."""
QUICK_DEATH_S = 10.0
QUICK_DEATHS = 5
BACKOFF_S = 0.5
BACKOFF_MAX_S = 30.0
STOP_LIMIT_S = 20.0
LOG_LIMIT_BYTES = 20 * 2**20
LAST_LINES = 5
WAITING, STARTING, HEALTHY, SILENT, BACKOFF, GIVEN_UP, STOPPED = (
    "waiting",
    "starting",
    "healthy",
    "not answering",
    "restarting",
    "given up",
    "stopped",
)
SETTLED = frozenset({HEALTHY, SILENT, GIVEN_UP})
Say = Callable[[str], None]


@dataclass
class Watched:
    """One process and what is known of it."""

    part: Part
    shown: ProcessState
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    healthy_since: float | None = None
    well_at: float = 0.0
    next_look: float = 0.0
    start_at: float = 0.0
    quick_deaths: int = 0
    died_of: str = ""


@dataclass
class Supervisor:
    """Watches the parts of a plan.

    Parameters
    ----------
    state
        Written at every change, so that `status` and the next start know who runs where.
    say
        Called with each line a person should read.
    """

    plan: Plan
    state: UpState
    say: Say
    watched: dict[str, Watched] = field(default_factory=dict)
    hurry: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Begin with everything waiting."""
        for part in self.plan.parts:
            shown = ProcessState(
                part.name, address=part.address, log=str(log_of(self._home, part.name))
            )
            self.watched[part.name] = Watched(part, shown)
        self.state.processes = [item.shown for item in self.watched.values()]
        self.state.save(self._home)

    @property
    def _home(self) -> Path:
        return self.plan.settings.home.absolute()

    @property
    def settled(self) -> bool:
        """Return whether every part is up, given up, or waits for one that is given up."""
        return all(
            item.shown.state in SETTLED or (item.shown.state == WAITING and self._blocked(item))
            for item in self.watched.values()
        )

    @property
    def given_up(self) -> list[str]:
        """Return the parts that kept dying."""
        return [name for name, item in self.watched.items() if item.shown.state == GIVEN_UP]

    def turn(self) -> None:
        """Look at every part once and do what it needs."""
        for item in self.watched.values():
            self._look(item)

    def stop(self) -> None:
        """Stop all in reverse order, wait for each, and leave nothing behind."""
        for item in reversed(self.watched.values()):
            if item.process is not None and item.process.poll() is None:
                began = time.monotonic()
                killed = _end_group(item.process, self.hurry)
                how = "had to be killed" if killed else "stopped"
                self.say(f"{item.part.name} {how} after {time.monotonic() - began:.1f} s")
            self._show(item, STOPPED)
            item.shown.pid = item.shown.identity = None
        # Runs that outlived a code server, workers that outlived their server.
        left = orphans(self._home)
        if left:
            self.say(f"ending {len(left)} processes that were left")
            end(left)
        self.state.save(self._home)

    def _blocked(self, item: Watched) -> bool:
        others = [self.watched[name] for name in item.part.needs]
        return any(
            other.shown.state == GIVEN_UP or (other.shown.state == WAITING and self._blocked(other))
            for other in others
        )

    def _look(self, item: Watched) -> None:
        now = time.monotonic()
        state = item.shown.state
        if state == GIVEN_UP:
            return
        if state == WAITING:
            if all(self.watched[name].healthy_since is not None for name in item.part.needs):
                self._start(item)
        elif state == BACKOFF:
            if now >= item.start_at:
                self._start(item)
        elif item.process is not None and item.process.poll() is not None:
            self._died(item, _words(item.process.returncode))
        elif now >= item.next_look:
            self._ask(item)

    def _start(self, item: Watched) -> None:
        log = log_of(self._home, item.part.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        _roll(log)
        with log.open("ab") as sink:
            item.process = subprocess.Popen(
                item.part.argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**self.plan.environment, **item.part.environment},
                cwd=REPOSITORY,
                # Ctrl-C reaches this process alone, which then stops them in order.
                start_new_session=True,
            )
        item.started = item.well_at = time.monotonic()
        item.healthy_since, item.next_look = None, 0.0
        item.shown.pid = item.process.pid
        item.shown.identity = process_identity(item.process.pid)
        item.shown.started_ms = time.time_ns() // 1_000_000
        self._show(item, STARTING)

    def _ask(self, item: Watched) -> None:
        assert item.process is not None
        assert item.shown.started_ms is not None
        problem = item.part.probe(Started(item.process.pid, item.shown.started_ms / 1000))
        now = time.monotonic()
        if problem is None:
            item.well_at, item.next_look = now, now + PROBE_HEALTHY_S
            if item.healthy_since is None:
                item.healthy_since = now
                self._tell_healthy(item, now - item.started)
            self._show(item, HEALTHY)
            return
        item.next_look = now + PROBE_STARTING_S
        if item.healthy_since is not None and item.shown.state == HEALTHY:
            self._show(item, SILENT, problem)
        limit = SILENT_LIMIT_S if item.healthy_since is not None else START_LIMIT_S
        if now - item.well_at > limit:
            _end_group(item.process, self.hurry)
            self._died(item, f"not well for {limit:.0f} s: {problem}; it was stopped")

    def _tell_healthy(self, item: Watched, seconds: float) -> None:
        name, pid = item.part.name, item.shown.pid
        if item.died_of:
            self.say(
                f"{name} died ({item.died_of}), restarted as pid {pid}, "
                f"healthy after {seconds:.1f} s"
            )
        else:
            self.say(f"{name} is healthy after {seconds:.1f} s (pid {pid})")

    def _died(self, item: Watched, why: str) -> None:
        assert item.process is not None
        if not item.part.keeps_children:
            # A worker that outlives its server would hold the port.
            _signal_group(item.process.pid, signal.SIGKILL)
        now = time.monotonic()
        lived = 0.0 if item.healthy_since is None else now - item.healthy_since
        item.quick_deaths = item.quick_deaths + 1 if lived < QUICK_DEATH_S else 1
        item.died_of = why
        item.healthy_since = None
        item.shown.pid = item.shown.identity = None
        log = log_of(self._home, item.part.name)
        if item.quick_deaths >= QUICK_DEATHS:
            self._show(item, GIVEN_UP, why)
            lines = "\n".join(f"  {line}" for line in tail(log, LAST_LINES))
            self.say(
                f"{item.part.name} died {item.quick_deaths} times in quick succession ({why}) and "
                f"is given up; the others go on. Its last lines ({log}):\n{lines}"
            )
            return
        pause = 0.0
        if item.quick_deaths > 1:
            pause = min(BACKOFF_MAX_S, BACKOFF_S * 2 ** (item.quick_deaths - 1))
        item.start_at = now + pause
        item.shown.restarts += 1
        later = f" in {pause:.1f} s" if pause else ""
        self.say(f"{item.part.name} died ({why}): restarting{later}")
        self._show(item, BACKOFF, why)

    def _show(self, item: Watched, state: str, detail: str = "") -> None:
        if (item.shown.state, item.shown.detail) == (state, detail):
            return
        item.shown.state, item.shown.detail = state, detail
        self.state.save(self._home)


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of a text file; none where it is not there."""
    if not path.exists():
        return []
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 64 * 1024))
        return stream.read().decode("utf-8", "replace").splitlines()[-lines:]


def _words(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"ended with code {code}"


def _roll(log: Path) -> None:
    """Keep one older file, so that logs do not grow for ever."""
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))


def _end_group(process: subprocess.Popen[bytes], hurry: threading.Event) -> bool:
    """End a process and its group; return whether it had to be killed."""
    _signal_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline and not hurry.is_set():
        time.sleep(TICK_S / 5)
    killed = process.poll() is None
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()
    return killed


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return
