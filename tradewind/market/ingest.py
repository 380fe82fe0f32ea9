"""Bring the store up to the clock: incremental, idempotent, every symbol on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from tradewind.clock import Clock, utc_text
from tradewind.errors import ErrorCode, TradewindError
from tradewind.market.active import ActiveSet, active_set, open_store, remember, store_for
from tradewind.market.open_source import open_source
from tradewind.market.quality import find_gaps, split_bad
from tradewind.market.retention import keep_from
from tradewind.market.schema import (
    FUNDING_KIND,
    GAPS,
    LONG_SHORT_RATIO_KIND,
    OPEN_INTEREST_KIND,
    empty,
    series_columns,
)
from tradewind.market.sources import BarSource, SourceKind
from tradewind.market.store import BarStore, WriteReport
from tradewind.settings import MS_PER_DAY, Settings

__all__ = ["IngestReport", "SeriesIngest", "SymbolIngest", "run_ingest", "store_for"]
DataKind = Literal["bars", "funding", "open_interest", "long_short_ratio"]
SERIES_KINDS: dict[DataKind, str] = {
    "funding": FUNDING_KIND,
    "open_interest": OPEN_INTEREST_KIND,
    "long_short_ratio": LONG_SHORT_RATIO_KIND,
}
"""Kinds of data beside bars, and the series of the store that keeps each."""
ALL_KINDS: tuple[DataKind, ...] = ("bars", *SERIES_KINDS)


@dataclass(frozen=True)
class SeriesIngest:
    """What ingestion did for one companion series that the source has.

    ``unusable`` counts rows without a time or a finite value, which are not stored.
    """

    kind: DataKind
    added: int
    replaced: int
    unusable: int
    last_ts: int | None


@dataclass(frozen=True)
class SymbolIngest:
    """What one symbol's ingestion did.

    ``quarantined`` counts refused bars not known before; ``gaps`` all holes that remain;
    ``series`` has the companions that the source has; ``error`` is None, or
    ``code: detail. remedy``, and ``error_code`` its code.
    """

    symbol: str
    added: int = 0
    replaced: int = 0
    quarantined: int = 0
    gaps: int = 0
    last_ts: int | None = None
    error: str | None = None
    error_code: ErrorCode | None = None
    series: tuple[SeriesIngest, ...] = ()


@dataclass(frozen=True)
class IngestReport:
    """What an ingestion read from, and what it did for each symbol."""

    source_name: str
    source_kind: SourceKind
    set_id: str
    simulated: bool
    symbols: tuple[SymbolIngest, ...]

    @property
    def failed(self) -> tuple[SymbolIngest, ...]:
        """Symbols that could not be ingested."""
        return tuple(symbol for symbol in self.symbols if symbol.error)


def run_ingest(
    settings: Settings,
    clock: Clock,
    *,
    symbols: Sequence[str] | None = None,
    since_ms: int | None = None,
    kinds: Collection[DataKind] = ALL_KINDS,
    on_symbol: Callable[[SymbolIngest], None] | None = None,
) -> IngestReport:
    """Fetch what is new of every symbol and store it.

    Only bars closed at ``clock.now_ms()`` are stored. One symbol's failure is recorded in
    its `SymbolIngest` and stops no other.

    Parameters
    ----------
    symbols
        Default: traded and reference symbols.
    since_ms
        Earliest open time wanted. Default: ``history_days`` back; everything from a folder;
        in both cases not what retention would drop again.
    kinds
        What to fetch.
    on_symbol
        Called as each symbol is done, in order of completion.

    Raises
    ------
    TradewindError
        ``bad_input`` for a start that is not past; ``already_running`` when another ingestion
        put another set in use meanwhile; when no source can be opened (see `open_source`).
    """
    names = tuple(dict.fromkeys(symbols or settings.market.all_symbols))
    return asyncio.run(_ingest(settings, clock, names, since_ms, frozenset(kinds), on_symbol))


async def _ingest(
    settings: Settings,
    clock: Clock,
    symbols: tuple[str, ...],
    since_ms: int | None,
    kinds: frozenset[DataKind],
    on_symbol: Callable[[SymbolIngest], None] | None,
) -> IngestReport:
    now_ms = clock.now_ms()
    if since_ms is not None and since_ms >= now_ms:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"since = {utc_text(since_ms)} UTC is not before market time, {utc_text(now_ms)} UTC",
            "Ask for an earlier start; `tradewind clock show` tells market time",
        )
    before = active_set(settings)
    source = await open_source(settings, clock)
    try:
        store = open_store(settings, source.set_id)
        work = Work(settings, source, store, now_ms, since_ms, kinds)

        async def one(symbol: str) -> SymbolIngest:
            done = await work.ingest(symbol)
            if on_symbol is not None:
                on_symbol(done)
            return done

        results = tuple(await asyncio.gather(*(one(symbol) for symbol in symbols)))
    finally:
        await source.close()
    active = ActiveSet(set_id=source.set_id, source_kind=source.kind, source_name=source.name)
    if any(result.error is None for result in results):
        remember(settings, active, before)
    return IngestReport(
        source.name, source.kind, source.set_id, source.kind == "simulated", results
    )


@dataclass(frozen=True)
class Work:
    """One ingestion: everything its symbols share."""

    settings: Settings
    source: BarSource
    store: BarStore
    now_ms: int
    since_ms: int | None = None
    kinds: frozenset[DataKind] = frozenset(ALL_KINDS)

    async def ingest(self, symbol: str) -> SymbolIngest:
        """Bring one symbol up to date; a failure is told in the result."""
        done = SymbolIngest(symbol)
        try:
            if "bars" in self.kinds:
                done = await self._bars(symbol)
            for kind in SERIES_KINDS:
                if kind in self.kinds:
                    series = await self._series(symbol, kind)
                    done = replace(done, series=(*done.series, *series))
        except TradewindError as error:
            return replace(done, error=str(error), error_code=error.code)
        return done

    async def _bars(self, symbol: str) -> SymbolIngest:
        timeframe = self.settings.market.timeframe
        written, quarantined = WriteReport(), 0
        for start, end in self._ranges(symbol):
            _, report, new_bad = await self._store_range(symbol, start, end)
            written, quarantined = written + report, quarantined + new_bad
        self._note_asked(symbol, timeframe, "bars")
        gaps, report, new_bad = await self._refill(symbol)
        last_ts = self.store.last_ts(symbol, timeframe)
        if last_ts is None:
            raise TradewindError(
                ErrorCode.NO_BARS,
                f"{self.source.name} has no closed {timeframe} bar of symbol {symbol}"
                f" up to {utc_text(self.now_ms)} UTC",
                "Ask for an earlier start, or check the symbol and the clock",
            )
        written, quarantined = written + report, quarantined + new_bad
        return SymbolIngest(symbol, written.added, written.replaced, quarantined, gaps, last_ts)

    def _ranges(self, symbol: str) -> list[tuple[int, int]]:
        """Return what to ask for: the time before what is stored, and from its end on."""
        market = self.settings.market
        wanted = self._wanted_start("bars")
        first = self.store.first_ts(symbol, market.timeframe)
        last = self.store.last_ts(symbol, market.timeframe)
        if first is None or last is None:
            return [(wanted, self.now_ms)]
        resume = last - market.overlap_bars * market.timeframe_ms
        before = [] if self._nothing_before(symbol, market.timeframe, wanted, first) else [first]
        return [*((wanted, end) for end in before), (max(0, resume), self.now_ms)]

    def _wanted_start(self, kind: DataKind) -> int:
        market = self.settings.market
        if self.since_ms is not None:
            start = self.since_ms
        else:
            folder = self.source.kind == "folder"
            start = 0 if folder else self.now_ms - market.history_days * MS_PER_DAY
            start = max(start, keep_from(self.settings, kind, self.now_ms) or 0)
        return max(0, -(-start // market.timeframe_ms) * market.timeframe_ms)

    def _nothing_before(self, symbol: str, kind: str, wanted: int, first: int) -> bool:
        """Return whether asking for the time before what is stored would be in vain.

        A young symbol has no earlier bars; an exchange is not asked for them at every run.
        """
        if wanted >= first:
            return True
        if self.since_ms is not None or self.source.kind == "folder":
            return False
        asked = self.store.asked_from(symbol, kind)
        return asked is not None and asked <= wanted

    def _note_asked(self, symbol: str, stored_kind: str, kind: DataKind) -> None:
        if self.source.kind != "folder":
            self.store.note_asked(symbol, stored_kind, self._wanted_start(kind))

    async def _store_range(self, symbol: str, start: int, end: int) -> tuple[int, WriteReport, int]:
        """Fetch and store ``[start, end)``; return rows answered, what changed, new bad bars.

        A long download is stored in pieces, so that a crash costs one of them.
        """
        timeframe, market = self.settings.market.timeframe, self.settings.market
        whole = max(1, end - start)
        piece = whole if self.source.kind == "folder" else market.chunk_bars * market.timeframe_ms
        answered, written, new_bad = 0, WriteReport(), 0
        for first in range(start, end, piece):
            until = min(first + piece, end)
            fetched = await self.source.fetch_bars(symbol, timeframe, first, until)
            good, bad = split_bad(fetched, timeframe, self.now_ms)
            new_bad += self.store.add_quarantine(symbol, timeframe, bad)
            written += self.store.write_bars(symbol, timeframe, good)
            answered += fetched.height
        return answered, written, new_bad

    async def _refill(self, symbol: str) -> tuple[int, WriteReport, int]:
        """Ask again for holes, those not confirmed first, and record the ones that stay."""
        market = self.settings.market
        written, quarantined = WriteReport(), 0
        holes = find_gaps(self.store.timestamps(symbol, market.timeframe), market.timeframe)
        confirmed = self._confirmed(symbol, holes)
        for hole in self._asked_again(holes, confirmed).iter_rows(named=True):
            answered, report, new_bad = await self._store_range(
                symbol, hole["from_ts"], hole["to_ts"] + market.timeframe_ms
            )
            written, quarantined = written + report, quarantined + new_bad
            if answered == 0:
                confirmed.add(hole["from_ts"])
            else:
                confirmed.discard(hole["from_ts"])
        remaining = holes
        if written.added:
            remaining = find_gaps(self.store.timestamps(symbol, market.timeframe), market.timeframe)
        self.store.replace_gaps(symbol, market.timeframe, _with_confirmed(remaining, confirmed))
        return remaining.height, written, quarantined

    def _asked_again(self, holes: pl.DataFrame, confirmed: Collection[int]) -> pl.DataFrame:
        """Return the holes to ask for in this run, the newest first.

        An exchange's outages stay for ever: asking for all of them at every bar would cost
        more requests than the bars. They take turns; a folder is asked for all of them.
        """
        market = self.settings.market
        known = pl.col("from_ts").is_in(list(confirmed))
        sure = holes.filter(known).reverse()
        if self.source.kind != "folder" and sure.height:
            count = min(market.confirmed_gap_requests, sure.height)
            first = self.now_ms // market.timeframe_ms * count
            turn = [(first + place) % sure.height for place in range(count)]
            sure = sure.filter(pl.int_range(pl.len()).is_in(turn))
        return pl.concat([holes.filter(~known).reverse(), sure]).head(market.gap_requests)

    def _confirmed(self, symbol: str, holes: pl.DataFrame) -> set[int]:
        """Return the starts of holes that the source has confirmed before, as they are now."""
        before = self.store.gaps(symbol).filter(
            (pl.col("timeframe") == self.settings.market.timeframe) & pl.col("confirmed")
        )
        same = holes.join(before, on=["from_ts", "to_ts"], how="semi")
        return set(same["from_ts"].to_list())

    async def _series(self, symbol: str, kind: DataKind) -> tuple[SeriesIngest, ...]:
        """Bring a companion up to date; empty when the source does not have it."""
        stored_kind = SERIES_KINDS[kind]
        fetch: dict[str, Callable[[str, int, int], Awaitable[pl.DataFrame | None]]] = {
            "funding": self.source.fetch_funding,
            "open_interest": self.source.fetch_open_interest,
            "long_short_ratio": self.source.fetch_long_short_ratio,
        }
        columns = series_columns(stored_kind)
        value = list(columns)[1]
        known = self.store.read_series(stored_kind, symbol, until_ms=self.now_ms)["ts"]
        wanted = self._wanted_start(kind)
        ranges = [(wanted, self.now_ms)]
        if known.len():
            first, last = int(known[0]), int(known[-1])
            before = [] if self._nothing_before(symbol, stored_kind, wanted, first) else [first]
            ranges = [*((wanted, end) for end in before), (last, self.now_ms)]
        written, unusable, last_ts = WriteReport(), 0, None
        for start, end in ranges:
            rows = await fetch[kind](symbol, start, end)
            if rows is None:
                return ()
            usable = rows.filter(
                pl.col("ts").is_not_null()
                & (pl.col("ts") <= self.now_ms)
                & pl.col(value).is_finite().fill_null(value=False)
            )
            unusable += rows.height - usable.height
            written += self.store.write_series(stored_kind, symbol, usable)
        self._note_asked(symbol, stored_kind, kind)
        stored = self.store.read_series(stored_kind, symbol, until_ms=self.now_ms)["ts"]
        last_ts = int(stored[-1]) if stored.len() else None
        return (SeriesIngest(kind, written.added, written.replaced, unusable, last_ts),)


def _with_confirmed(gaps: pl.DataFrame, confirmed: Collection[int]) -> pl.DataFrame:
    if gaps.is_empty():
        return empty(GAPS)
    return gaps.with_columns(pl.col("from_ts").is_in(list(confirmed)).alias("confirmed"))
