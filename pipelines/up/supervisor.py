"""Starts the processes, watches them, brings back what dies, and stops all at the end."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pipelines.servers import REPOSITORY
from pipelines.up.groups import end_group, has_ended, kill_group
from pipelines.up.health import Started
from pipelines.up.logs import keep_small, tail
from pipelines.up.parts import Part, Plan
from pipelines.up.state import ProcessState, UpState, end, folder_of, log_of, orphans
from tradewind.errors import TradewindError
from tradewind.ledger.lease import process_identity
from tradewind.settings import UpSettings

TICK_S = 0.25
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
    after_death: subprocess.Popen[bytes] | None = None
    failed: str = ""
    probe_failed: str = ""
    retry_at: float = 0.0


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
    _unsaved: bool = False
    _logs_at: float = 0.0

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
    def _limits(self) -> UpSettings:
        return self.plan.settings.up

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
        """Look at every part once and do what it needs.

        What a full disk or the system refuses is said, and tried again some seconds later.
        """
        for item in self.watched.values():
            if time.monotonic() < item.retry_at:
                continue
            try:
                self._look(item)
            except (OSError, TradewindError) as error:
                self._failed(item, error)
            else:
                item.failed = ""
        if self._unsaved:
            self._save()
        self._keep_logs_small()

    def stop(self) -> None:
        """Stop all in reverse order, wait for each, and leave nothing behind.

        Nothing that goes wrong on the way keeps the next process from being ended.
        """
        for item in reversed(self.watched.values()):
            self._guarded(item.part.name, partial(self._stop_one, item))
        # Runs that outlived a code server, workers that outlived their server.
        self._guarded("what was left", self._end_left)
        self._save()

    def _guarded(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the others must be ended all the same
            self.say(f"{name} could not be stopped in order: {type(error).__name__}: {error}")

    def _stop_one(self, item: Watched) -> None:
        if item.after_death is not None:
            end_group(item.after_death, self._limits.stop_limit_s, self.hurry)
        process = item.process
        if process is not None and process.returncode is None:
            began, there = time.monotonic(), not has_ended(process)
            killed = end_group(process, self._limits.stop_limit_s, self.hurry)
            if there or killed:
                how = "had to be killed" if killed else "stopped"
                self.say(f"{item.part.name} {how} after {time.monotonic() - began:.1f} s")
        item.shown.state, item.shown.detail = STOPPED, ""
        item.shown.pid = item.shown.identity = None

    def _end_left(self) -> None:
        left = orphans(self._home)
        if left:
            self.say(f"ending {len(left)} processes that were left")
            end(left)

    def _failed(self, item: Watched, error: OSError | TradewindError) -> None:
        item.retry_at = time.monotonic() + self._limits.retry_s
        words = f"{item.part.name}: {error}"
        if words != item.failed:
            item.failed = words
            self.say(f"{words}; tried again every {self._limits.retry_s:g} s")

    def _save(self) -> None:
        try:
            self.state.save(self._home)
        except (OSError, TradewindError) as error:
            if not self._unsaved:
                self.say(f"the state of the processes could not be written: {error}")
            self._unsaved = True
        else:
            self._unsaved = False

    def _keep_logs_small(self) -> None:
        now = time.monotonic()
        if now < self._logs_at:
            return
        self._logs_at = now + self._limits.retry_s
        try:
            keep_small(folder_of(self._home) / "logs", round(self._limits.log_limit_mib * 2**20))
        except OSError as error:
            self.say(f"the logs could not be cut: {error}")

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
        elif item.process is not None and has_ended(item.process):
            if item.part.keeps_children:
                item.process.wait()
            else:
                # A worker that outlives its server would hold the port.
                kill_group(item.process)
            self._died(item, _words(item.process.returncode))
        elif now >= item.next_look:
            self._ask(item)

    def _start(self, item: Watched) -> None:
        item.process = self._open(item.part, item.part.argv)
        item.started = item.well_at = time.monotonic()
        item.healthy_since, item.next_look = None, 0.0
        item.shown.pid = item.process.pid
        item.shown.identity = process_identity(item.process.pid)
        item.shown.started_ms = time.time_ns() // 1_000_000
        self._show(item, STARTING)

    def _ask(self, item: Watched) -> None:
        assert item.process is not None
        assert item.shown.started_ms is not None
        problem = self._problem(item, Started(item.process.pid, item.shown.started_ms / 1000))
        now = time.monotonic()
        if problem is None:
            item.well_at, item.next_look = now, now + self._limits.probe_healthy_s
            if item.healthy_since is None:
                item.healthy_since = now
                self._tell_healthy(item, now - item.started)
            self._show(item, HEALTHY)
            return
        item.next_look = now + self._limits.probe_starting_s
        if item.healthy_since is not None and item.shown.state == HEALTHY:
            self._show(item, SILENT, problem)
        if any(self.watched[name].shown.state != HEALTHY for name in item.part.needs):
            item.well_at = now  # it cannot be well, or not be asked, without them
        began = item.healthy_since is None
        limit = self._limits.start_limit_s if began else self._limits.silent_limit_s
        if now - item.well_at > limit:
            keeps = item.part.keeps_children
            end_group(item.process, self._limits.stop_limit_s, self.hurry, alone=keeps)
            self._died(item, f"not well for {limit:g} s: {problem}; it was stopped")

    def _problem(self, item: Watched, started: Started) -> str | None:
        try:
            return item.part.probe(started)
        except Exception as error:  # noqa: BLE001 - whatever answers must not end the platform
            problem = f"probe failed: {type(error).__name__}: {error}"
            if problem != item.probe_failed:
                self.say(f"{item.part.name}: {problem}")
            item.probe_failed = problem
            return problem

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
        now, limits = time.monotonic(), self._limits
        lived = 0.0 if item.healthy_since is None else now - item.healthy_since
        item.quick_deaths = item.quick_deaths + 1 if lived < limits.quick_death_s else 1
        item.died_of = why
        item.healthy_since = None
        item.shown.pid = item.shown.identity = None
        if item.quick_deaths >= limits.quick_deaths:
            self._give_up(item, why)
        else:
            pause = 0.0
            if item.quick_deaths > 1:
                pause = min(limits.backoff_max_s, limits.backoff_s * 2 ** (item.quick_deaths - 1))
            item.start_at = now + pause
            item.shown.restarts += 1
            later = f" in {pause:.1f} s" if pause else ""
            self.say(f"{item.part.name} died ({why}): restarting{later}")
            self._show(item, BACKOFF, why)
        self._clear_up_after(item)

    def _give_up(self, item: Watched, why: str) -> None:
        self._show(item, GIVEN_UP, why)
        log = log_of(self._home, item.part.name)
        lines = "\n".join(f"  {line}" for line in tail(log, LAST_LINES))
        self.say(
            f"{item.part.name} died {item.quick_deaths} times in quick succession ({why}) and "
            f"is given up; the others go on. Its last lines ({log}):\n{lines}"
        )

    def _clear_up_after(self, item: Watched) -> None:
        """Run what a part wants done after its death; an earlier one has done enough."""
        if not item.part.after_death:
            return
        if item.after_death is not None:
            end_group(item.after_death, self._limits.stop_limit_s, self.hurry)
        item.after_death = self._open(item.part, item.part.after_death)

    def _open(self, part: Part, argv: tuple[str, ...]) -> subprocess.Popen[bytes]:
        log = log_of(self._home, part.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        # Appending, so that a log that was cut goes on at its new end.
        with log.open("ab") as sink:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**self.plan.environment, **part.environment},
                cwd=REPOSITORY,
                # Ctrl-C reaches this process alone, which then stops them in order.
                start_new_session=True,
            )

    def _show(self, item: Watched, state: str, detail: str = "") -> None:
        if (item.shown.state, item.shown.detail) == (state, detail):
            return
        item.shown.state, item.shown.detail = state, detail
        self._save()


def _words(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
