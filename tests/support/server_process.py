"""The real server process of a world, started and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from serving.launch import environment
from tests.support.serving import World

REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 120


@dataclass
class Server:
    """The process, its address and its world."""

    world: World
    process: subprocess.Popen[bytes]
    url: str
    output: Path


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def running(world: World, output: Path) -> Iterator[Server]:
    """Start the server of a world's settings, wait until it is ready, and end it."""
    given = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIND_")}
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving"],
            cwd=REPOSITORY,
            env={**given, **environment(world.settings)},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{world.settings.serving.port}"
    try:
        assert wait_until(lambda: ready(url) or process.poll() is not None, START_S)
        assert process.poll() is None, output.read_text()
        yield Server(world, process, url, output)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
