"""What the store holds of each series, for people: span, rows, holes, age, quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from tradewind.clock import Clock, staleness_s
from tradewind.errors import TradewindError
from tradewind.market.active import store_for
from tradewind.market.quality import find_gaps
from tradewind.market.store import BarStore
from tradewind.market.upkeep import setting_of, stored_kinds
from tradewind.settings import Settings


@dataclass(frozen=True)
class SeriesStatus:
    """One series; times in ms, ``staleness_s`` in seconds, None for what bars alone have.

    ``series`` is its folder in the store (15m, funding_8h, regime_1h), ``kind`` what that holds:
    bars, a companion series, or changes of the regime. ``missing`` counts the bars inside holes;
    ``confirmed`` the holes that the source has confirmed; ``error`` says why it cannot be read.
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
    series: str = ""


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
    status = SeriesStatus(symbol, kind, timeframe, series=folder)
    try:
        if timeframe is None:
            ts = store.read_series(folder, symbol, until_ms=now_ms)["ts"]
        else:
            bars = store.read_bars(symbol, timeframe, until_ms=now_ms)
            ts = bars["ts"]
    except TradewindError as error:
        return replace(status, error=str(error))
    if ts.is_empty():
        return status
    first, last = int(ts[0]), int(ts[-1])
    if timeframe is None:
        return replace(status, rows=ts.len(), first_ts=first, last_ts=last)
    own = (pl.col("symbol") == symbol) & (pl.col("timeframe") == timeframe)
    gaps = find_gaps(ts, timeframe)
    confirmed = holes.filter(own & pl.col("confirmed"))
    return replace(
        status,
        rows=ts.len(),
        first_ts=first,
        last_ts=last,
        gaps=gaps.height,
        missing=int(gaps["bars"].sum()),
        confirmed=gaps.join(confirmed, on=["from_ts", "to_ts"], how="semi").height,
        staleness_s=staleness_s(now_ms, last, timeframe),
        quarantined=refused.filter(own).height,
    )
