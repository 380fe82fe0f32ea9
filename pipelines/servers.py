"""Start serving as a process of its own, wait until it is ready, and stop it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.launch import environment as variables_of
from tradewind.client import ServingClient
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings

REPOSITORY = Path(__file__).resolve().parent.parent
START_LIMIT_S = 120
STOP_LIMIT_S = 15


def free_port() -> int:
    """Return a TCP port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(settings: Settings, log: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run serving on a free port; yields its address once it is ready.

    Raises
    ------
    TradewindError
        ``serving_unreachable`` if it ends or is not ready in time; its log is named.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    serving_settings = settings.serving.model_copy(update={"host": "127.0.0.1", "port": port})
    wanted = variables_of(settings.model_copy(update={"serving": serving_settings}))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving"],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **wanted, **environment},
            cwd=REPOSITORY,
            start_new_session=True,
        )
    try:
        _wait_until_ready(settings, process, url, log)
        yield url
    finally:
        _stop(process)


def _wait_until_ready(
    settings: Settings, process: subprocess.Popen[bytes], url: str, log: Path
) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    with ServingClient(url, settings=settings.serving, timeout_s=2) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise TradewindError(
                    ErrorCode.SERVING_UNREACHABLE,
                    f"serving ended with code {process.returncode} while starting",
                    f"Read {log}",
                )
            if client.ready():
                return
            time.sleep(0.5)
    raise TradewindError(
        ErrorCode.SERVING_UNREACHABLE,
        f"serving at {url} was not ready within {START_LIMIT_S} s",
        f"Read {log}",
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
