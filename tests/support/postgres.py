"""A real PostgreSQL in a folder of its own, on a socket, gone when the test session ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNPRIVILEGED = "nobody"


def available() -> bool:
    """Return whether the server's programs are installed."""
    return shutil.which("initdb") is not None and shutil.which("pg_ctl") is not None


def _as_server_user(command: list[str]) -> None:
    # The server refuses to run as root.
    if os.geteuid() == 0:
        command = ["setpriv", f"--reuid={UNPRIVILEGED}", "--clear-groups", *command]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start a server; yield the URL of its maintenance database."""
    folder = Path(tempfile.mkdtemp(prefix="tradewind-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, UNPRIVILEGED)
    data = folder / "data"
    try:
        _as_server_user(["initdb", "-D", str(data), "-U", "tw", "-A", "trust", "--no-sync"])
        options = f"-c listen_addresses='' -c fsync=off -k {folder}"
        start = ["pg_ctl", "-D", str(data), "-w", "-o", options, "-l", str(folder / "log"), "start"]
        _as_server_user(start)
        try:
            yield f"postgresql+psycopg://tw@/postgres?host={folder}"
        finally:
            _as_server_user(["pg_ctl", "-D", str(data), "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
