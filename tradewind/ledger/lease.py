"""One engine at a time: a lease row that its holder renews, and that the dead lose."""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psutil
from sqlalchemy import Row, delete, select, update

from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger.schema import leases

if TYPE_CHECKING:
    from tradewind.ledger.ledger import Ledger

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def process_identity(pid: int) -> str | None:
    """Return what tells a process from a later one with its number; None when it is dead.

    On Linux boot id and start tick, which no change of the wall clock moves.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if BOOT_ID.exists():
            boot = BOOT_ID.read_text().strip()
            # The command's name may hold blanks and brackets: fields count from its end.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return f"{boot}:{fields[19]}"
        return f"{process.create_time():.2f}"
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def host_identity() -> str:
    """Return the host, down to the PID namespace: numbers mean nothing across two."""
    namespace = Path("/proc/self/ns/pid")
    inner = str(namespace.readlink()) if namespace.exists() else ""
    return f"{socket.gethostname()}{inner}"


def is_alive(row: Row[Any]) -> bool:
    """Return whether a lease's holder must be respected.

    On this host the process itself is asked; elsewhere only time tells.
    """
    if row.host == host_identity():
        return bool(process_identity(row.pid) == row.process)
    return bool(row.expires_ms > _wall_ms())


@dataclass
class Lease:
    """The right to be the only engine on these books.

    Raises
    ------
    TradewindError
        ``already_running``: on taking it while another lives, on renewing after losing it.
    """

    ledger: Ledger
    seconds: float
    name: str = "engine"
    holder: str = field(default_factory=lambda: uuid.uuid4().hex)

    def acquire(self) -> None:
        """Take the lease, or one whose holder is dead."""
        pid = os.getpid()
        row = {
            "name": self.name,
            "holder": self.holder,
            "host": host_identity(),
            "pid": pid,
            "process": process_identity(pid) or "",
            "expires_ms": self._expiry(),
        }
        db = self.ledger.db
        with db.write() as connection:
            if db.insert_ignore(connection, leases, [row]):
                return
            query = select(leases).where(leases.c.name == self.name).with_for_update()
            held = connection.execute(query).first()
            if held is not None and held.holder != self.holder and is_alive(held):
                raise TradewindError(
                    ErrorCode.ALREADY_RUNNING,
                    f"another {self.name} holds these books: pid {held.pid} on {held.host}",
                    "Stop that process first; a killed one is taken over at once",
                )
            db.upsert(connection, leases, row)

    def renew(self) -> None:
        """Prolong the lease; refused when another holder has it."""
        with self.ledger.db.write() as connection:
            done = connection.execute(
                update(leases)
                .where(leases.c.name == self.name, leases.c.holder == self.holder)
                .values(expires_ms=self._expiry())
            )
        if done.rowcount != 1:
            raise TradewindError(
                ErrorCode.ALREADY_RUNNING,
                f"this {self.name} has lost its lease on the books to another process",
                "It stops here; let the other one run",
            )

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        with self.ledger.db.write() as connection:
            connection.execute(
                delete(leases).where(leases.c.name == self.name, leases.c.holder == self.holder)
            )

    def _expiry(self) -> int:
        return _wall_ms() + round(self.seconds * 1000)

    def __enter__(self) -> Lease:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def engine_alive(ledger: Ledger, name: str = "engine") -> bool:
    """Return whether a living process holds the lease."""
    with ledger.db.read() as connection:
        row = connection.execute(select(leases).where(leases.c.name == name)).first()
    return row is not None and is_alive(row)
