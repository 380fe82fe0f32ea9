"""Bring the store up to the clock: incremental, idempotent, every symbol on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from tradewind.clock import Clock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.market.active import ActiveSet, open_store, remember, store_for
from tradewind.market.open_source import open_source
from tradewind.market.quality import find_gaps, split_bad
from tradewind.market.schema import FUNDING_KIND, GAPS, empty
from tradewind.market.sources import BarSource, SourceKind
from tradewind.market.store import BarStore, WriteReport
from tradewind.settings import MS_PER_DAY, Settings

__all__ = ["IngestReport", "SymbolIngest", "run_ingest", "store_for"]


@dataclass(frozen=True)
class SymbolIngest:
    """What one symbol's ingestion did.

    ``quarantined`` counts refused bars not known before; ``gaps`` all holes that remain;
    ``error`` is None, or ``code: detail. remedy``.
    """

    symbol: str
    added: int = 0
    replaced: int = 0
    quarantined: int = 0
    gaps: int = 0
    last_ts: int | None = None
    error: str | None = None


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
        Earliest open time wanted. Default: ``history_days`` back; everything from a folder.
    on_symbol
        Called as each symbol is done, in order of completion.

    Raises
    ------
    TradewindError
        When no source can be opened (see `open_source`).
    """
    names = tuple(dict.fromkeys(symbols or settings.market.all_symbols))
    return asyncio.run(_ingest(settings, clock, names, since_ms, on_symbol))


async def _ingest(
    settings: Settings,
    clock: Clock,
    symbols: tuple[str, ...],
    since_ms: int | None,
    on_symbol: Callable[[SymbolIngest], None] | None,
) -> IngestReport:
    now_ms = clock.now_ms()
    source = await open_source(settings, clock)
    try:
        work = _Work(settings, source, open_store(settings, source.set_id), now_ms, since_ms)

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
        remember(settings, active)
    return IngestReport(
        source.name, source.kind, source.set_id, source.kind == "simulated", results
    )


@dataclass(frozen=True)
class _Work:
    """One ingestion: everything its symbols share."""

    settings: Settings
    source: BarSource
    store: BarStore
    now_ms: int
    since_ms: int | None

    async def ingest(self, symbol: str) -> SymbolIngest:
        try:
            return await self._ingest(symbol)
        except TradewindError as error:
            return SymbolIngest(symbol, error=str(error))

    async def _ingest(self, symbol: str) -> SymbolIngest:
        timeframe = self.settings.market.timeframe
        written, quarantined = WriteReport(), 0
        for start, end in self._ranges(symbol):
            _, report, new_bad = await self._store_range(symbol, start, end)
            written, quarantined = written + report, quarantined + new_bad
        gaps, report, new_bad = await self._refill(symbol)
        last_ts = self.store.last_ts(symbol, timeframe)
        if last_ts is None:
            raise TradewindError(
                ErrorCode.NO_BARS,
                f"{self.source.name} has no closed {timeframe} bar of symbol {symbol}"
                f" up to {self.now_ms} ms",
                "Ask for an earlier start, or check the symbol and the clock",
            )
        await self._funding(symbol)
        written, quarantined = written + report, quarantined + new_bad
        return SymbolIngest(symbol, written.added, written.replaced, quarantined, gaps, last_ts)

    def _ranges(self, symbol: str) -> list[tuple[int, int]]:
        """Return what to ask for: the time before what is stored, and from its end on."""
        market = self.settings.market
        wanted = self._wanted_start()
        first = self.store.first_ts(symbol, market.timeframe)
        last = self.store.last_ts(symbol, market.timeframe)
        if first is None or last is None:
            return [(wanted, self.now_ms)]
        resume = last - market.overlap_bars * market.timeframe_ms
        before = [(wanted, first)] if wanted < first else []
        return [*before, (max(0, resume), self.now_ms)]

    def _wanted_start(self) -> int:
        market = self.settings.market
        if self.since_ms is not None:
            start = self.since_ms
        elif self.source.kind == "folder":
            start = 0
        else:
            start = self.now_ms - market.history_days * MS_PER_DAY
        return max(0, -(-start // market.timeframe_ms) * market.timeframe_ms)

    async def _store_range(self, symbol: str, start: int, end: int) -> tuple[int, WriteReport, int]:
        """Fetch and store ``[start, end)``; return rows answered, what changed, new bad bars."""
        timeframe = self.settings.market.timeframe
        if end <= start:
            return 0, WriteReport(), 0
        fetched = await self.source.fetch_bars(symbol, timeframe, start, end)
        good, bad = split_bad(fetched, timeframe, self.now_ms)
        new_bad = self.store.add_quarantine(symbol, timeframe, bad)
        return fetched.height, self.store.write_bars(symbol, timeframe, good), new_bad

    async def _refill(self, symbol: str) -> tuple[int, WriteReport, int]:
        """Ask again for every hole, newest first, and record those that stay."""
        market = self.settings.market
        written, quarantined = WriteReport(), 0
        holes = find_gaps(self.store.timestamps(symbol, market.timeframe), market.timeframe)
        confirmed: list[int] = []
        for hole in holes.reverse().head(market.gap_requests).iter_rows(named=True):
            answered, report, new_bad = await self._store_range(
                symbol, hole["from_ts"], hole["to_ts"] + market.timeframe_ms
            )
            written, quarantined = written + report, quarantined + new_bad
            if answered == 0:
                confirmed.append(hole["from_ts"])
        remaining = holes
        if written.added:
            remaining = find_gaps(self.store.timestamps(symbol, market.timeframe), market.timeframe)
        self.store.replace_gaps(symbol, market.timeframe, _with_confirmed(remaining, confirmed))
        return remaining.height, written, quarantined

    async def _funding(self, symbol: str) -> None:
        known = self.store.read_series(FUNDING_KIND, symbol, until_ms=self.now_ms)
        wanted = self._wanted_start()
        start = wanted
        if known.height and known["ts"][0] <= wanted:
            start = int(known["ts"][-1])
        rates = await self.source.fetch_funding(symbol, start, self.now_ms)
        if rates is None:
            return
        usable = pl.col("ts").is_not_null() & pl.col("funding_rate").is_finite()
        self.store.write_series(FUNDING_KIND, symbol, rates.filter(usable))


def _with_confirmed(gaps: pl.DataFrame, confirmed: Sequence[int]) -> pl.DataFrame:
    if gaps.is_empty():
        return empty(GAPS)
    return gaps.with_columns(pl.col("from_ts").is_in(list(confirmed)).alias("confirmed"))
