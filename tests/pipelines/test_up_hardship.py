"""`up` in hardship: closed consoles, full disks, broken probes, silence, outages, dead runs."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from pipelines.up import runs, state
from pipelines.up.groups import end_group, has_ended, kill_group, members
from pipelines.up.health import read_engine
from pipelines.up.parts import Part, make_plan
from pipelines.up.saying import Say
from pipelines.up.state import UpState, load, log_of, marked, orphans
from pipelines.up.supervisor import GIVEN_UP, HEALTHY, Supervisor
from pipelines.up.trading import OTHER_ENGINE, Told, attend
from policy.engine import WAITING
from tests.pipelines.conftest import ROOT, environment
from tests.pipelines.test_up import PORTS, SLEEP, limited, turn_until, watch
from tests.support.trading_day import trading_settings, write_market
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings, load_settings

STUBBORN = (
    *(sys.executable, "-c"),
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('set', flush=True);"
    "time.sleep(600)",
)
FAMILY = (
    *(sys.executable, "-c"),
    "import subprocess, sys, time;"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print('set', flush=True); time.sleep(600)",
)
UP = """
import os, sys
from rich.console import Console
from pipelines.up import run
from pipelines.up.parts import Part, Plan
from pipelines.up.state import MARK

def plan(settings, ports, pace_s):
    sleep = (sys.executable, "-c", "import time; time.sleep(600)")
    parts = tuple(Part(name, sleep, lambda _started: None) for name in ("one", "two"))
    return Plan(settings, {**os.environ, MARK: str(settings.home.absolute())}, parts)

run.make_plan = plan
run._prepare = lambda *_arguments: None
raise SystemExit(run.run_up(run.Asked("replay", 0, 1), Console()))
"""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TRADEWIND_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ), raising=True)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty home, in which nothing is left running."""
    found = load_settings(home=tmp_path / "home", clock="replay")
    yield found
    left = orphans(found.home)
    state.end(left)
    assert left == []


def until(wanted: Callable[[], object], limit_s: float = 30) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + limit_s
    while not wanted():
        if time.monotonic() > deadline:
            pytest.fail("not reached")
        time.sleep(0.02)


def turning(supervisor: Supervisor, wanted: Callable[[], object]) -> None:
    """Let the supervisor work until something is true."""

    def turned() -> object:
        supervisor.turn()
        return wanted()

    until(turned)


def code_of(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code of a child that was reaped."""
    return process.returncode


def full(*_arguments: object) -> None:
    """Stand in for a write to a full disk."""
    raise TradewindError(ErrorCode.DISK_FULL, "no space left", "Free space")


# -- stopping ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
def test_a_closed_console_leaves_nothing_running(settings: Settings, kind: str) -> None:
    settings.home.mkdir()
    reader, writer = pty.openpty() if kind == "terminal" else os.pipe()
    variables = environment(settings.home, PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")
    up = subprocess.Popen(
        [sys.executable, "-c", UP],
        env=variables,
        stdout=writer,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(writer)
    try:
        until(lambda: (held := load(settings.home)) and _all(held, HEALTHY))
        assert len(orphans(settings.home)) == 2
        os.close(reader)
        up.send_signal(signal.SIGHUP)
        assert up.wait(30) == 0
        assert orphans(settings.home) == []
        held = load(settings.home)
        assert held is not None
        assert _all(held, "stopped")
        said = log_of(settings.home, "up").read_text()
        assert said.index("two stopped") < said.index("one stopped") < said.index("all stopped")
    finally:
        up.kill()
        up.wait()


def _all(held: UpState, wanted: str) -> bool:
    return [item.state for item in held.processes] == [wanted] * 2


def test_a_full_disk_keeps_no_process_from_being_stopped(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [Part(name, SLEEP, lambda _started: None) for name in ("one", "two", "three")]
    supervisor, said = watch(settings, *parts)
    turn_until(supervisor, "three", HEALTHY)
    with monkeypatch.context() as patch:
        patch.setattr(UpState, "save", full)
        supervisor.stop()
        assert orphans(settings.home) == []
    assert [line.split()[0] for line in said[3:6]] == ["three", "two", "one"]
    assert "no space left" in said[-1]


def test_one_that_cannot_be_stopped_does_not_save_the_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor, said = watch(
        settings, *(Part(name, SLEEP, lambda _started: None) for name in ("one", "two"))
    )
    turn_until(supervisor, "two", HEALTHY)
    broken = supervisor.watched["two"].process

    def end(process: Any, *arguments: Any, **more: Any) -> bool:
        if process is broken:
            raise PermissionError(errno.EPERM, "not yours")
        return end_group(process, *arguments, **more)

    monkeypatch.setattr("pipelines.up.supervisor.end_group", end)
    supervisor.stop()
    assert "two could not be stopped in order: PermissionError" in said[2]
    assert said[3].startswith("one stopped")
    assert said[4] == "ending 1 processes that were left"  # the net below catches it
    assert broken is not None
    broken.wait()


def test_saying_survives_a_full_disk_and_a_closed_pipe(tmp_path: Path) -> None:
    screen = io.StringIO()
    Say(Path("/dev/full"), Console(file=screen, width=200))("all is well")
    assert "all is well" in screen.getvalue()
    assert "/dev/full cannot be written: No space left" in screen.getvalue()
    nowhere = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails as well
    say = Say(tmp_path / "up.log", Console(file=nowhere))
    say("one")
    say("two")
    assert (tmp_path / "up.log").read_text().count("\n") == 2
    assert say.console is not None  # there may be room again
    with contextlib.suppress(OSError):
        nowhere.close()


# -- processes and groups ---------------------------------------------------------------


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a group of its own that has said it is ready."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(argv: tuple[str, ...]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
        begun.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"set\n"
        return process

    yield start
    for process in begun:
        for pid in members(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_group_is_ended_while_its_number_is_still_its_own(
    child: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = child(FAMILY)
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: has_ended(process))
    assert code_of(process) is None  # seen, not reaped
    assert len(members(process.pid)) == 1
    kill_group(process)
    assert members(process.pid) == []
    assert code_of(process) == -signal.SIGKILL
    signals: list[object] = []
    monkeypatch.setattr(os, "killpg", lambda *given: signals.append(given))
    kill_group(process)
    assert end_group(process, 1, threading.Event()) is False
    assert signals == []  # the number may be anybody's by now


def test_the_whole_group_has_its_time_to_end(
    child: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    leader = (
        *(sys.executable, "-c"),
        "import subprocess, sys, time\n"
        "slow = 'import signal, sys, time\\n"
        'signal.signal(15, lambda *_: (time.sleep(0.5), open(sys.argv[1], "w"), sys.exit()))\\n'
        'print("set", flush=True)\\ntime.sleep(600)\'\n'
        "subprocess.Popen([sys.executable, '-c', slow, sys.argv[1]])\n"
        "time.sleep(600)",
    )
    done = tmp_path / "done"
    process = child((*leader, str(done)))
    assert end_group(process, 10, threading.Event()) is False
    assert done.exists()  # it was not killed together with its leader
    assert members(process.pid) == []


def test_one_that_does_not_stop_is_killed(
    child: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = child(STUBBORN)
    assert end_group(process, 0.2, threading.Event()) is True
    assert process.returncode == -signal.SIGKILL


def test_a_silent_process_is_killed_and_its_children_may_stay(settings: Settings) -> None:
    settings = limited(settings, silent_limit_s=0.3, probe_starting_s=0.05, probe_healthy_s=0.05)
    silent: set[int] = set()

    def probe(started: Any) -> str | None:
        return "nothing answers" if started.pid in silent else None

    supervisor, said = watch(settings, Part("server", FAMILY, probe, keeps_children=True))
    try:
        turn_until(supervisor, "server", HEALTHY)
        first = supervisor.watched["server"].shown.pid
        assert first is not None
        until(lambda: len(members(first)) == 2)
        run = next(pid for pid in members(first) if pid != first)
        silent.add(first)
        turn_until(supervisor, "server", "restarting")
        assert "not well for 0.3 s: nothing answers; it was stopped" in said[-1]
        assert members(first) == [run]
        turn_until(supervisor, "server", HEALTHY)
    finally:
        supervisor.stop()
    assert not psutil.pid_exists(run) or not marked(run, settings.home)


def test_one_that_never_gets_well_is_given_up_after_growing_pauses(settings: Settings) -> None:
    settings = limited(
        settings,
        start_limit_s=0.1,
        probe_starting_s=0.02,
        quick_deaths=4,
        backoff_s=0.02,
        backoff_max_s=0.05,
    )
    supervisor, said = watch(settings, Part("server", SLEEP, lambda _started: "not yet"))
    try:
        turn_until(supervisor, "server", GIVEN_UP)
    finally:
        supervisor.stop()
    assert [line.rpartition("restarting")[2] for line in said[:3]] == ["", " in 0.0 s", " in 0.1 s"]
    assert "not well for 0.1 s: not yet" in said[3]


def test_silence_does_not_count_while_the_one_it_is_asked_through_is_down(
    settings: Settings,
) -> None:
    settings = limited(
        settings,
        silent_limit_s=0.2,
        quick_deaths=1,
        probe_starting_s=0.02,
        probe_healthy_s=0.02,
    )
    answers: dict[str, str | None] = {"web": None, "daemon": None}
    web = Part("web", SLEEP, lambda _started: answers["web"])
    daemon = Part("daemon", SLEEP, lambda _started: answers["daemon"], needs=("web",))
    supervisor, _ = watch(settings, web, daemon)
    try:
        turn_until(supervisor, "daemon", HEALTHY)
        pid = supervisor.watched["daemon"].shown.pid
        answers.update(web="gone", daemon="web cannot be asked")
        turn_until(supervisor, "web", GIVEN_UP)
        begin = time.monotonic()
        turning(supervisor, lambda: time.monotonic() > begin + 0.6)
        assert supervisor.watched["daemon"].shown.pid == pid
        assert supervisor.given_up == ["web"]
    finally:
        supervisor.stop()


# -- what fails on the way --------------------------------------------------------------


def test_a_probe_that_fails_is_named_and_the_others_go_on(settings: Settings) -> None:
    settings = limited(settings, probe_starting_s=0.02)

    def broken(_started: object) -> str | None:
        raise ValueError("Expecting value: line 1")

    supervisor, said = watch(
        settings, Part("odd", SLEEP, broken), Part("other", SLEEP, lambda _started: None)
    )
    try:
        turn_until(supervisor, "other", HEALTHY)
        for _ in range(20):
            supervisor.turn()
            time.sleep(0.01)
        assert said.count("odd: probe failed: ValueError: Expecting value: line 1") == 1
    finally:
        supervisor.stop()


def test_what_the_disk_refuses_is_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = limited(settings, retry_s=0.1)
    supervisor, said = watch(settings, Part("one", SLEEP, lambda _started: None))
    log = log_of(settings.home, "one")
    log.parent.parent.mkdir(parents=True, exist_ok=True)
    log.parent.write_text("no folder")  # its log cannot be opened
    try:
        for _ in range(3):
            supervisor.turn()
        (line,) = said
        assert line.startswith("one: [Errno")
        log.parent.unlink()
        with monkeypatch.context() as patch:
            patch.setattr(UpState, "save", full)
            turn_until(supervisor, "one", HEALTHY)
            assert "could not be written: disk_full" in said[1]
            known = load(settings.home)
            assert known is not None
            assert known.processes[0].pid is None
        supervisor.turn()
        known = load(settings.home)
        assert known is not None
        assert known.processes[0].state == HEALTHY  # written as soon as there is room
    finally:
        supervisor.stop()


# -- logs -------------------------------------------------------------------------------


def test_a_log_is_cut_under_the_process_that_writes_it(settings: Settings) -> None:
    settings = limited(settings, log_limit_mib=0.01, retry_s=0.01)
    argv = (
        *(sys.executable, "-uc"),
        "import time\nfor n in range(10**6): print(n, 'x' * 200); time.sleep(0.002)",
    )
    supervisor, _ = watch(settings, Part("chatty", argv, lambda _started: None))
    log = log_of(settings.home, "chatty")
    try:
        turn_until(supervisor, "chatty", HEALTHY)
        turning(supervisor, log.with_suffix(".log.1").exists)
        pid = supervisor.watched["chatty"].shown.pid
        size = log.stat().st_size
        until(lambda: log.stat().st_size > size)
        assert b"\0" not in log.read_bytes()  # it goes on at the new end, not at the old one
        assert supervisor.watched["chatty"].shown.pid == pid
    finally:
        supervisor.stop()
    assert log.stat().st_size < 2 * 2**20


def test_the_engine_outlasts_a_ledger_that_is_away(tmp_path: Path) -> None:
    settings = trading_settings(tmp_path / "home")
    write_market(settings, 40)
    ledger = settings.home / "ledger.db"
    ledger.mkdir()  # no database can be opened there
    told: list[str] = []
    outage = 4

    def watch_it() -> None:
        while not told or "was never set" not in told[-1]:
            found = read_engine(settings.home)
            if found is not None and (not told or found["detail"] != told[-1]):
                assert found["state"] == WAITING
                told.append(found["detail"])
                if len(told) == 1:
                    time.sleep(outage * 0.05)
                    ledger.rmdir()
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=watch_it)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.up.trading.LOOK_S", 0.05)
        watcher.start()
        attend(settings, "http://127.0.0.1:9", 0)
    watcher.join()
    assert told[0].startswith("ledger_unavailable: ledger sqlite:")
    assert "the replay's clock was never set" in told[-1]


@pytest.mark.parametrize(
    "code", [ErrorCode.LEDGER_UNAVAILABLE, ErrorCode.DISK_FULL, ErrorCode.ALREADY_RUNNING]
)
def test_an_outage_while_trading_is_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: ErrorCode
) -> None:
    settings = trading_settings(tmp_path / "home")
    told: list[tuple[str, str]] = []
    turns = iter(range(4))
    monkeypatch.setattr("pipelines.up.trading.LOOK_S", 0.01)
    monkeypatch.setattr("pipelines.up.trading._missing_at_start", lambda *_: None)
    monkeypatch.setattr(Told, "__call__", lambda _self, *words: told.append(words))

    def trade(*given: Any) -> None:
        if next(turns) == 3:
            given[-1].set()
            return
        raise TradewindError(code, "it does not answer", "Look at it")

    monkeypatch.setattr("pipelines.up.trading._trade", trade)
    attend(settings, "http://127.0.0.1:9", 0)
    assert [state for state, _ in told] == [WAITING] * 3
    own = f"{OTHER_ENGINE}: it does not answer"
    assert told[0][1] == (own if code is ErrorCode.ALREADY_RUNNING else f"{code.value}: it does "
                          "not answer. Look at it")  # fmt: skip


# -- Dagster ----------------------------------------------------------------------------


def test_dagster_is_started_through_its_instance(settings: Settings) -> None:
    plan = make_plan(settings, PORTS, 5)
    for name in ("code-server", "webserver", "daemon"):
        (part,) = [part for part in plan.parts if part.name == name]
        assert part.argv[:3] == (sys.executable, "-m", "pipelines.instance")
    stale = settings.home / "dagster" / "dagster.yaml"
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.write_text("telemetry: {enabled: true}\n")
    (web,) = [part for part in plan.parts if part.name == "webserver"]
    environment = {**plan.environment, "PYTHONPATH": str(ROOT)}
    look = subprocess.run(
        [*web.argv[:4], "-c", "print('started')"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "started" in look.stdout
    assert "Written by Tradewind" in stale.read_text()


@pytest.fixture
def launched(settings: Settings) -> Iterator[tuple[Any, Callable[[int | None, int], str]]]:
    """A temporary instance, and a way to put runs of a code server into it."""
    from dagster import DagsterInstance, DagsterRunStatus, job, op
    from dagster._core.events import EngineEventData
    from dagster._core.storage.tags import GRPC_INFO_TAG

    @op
    def nothing() -> None:
        """Do nothing."""

    @job
    def idle() -> None:
        nothing()

    with DagsterInstance.ephemeral() as instance:

        def start(pid: int | None, port: int) -> str:
            tags = {GRPC_INFO_TAG: f'{{"host": "127.0.0.1", "port": {port}}}'}
            run = instance.create_run_for_job(idle, tags=tags, status=DagsterRunStatus.STARTED)
            if pid is not None:
                instance.report_engine_event("Started", run, EngineEventData.in_process(pid))
            return str(run.run_id)

        yield instance, start


def test_runs_whose_process_is_gone_are_closed_and_the_living_go_on(
    settings: Settings, launched: tuple[Any, Callable[[int | None, int], str]]
) -> None:
    instance, start = launched
    living = subprocess.Popen(SLEEP, env={**os.environ, state.MARK: str(settings.home)})
    until(lambda: marked(living.pid, settings.home))
    gone, lives, never, other = (
        start(2**22 + 1, 4111),
        start(living.pid, 4111),
        start(None, 4111),
        start(2**22 + 1, 4112),
    )
    stranger = start(os.getpid(), 4111)  # the number lives, and is no process of ours
    said: list[str] = []
    seen: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 3:
            seen.append(instance.get_run_by_id(lives).status.value)
            living.kill()
            living.wait()

    try:
        runs.close_gone(instance, 4111, settings.home, say, look_s=0.02, unstarted_s=0.2)
    finally:
        living.kill()
        living.wait()
    statuses = {item: instance.get_run_by_id(item).status.value for item in (gone, lives, never)}
    assert statuses == dict.fromkeys((gone, lives, never), "FAILURE")
    assert seen == ["STARTED"]
    assert instance.get_run_by_id(stranger).status.value == "FAILURE"
    assert instance.get_run_by_id(other).status.value == "STARTED"
    assert len(said) == 4
    assert lives in said[-1]


def test_the_dead_are_looked_after_whenever_a_code_server_died(settings: Settings) -> None:
    after = (sys.executable, "-c", "print('looking after the runs')")
    part = Part("server", SLEEP, lambda _started: None, after_death=after)
    supervisor, _ = watch(settings, part)
    log = log_of(settings.home, "server")
    try:
        pid = turn_until(supervisor, "server", HEALTHY).pid
        assert "looking" not in log.read_text()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        turn_until(supervisor, "server", "restarting")
        until(lambda: "looking after the runs" in log.read_text())
    finally:
        supervisor.stop()
    (code,) = [part for part in make_plan(settings, PORTS, 5).parts if part.name == "code-server"]
    assert code.after_death[1:] == ("-m", "pipelines.up.runs", "--code-server", "4111")
