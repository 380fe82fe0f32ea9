"""Ask the source again for holes and for the newest bars, and correct what differs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from tradewind.clock import Clock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.market.active import open_store
from tradewind.market.ingest import Work
from tradewind.market.open_source import open_source
from tradewind.market.quality import find_gaps, split_bad
from tradewind.market.store import WriteReport
from tradewind.settings import Settings


@dataclass(frozen=True)
class SymbolRepair:
    """What the source answered for one symbol; counts are of bars.

    ``added`` were missing, ``replaced`` differed; ``gaps_before`` and ``gaps_after`` count
    holes. In a dry run they say what would happen.
    """

    symbol: str
    added: int = 0
    replaced: int = 0
    gaps_before: int = 0
    gaps_after: int = 0
    error: str | None = None
    error_code: ErrorCode | None = None


@dataclass(frozen=True)
class RepairReport:
    """What a repair asked of, and what it did for each symbol."""

    source_name: str
    set_id: str
    dry_run: bool
    symbols: tuple[SymbolRepair, ...]


def run_repair(
    settings: Settings,
    clock: Clock,
    *,
    symbols: Sequence[str] | None = None,
    last_bars: int | None = None,
    dry_run: bool = False,
) -> RepairReport:
    """Ask again for every hole and the last bars of each symbol; store what is new or differs.

    Parameters
    ----------
    last_bars
        Newest bars compared with the source; default the setting ``market.repair_bars``.
    dry_run
        Ask and compare, and write nothing.

    Raises
    ------
    TradewindError
        When no source can be opened.
    """
    names = tuple(dict.fromkeys(symbols or settings.market.all_symbols))
    last = settings.market.repair_bars if last_bars is None else last_bars
    return asyncio.run(_repair(settings, clock, names, last, dry_run))


async def _repair(
    settings: Settings, clock: Clock, symbols: tuple[str, ...], last_bars: int, dry_run: bool
) -> RepairReport:
    source = await open_source(settings, clock)
    try:
        store = open_store(settings, source.set_id)
        work = Work(settings, source, store, clock.now_ms())
        done = await asyncio.gather(*(_one(work, symbol, last_bars, dry_run) for symbol in symbols))
    finally:
        await source.close()
    return RepairReport(source.name, source.set_id, dry_run, tuple(done))


async def _one(work: Work, symbol: str, last_bars: int, dry_run: bool) -> SymbolRepair:
    timeframe, step = work.settings.market.timeframe, work.settings.market.timeframe_ms
    try:
        stored = work.store.read_bars(symbol, timeframe, until_ms=work.now_ms)
        holes = find_gaps(stored["ts"], timeframe)
        spans = [(a, b + step) for a, b in holes.select("from_ts", "to_ts").iter_rows()]
        if stored.height:
            newest = int(stored["ts"][-1])
            spans.append((max(int(stored["ts"][0]), newest - (last_bars - 1) * step), work.now_ms))
        change, after, nothing = WriteReport(), stored, set[int]()
        for start, end in spans:
            fetched = await work.source.fetch_bars(symbol, timeframe, start, end)
            if fetched.is_empty():
                nothing.add(start)
            good, bad = split_bad(fetched, timeframe, work.now_ms)
            if not dry_run:
                work.store.add_quarantine(symbol, timeframe, bad)
                change += work.store.write_bars(symbol, timeframe, good)
            else:
                change += _difference(stored, good)
                after = pl.concat([after, good]).unique("ts", keep="last")
        if not dry_run:
            after = work.store.read_bars(symbol, timeframe, until_ms=work.now_ms)
        left = find_gaps(after["ts"], timeframe)
        if not dry_run:
            confirmed = pl.col("from_ts").is_in(list(nothing)).alias("confirmed")
            work.store.replace_gaps(symbol, timeframe, left.with_columns(confirmed))
    except TradewindError as error:
        return SymbolRepair(symbol, error=str(error), error_code=error.code)
    return SymbolRepair(symbol, change.added, change.replaced, holes.height, left.height)


def _difference(stored: pl.DataFrame, offered: pl.DataFrame) -> WriteReport:
    """Return what writing ``offered`` would change."""
    new = offered.join(stored, on="ts", how="anti").height
    same = offered.join(stored, on=offered.columns, how="semi").height
    return WriteReport(new, offered.height - new - same)
