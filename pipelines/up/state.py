"""What a running `up` writes down: who runs where. Read by `status`, `logs` and the next start."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_json
from tradewind.ledger.lease import process_identity

FOLDER = "up"
MARK = "STARTED_BY_TRADEWIND_UP"
"""Environment variable of every process below `up`: its value is the home. A process whose
parent was killed is still found by it."""
STOP_ORPHANS_S = 10.0


def folder_of(home: Path) -> Path:
    """Return where `up` keeps its files."""
    return home.absolute() / FOLDER


def log_of(home: Path, name: str) -> Path:
    """Return the log file of a process."""
    return folder_of(home) / "logs" / f"{name}.log"


@dataclass
class ProcessState:
    """One process as last seen."""

    name: str
    state: str = "waiting"
    detail: str = ""
    pid: int | None = None
    identity: str | None = None
    started_ms: int | None = None
    restarts: int = 0
    address: str | None = None
    log: str = ""

    def alive(self) -> bool:
        """Return whether it is the process it was, and lives."""
        return self.pid is not None and process_identity(self.pid) == self.identity


@dataclass
class UpState:
    """The whole of a running, or killed, `up`."""

    pid: int
    identity: str | None
    mode: str
    ports: dict[str, int]
    started_ms: int
    processes: list[ProcessState] = field(default_factory=list)

    @property
    def running(self) -> bool:
        """Return whether the `up` that wrote this lives."""
        return self.identity is not None and process_identity(self.pid) == self.identity

    def process(self, name: str) -> ProcessState | None:
        """Return one process by name."""
        return next((item for item in self.processes if item.name == name), None)

    def save(self, home: Path) -> None:
        """Write the state, atomically."""
        write_json(folder_of(home) / "state.json", asdict(self))


def load(home: Path) -> UpState | None:
    """Return the state of the last `up` in this home, None before the first.

    Raises
    ------
    TradewindError
        ``corrupt_file`` when it cannot be read.
    """
    path = folder_of(home) / "state.json"
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        processes = [ProcessState(**item) for item in found.pop("processes")]
        return UpState(**found, processes=processes)
    except (ValueError, KeyError, TypeError) as error:
        raise TradewindError(
            ErrorCode.CORRUPT_FILE,
            f"{path} does not say what runs ({error})",
            "Delete it; processes that are still there are found by their environment",
        ) from error


def orphans(home: Path) -> list[psutil.Process]:
    """Return living processes below an earlier `up` of this home, whoever their parent is."""
    wanted = str(home.absolute())
    known = load(home)
    recorded = {item.pid for item in known.processes if item.alive()} if known else set()
    return [
        process for process in _others() if process.pid in recorded or _mark_of(process) == wanted
    ]


def marked(pid: int, home: Path) -> bool:
    """Return whether a living process was started below an `up` of this home."""
    try:
        return _mark_of(psutil.Process(pid)) == str(home.absolute())
    except psutil.NoSuchProcess:
        return False


def end(processes: list[psutil.Process], limit_s: float = STOP_ORPHANS_S) -> None:
    """Ask processes to stop, and kill those that do not."""
    for process in processes:
        _signal(process, kill=False)
    _, stubborn = psutil.wait_procs(processes, timeout=limit_s)
    for process in stubborn:
        _signal(process, kill=True)
    psutil.wait_procs(stubborn, timeout=limit_s)


def _others() -> Iterator[psutil.Process]:
    return (item for item in psutil.process_iter() if item.pid != os.getpid())


def _mark_of(process: psutil.Process) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        mark: str | None = process.environ().get(MARK)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None  # it has ended, or is another user's
    return mark


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return  # it has ended, or its number is another user's by now
