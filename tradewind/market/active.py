"""Which set is in use: what the last ingestion really read from, remembered durably."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict, ValidationError

from tradewind.errors import ErrorCode, TradewindError
from tradewind.market._files import StoreFiles, open_files
from tradewind.market.sources import SourceKind
from tradewind.market.store import BarStore
from tradewind.settings import Settings


class ActiveSet(BaseModel):
    """The set that every reader of the store opens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    set_id: str
    source_kind: SourceKind
    source_name: str

    @property
    def simulated(self) -> bool:
        """Whether its bars are made up."""
        return self.source_kind == "simulated"


MEMORY = "active.json"


def _files(settings: Settings) -> StoreFiles:
    return open_files(settings.store_place, settings.market.lock_timeout_s)


def active_set(settings: Settings) -> ActiveSet | None:
    """Return the remembered set, or None before the first ingestion.

    Raises
    ------
    TradewindError
        ``corrupt_file`` when the memory is unreadable.
    """
    files = _files(settings)
    try:
        return ActiveSet.model_validate_json(files.read(MEMORY))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise TradewindError(
            ErrorCode.CORRUPT_FILE,
            f"{files.place(MEMORY)} does not say which set is active",
            "Delete it, then run `tradewind ingest`: it writes it anew",
        ) from error


def remember(settings: Settings, active: ActiveSet, before: ActiveSet | None) -> None:
    """Make ``active`` the set that readers open; nothing is written when it already is.

    Parameters
    ----------
    before
        What was in use when the ingestion began.

    Raises
    ------
    TradewindError
        ``already_running`` when another ingestion has put another set in use since: two that
        begin at once, each by the exchange that answers it, must not take turns.
    """
    if active_set(settings) == active:
        return
    files = _files(settings)
    with files.writer(""):  # which also clears what a killed process left
        found = active_set(settings)
        if found not in (None, before) and found.set_id != active.set_id:
            raise TradewindError(
                ErrorCode.ALREADY_RUNNING,
                f"another ingestion has put set {found.set_id} in use while this one stored set"
                f" {active.set_id}",
                "Run the same command again: it goes on with the set in use, or with the one that"
                " its settings name",
            )
        content = json.dumps(active.model_dump(), indent=2, sort_keys=True) + "\n"
        files.write(MEMORY, content.encode())


def store_for(settings: Settings, *, remembered: int = 0) -> BarStore:
    """Return the store of the active set, by default ``settings.market.set_id``."""
    active = active_set(settings)
    set_id = active.set_id if active else settings.market.set_id
    return open_store(settings, set_id, remembered=remembered)


def open_store(settings: Settings, set_id: str, *, remembered: int = 0) -> BarStore:
    """Return the store of one named set; ``remembered`` partitions stay in memory."""
    return BarStore(
        settings.store_place,
        set_id,
        lock_timeout_s=settings.market.lock_timeout_s,
        remembered=remembered,
    )
