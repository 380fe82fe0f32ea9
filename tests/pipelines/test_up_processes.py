"""The real processes of `up`: started, killed one after the other, stopped, taken up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.status import memory_mib
from pipelines.up.state import ProcessState, UpState, end, load, log_of, orphans
from tests.pipelines.conftest import ROOT, TINY, Run, command, environment

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(900)]
NAMES = ("mlflow", "code-server", "webserver", "daemon", "serving", "engine")
LIMIT_S = 240
Row = tuple[str, str, float, int | None]


class Up:
    """A `tradewind up` in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.output = home.parent / "up.txt"
        with self.output.open("ab") as sink:
            self.process = subprocess.Popen(
                command("up", "--pace", "0.5"),
                cwd=ROOT,
                env=environment(home, **TINY),
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, wanted: Callable[[UpState], bool], limit_s: float = LIMIT_S) -> float:
        """Wait for a state; returns the seconds it took."""
        began = time.monotonic()
        while time.monotonic() < began + limit_s:
            found = load(self.home)
            if found is not None and found.pid == self.process.pid and wanted(found):
                return time.monotonic() - began
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        pytest.fail(f"not reached, status {self.process.poll()}:\n{self.output.read_text()}")

    def until_all_healthy(self) -> float:
        """Wait for every process; returns the seconds it took."""
        return self.until(
            lambda found: (
                [item.name for item in found.processes if item.state == "healthy"] == list(NAMES)
            )
        )

    def part(self, name: str) -> ProcessState:
        """Return a process as the state file has it."""
        found = load(self.home)
        assert found is not None
        item = found.process(name)
        assert item is not None
        return item

    def said(self) -> str:
        """Return the console so far, on one line."""
        return " ".join(self.output.read_text().split())

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(120)


@pytest.fixture
def started(home: Path) -> Iterator[Callable[[], Up]]:
    """Start `up` in the ingested home; nothing of it outlives the test."""
    begun: list[Up] = []

    def start() -> Up:
        begun.append(Up(home))
        return begun[-1]

    yield start
    for up in begun:
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait()
    end(orphans(home))


def test_every_process_comes_back_and_nothing_is_left(
    started: Callable[[], Up], home: Path, tradewind: Run
) -> None:
    up = started()
    rows: list[Row] = [("(all)", "first start", up.until_all_healthy(), None)]
    rows.extend(_kill(up, name) for name in NAMES)
    _look(tradewind, home)

    refused = tradewind("up", home=home, **TINY)
    assert refused.returncode == 5, refused.stderr
    assert f"pid {up.process.pid}" in refused.stderr

    first_pid = up.process.pid
    up.stop(signal.SIGKILL)
    assert len(orphans(home)) >= len(NAMES)
    kept = load(home)
    assert kept is not None
    again = started()
    rows.append(("(up itself)", "second start", again.until_all_healthy(), None))
    assert f"(pid {first_pid}) was killed: ending" in again.said()
    resumed = load(home)
    assert resumed is not None
    assert resumed.ports == kept.ports  # links that people kept stay good

    began = time.monotonic()
    assert again.stop() == 0
    rows.append(("(all)", "Ctrl-C", time.monotonic() - began, None))
    assert orphans(home) == []
    stopped = [line.split()[1] for line in again.output.read_text().splitlines() if _ended(line)]
    assert stopped == list(reversed(NAMES))
    for name, what, seconds, mib in rows:
        print(f"| {name} | {what} | {seconds:.1f} s | {mib or '–'} |")


def _ended(line: str) -> bool:
    return " stopped after " in line or " had to be killed after " in line


def _kill(up: Up, name: str) -> Row:
    before = up.part(name)
    assert before.pid is not None
    mib = memory_mib(before.pid)
    os.kill(before.pid, signal.SIGKILL)

    def back(found: UpState) -> bool:
        item = found.process(name)
        return item is not None and item.restarts == 1 and item.state == "healthy"

    seconds = up.until(back)
    after = up.part(name)
    assert after.pid != before.pid
    assert f"{name} died (killed by signal 9), restarted as pid {after.pid}, healthy" in up.said()
    others = [item.restarts for item in map(up.part, NAMES) if item.name != name]
    assert max(others) <= 1  # nobody else fell over with it
    return name, "kill -9", seconds, mib


def _look(tradewind: Run, home: Path) -> None:
    """The engine waits for a champion and says where to make one; status and logs show it."""
    shown = tradewind("status", "--json", "--strict", home=home, **TINY)
    assert shown.returncode == 1, shown.stderr  # serving has no model
    found: dict[str, Any] = json.loads(shown.stdout)
    processes = found["up"]["processes"]
    assert [item["name"] for item in processes] == list(NAMES)
    assert {item["restarts"] for item in processes} == {1}
    assert found["engine"]["state"] == "waiting"
    assert "no champion yet" in found["engine"]["detail"]
    assert found["serving"]["ready"] is False
    printed = tradewind("logs", "engine", home=home)
    assert "no champion yet" in printed.stdout
    assert log_of(home, "engine").exists()
    wrong = tradewind("logs", "nobody", home=home)
    assert wrong.returncode == 2
    assert "serving" in wrong.stderr
