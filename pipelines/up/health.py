"""How each process is asked whether it is well. A probe returns None, or what is wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.probe import grpc_problem
from tradewind.settings import UpSettings

DEFAULTS = UpSettings()
ENGINE_FILE = "engine.json"
BEATS = """
{ instance { daemonHealth { allDaemonStatuses {
    daemonType required healthy lastHeartbeatTime } } } }
"""


@dataclass(frozen=True)
class Started:
    """The process that is asked about."""

    pid: int
    wall_s: float


Probe = Callable[[Started], str | None]


def http(url: str, limits: UpSettings = DEFAULTS) -> Probe:
    """Well when ``url`` answers 200, and it is this process that answers."""
    import httpx

    port = httpx.URL(url).port or 80

    def probe(started: Started) -> str | None:
        try:
            answer = httpx.get(url, timeout=limits.answer_s)
        except httpx.HTTPError as error:
            return f"{url}: {type(error).__name__}"
        if answer.status_code != httpx.codes.OK:
            return f"{url}: {answer.status_code}"
        return _someone_else(port, started.pid)

    return probe


def _someone_else(port: int, pid: int) -> str | None:
    """Say whose port it is, if it is neither the process's nor one of its children's."""
    import psutil

    try:
        family = {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except psutil.NoSuchProcess:
        return f"process {pid} is gone"
    holders = {
        item.pid
        for item in psutil.net_connections(kind="tcp")
        if item.status == psutil.CONN_LISTEN and item.laddr.port == port and item.pid is not None
    }
    if not holders or holders & family:
        return None
    return f"port {port} is held by process {min(holders)}, which is not ours"


def code_server(port: int, limits: UpSettings = DEFAULTS) -> Probe:
    """Well when Dagster's gRPC server calls itself serving."""

    def probe(_started: Started) -> str | None:
        problem = grpc_problem(f"127.0.0.1:{port}", limits.answer_s)
        return None if problem is None else f"gRPC on port {port}: {problem}"

    return probe


def daemon(webserver: str, limits: UpSettings = DEFAULTS) -> Probe:
    """Well when every required daemon's last heartbeat is this process's and is healthy."""
    import httpx

    def probe(started: Started) -> str | None:
        try:
            answer = httpx.post(
                f"{webserver}/graphql", json={"query": BEATS}, timeout=limits.answer_s
            )
            answer.raise_for_status()
        except httpx.HTTPError as error:
            return f"{webserver} cannot be asked: {type(error).__name__}"
        health = answer.json()["data"]["instance"]["daemonHealth"]
        return _late_beats(health["allDaemonStatuses"], started.wall_s)

    return probe


def _late_beats(statuses: list[dict[str, Any]], since_s: float) -> str | None:
    late = [
        item["daemonType"]
        for item in statuses
        if item["required"]
        # A heartbeat from before its start is its predecessor's.
        and not (item["healthy"] and (item["lastHeartbeatTime"] or 0) >= since_s)
    ]
    return f"no heartbeat of {', '.join(sorted(late))}" if late else None


def engine(home: Path, limits: UpSettings = DEFAULTS) -> Probe:
    """Well when the engine of this process told lately what it does, even that it waits."""

    def probe(started: Started) -> str | None:
        told = read_engine(home)
        if told is None or told["pid"] != started.pid:
            return "has not told anything yet"
        silent_s = time.time() - told["wall_ms"] / 1000
        return None if silent_s < limits.engine_silent_s else f"told nothing for {silent_s:.0f} s"

    return probe


def read_engine(home: Path) -> dict[str, Any] | None:
    """Return what the engine told last: state, detail, pid, wall_ms."""
    path = home / ENGINE_FILE
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
