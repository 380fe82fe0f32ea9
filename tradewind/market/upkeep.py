"""Upkeep of the store: old months dropped, partitions rewritten in their shortest form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tradewind.clock import Clock
from tradewind.errors import TradewindError
from tradewind.market._files import PARQUET
from tradewind.market._partition import month_of
from tradewind.market.active import store_for
from tradewind.market.retention import keep_from, kept_days, needed_days
from tradewind.market.schema import COMPANIONS
from tradewind.market.store import BarStore
from tradewind.settings import TIMEFRAME_MS, Settings


@dataclass(frozen=True)
class Change:
    """One partition that was dropped or rewritten, or would be; ``saved`` is in bytes."""

    action: Literal["drop", "compact"]
    kind: str
    symbol: str
    month: str
    saved: int


@dataclass(frozen=True)
class UpkeepReport:
    """What upkeep did, or would do.

    ``kept_for_models`` names kinds whose setting asks for less than training reads, so that
    ``needed_days`` are kept; ``errors`` are partitions that could not be looked at.
    """

    set_id: str
    dry_run: bool
    needed_days: int
    kept_for_models: tuple[str, ...]
    changes: tuple[Change, ...]
    errors: tuple[str, ...]

    @property
    def saved(self) -> int:
        """Bytes freed, or that would be."""
        return sum(change.saved for change in self.changes)


def run_upkeep(settings: Settings, clock: Clock, *, dry_run: bool = False) -> UpkeepReport:
    """Drop months older than the settings keep and compact the rest of the active set.

    Repeating it changes nothing more. Readers and writers may go on beside it.

    Parameters
    ----------
    dry_run
        Only say what would be done.

    Raises
    ------
    TradewindError
        ``already_running`` when a writer held a series for too long, ``disk_full``.
    """
    store, now_ms = store_for(settings), clock.now_ms()
    changes: list[Change] = []
    errors: list[str] = []
    for folder in stored_kinds(store):
        for symbol in store.symbols_of(folder):
            oldest = keep_from(settings, setting_of(folder), _newest(store, symbol, now_ms))
            for month in store.months(folder, symbol):
                dropped = oldest is not None and month < month_of(oldest)
                act = _drop if dropped else _compact
                try:
                    change = act(store, folder, symbol, month, dry_run)
                except TradewindError as error:
                    errors.append(str(error))
                    continue
                except FileNotFoundError:  # another upkeep has dropped it meanwhile
                    continue
                if change is not None:
                    changes.append(change)
    return UpkeepReport(
        store.set_id,
        dry_run,
        needed_days(settings),
        _raised(settings),
        tuple(changes),
        tuple(errors),
    )


def stored_kinds(store: BarStore) -> tuple[str, ...]:
    """Return the folders of a set that hold series: timeframes, then companions."""
    present = store.files.folders(store.set_id)
    bars = [name for name in TIMEFRAME_MS if name in present]
    return (*bars, *(name for name in present if setting_of(name) in COMPANIONS))


def setting_of(folder: str) -> str:
    """Return the kind that a folder's retention goes by: ``bars``, ``funding``, …"""
    if folder in TIMEFRAME_MS:
        return "bars"
    return folder if folder in COMPANIONS else folder.rpartition("_")[0]


def _newest(store: BarStore, symbol: str, now_ms: int) -> int:
    """Return what ages count from: the newest bar, so that a feed that stopped loses nothing."""
    ends = [
        last for timeframe in TIMEFRAME_MS if (last := store.last_ts(symbol, timeframe)) is not None
    ]
    return min(now_ms, max(ends, default=now_ms))


def _raised(settings: Settings) -> tuple[str, ...]:
    return tuple(
        name.removesuffix("_days")
        for name, days in settings.retention.model_dump().items()
        if days is not None and days < (kept_days(settings, name.removesuffix("_days")) or 0)
    )


def _drop(store: BarStore, kind: str, symbol: str, month: str, dry_run: bool) -> Change:
    size = len(store.files.read(f"{store.set_id}/{kind}/{symbol}/{month}{PARQUET}"))
    if not dry_run:
        store.drop_month(kind, symbol, month)
    return Change("drop", kind, symbol, month, size)


def _compact(store: BarStore, kind: str, symbol: str, month: str, dry_run: bool) -> Change | None:
    saved = store.compact_month(kind, symbol, month, dry_run=dry_run)
    return Change("compact", kind, symbol, month, saved) if saved else None
