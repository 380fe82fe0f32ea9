"""What the store holds of each series, for people: span, rows, holes, age, quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from tradewind.clock import Clock, staleness_s
from tradewind.errors import TradewindError
from tradewind.market.active import store_for
from tradewind.market.quality import find_gaps
from tradewind.market.store import BarStore
from tradewind.market.upkeep import setting_of, stored_kinds
from tradewind.settings import Settings

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0


@dataclass(frozen=True)
class SeriesStatus:
    """One series; times in ms, ``staleness_s`` in seconds, None for what bars alone have.

    ``missing`` counts the bars inside holes; ``confirmed`` the holes that the source has
    confirmed; ``error`` says why the series cannot be read.
    """

    symbol: str
    kind: str
    timeframe: str | None
    rows: int = 0
    first_ts: int | None = None
    last_ts: int | None = None
    gaps: int | None = None
    missing: int | None = None
    confirmed: int | None = None
    staleness_s: float | None = None
    quarantined: int = 0
    error: str | None = None


@dataclass(frozen=True)
class DataStatus:
    """Every series of the active set at market time ``now_ms``, and the names of other sets."""

    set_id: str
    place: str
    now_ms: int
    series: tuple[SeriesStatus, ...]
    other_sets: tuple[str, ...] = ()


def data_status(settings: Settings, clock: Clock, symbols: Sequence[str] = ()) -> DataStatus:
    """Return the figures of every stored series, or of the named symbols'.

    A series that cannot be read is named with its error; the others are told all the same.
    """
    store, now_ms = store_for(settings), clock.now_ms()
    refused, holes = store.quarantined(), store.gaps()
    series = tuple(
        _status(store, folder, name, now_ms, refused, holes)
        for folder in stored_kinds(store)
        for name in store.symbols_of(folder)
        if not symbols or name in symbols
    )
    place = store.files.place(store.set_id)
    ordered = tuple(sorted(series, key=lambda item: item.symbol))
    others = tuple(name for name in store.files.folders("") if name != store.set_id)
    return DataStatus(store.set_id, place, now_ms, ordered, others)


def in_words(staleness: float | None) -> str | None:
    """Return how late the newest bar is, as a person says it; None for None."""
    if staleness is None:
        return None
    if staleness == 0:
        return "fresh"
    for unit, length in (("day", DAY_S), ("hour", HOUR_S), ("minute", MINUTE_S)):
        if staleness >= length:
            count = int(staleness // length)
            return f"{count} {unit}{'s' if count > 1 else ''} late"
    return f"{staleness:.0f} s late"


def _status(
    store: BarStore,
    folder: str,
    symbol: str,
    now_ms: int,
    refused: pl.DataFrame,
    holes: pl.DataFrame,
) -> SeriesStatus:
    kind = setting_of(folder)
    timeframe = folder if kind == "bars" else None
    status = SeriesStatus(symbol, kind, timeframe)
    try:
        if timeframe is None:
            ts = store.read_series(folder, symbol, until_ms=now_ms)["ts"]
        else:
            bars = store.read_bars(symbol, timeframe, until_ms=now_ms)
            ts = bars["ts"]
    except TradewindError as error:
        return SeriesStatus(symbol, kind, timeframe, error=str(error))
    if ts.is_empty():
        return status
    first, last = int(ts[0]), int(ts[-1])
    if timeframe is None:
        return SeriesStatus(symbol, kind, None, ts.len(), first, last)
    own = (pl.col("symbol") == symbol) & (pl.col("timeframe") == timeframe)
    gaps = find_gaps(ts, timeframe)
    confirmed = holes.filter(own & pl.col("confirmed"))
    return SeriesStatus(
        symbol,
        kind,
        timeframe,
        ts.len(),
        first,
        last,
        gaps.height,
        int(gaps["bars"].sum()),
        gaps.join(confirmed, on=["from_ts", "to_ts"], how="semi").height,
        staleness_s(now_ms, last, timeframe),
        refused.filter(own).height,
    )
