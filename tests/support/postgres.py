"""A real PostgreSQL in a folder of its own, on a socket, gone when the test session ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

UNPRIVILEGED = "nobody"
USER = "tw"
DEBIAN = Path("/usr/lib/postgresql")


def _program(name: str) -> str | None:
    """Return a server program; Debian keeps them off the path, in a folder a version."""
    versions = sorted(DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return shutil.which(name) or (str(versions[-1]) if versions else None)


def available() -> bool:
    """Return whether the server's programs are installed."""
    return _program("initdb") is not None and _program("pg_ctl") is not None


def _as_server_user(command: list[str]) -> None:
    # The server refuses to run as root.
    if os.geteuid() == 0:
        command = ["setpriv", f"--reuid={UNPRIVILEGED}", "--clear-groups", *command]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@contextmanager
def running_postgres(password: str | None = None) -> Iterator[str]:
    """Start a server; yield the URL of its maintenance database.

    Parameters
    ----------
    password
        What the server asks for; None: it trusts everybody.
    """
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    assert initdb is not None
    assert pg_ctl is not None
    folder = Path(tempfile.mkdtemp(prefix="tradewind-pg-"))
    data, secret = folder / "data", folder / "password"
    access = ["-A", "trust"]
    if password is not None:
        secret.write_text(password + "\n")
        access = ["-A", "scram-sha-256", f"--pwfile={secret}"]
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, UNPRIVILEGED)
    try:
        _as_server_user([initdb, "-D", str(data), "-U", USER, *access, "--no-sync"])
        options = f"-c listen_addresses='' -c fsync=off -k {folder}"
        start = [pg_ctl, "-D", str(data), "-w", "-o", options, "-l", str(folder / "log"), "start"]
        _as_server_user(start)
        try:
            given = "" if password is None else f":{password}"
            yield f"postgresql+psycopg://{USER}{given}@/postgres?host={folder}"
        finally:
            _as_server_user([pg_ctl, "-D", str(data), "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def create_database(server: str, name: str) -> str:
    """Create an empty database; return its URL, password included."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def table_rows(url: str) -> dict[str, int]:
    """Return how many rows each table of a database holds."""
    return _count(url, "SELECT count(*) FROM {table}")


def rows_that_hold(url: str, words: str) -> dict[str, int]:
    """Return the tables with rows in which ``words`` stand anywhere."""
    found = _count(url, "SELECT count(*) FROM {table} AS r WHERE r::text LIKE :like", words)
    return {table: count for table, count in found.items() if count}


def _count(url: str, statement: str, words: str = "") -> dict[str, int]:
    engine = create_engine(url)
    listing = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    given = {"like": f"%{words}%"} if words else {}
    with engine.connect() as connection:
        tables = connection.execute(text(listing)).scalars().all()
        counts = {
            table: connection.execute(text(statement.format(table=f'"{table}"')), given).scalar()
            for table in tables
        }
    engine.dispose()
    return {table: int(count or 0) for table, count in counts.items()}
