"""The journal of alias changes: one tag of the registered model per change, bounded."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from registry.tracking import Tracking
from tradewind.errors import ErrorCode, TradewindError

Operation = Literal["promote", "rollback", "withdraw"]
State = Literal["started", "done", "abandoned"]
PREFIX = "change."
TEXT_LIMIT = 1000  # a tag of a registered model holds 5,000 characters


@dataclass(frozen=True)
class AliasChange:
    """One change of an alias: who, when (wall epoch ms), why, from and to which version.

    ``to_version`` is None where the alias was taken away; ``previous_before`` is what ``previous``
    pointed to, to take back an unfinished change.
    """

    sequence: int
    name: str
    operation: Operation
    alias: str
    from_version: int | None
    to_version: int | None
    who: str
    why: str
    when_ms: int
    previous_before: int | None = None
    state: State = "started"


def read(tracking: Tracking, name: str) -> list[AliasChange]:
    """Return the journal of ``name``, oldest first; empty if it was never promoted."""
    with tracking.translated():
        tags = tracking.client.get_registered_model(name).tags
    rows = [json.loads(value) for key, value in tags.items() if key.startswith(PREFIX)]
    return sorted((AliasChange(**row) for row in rows), key=lambda change: change.sequence)


def write(tracking: Tracking, change: AliasChange) -> None:
    """Write ``change`` under its sequence number, replacing its earlier state."""
    with tracking.translated():
        tracking.client.set_registered_model_tag(
            change.name, _key(change), json.dumps(asdict(change), sort_keys=True)
        )


def prune(tracking: Tracking, changes: list[AliasChange]) -> None:
    """Delete the oldest entries beyond the limit in the settings."""
    excess = len(changes) - tracking.settings.registry.history_limit
    with tracking.translated():
        for change in changes[: max(0, excess)]:
            tracking.client.delete_registered_model_tag(change.name, _key(change))


@contextlib.contextmanager
def exclusive(tracking: Tracking) -> Iterator[None]:
    """Let one process of this home change aliases at a time; a kill releases the lock.

    Raises
    ------
    TradewindError
        ``already_running`` if another change does not end in time.
    """
    from filelock import FileLock, Timeout

    path = tracking.settings.home / "aliases.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(path), timeout=tracking.settings.registry.lock_timeout_s)
    try:
        with lock:
            yield
    except Timeout as error:
        raise TradewindError(
            ErrorCode.ALREADY_RUNNING,
            f"another process is changing aliases (lock {path})",
            "Wait for it to end, then run the same command again",
        ) from error


def text(value: str, field: str) -> str:
    """Return ``value`` cut to what a tag holds; blank is refused with ``bad_input``."""
    if not value.strip():
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"{field} of an alias change is empty",
            "Say who changes the alias, and why",
        )
    return value if len(value) <= TEXT_LIMIT else value[: TEXT_LIMIT - 1] + "…"


def _key(change: AliasChange) -> str:
    return f"{PREFIX}{change.sequence:06d}"
