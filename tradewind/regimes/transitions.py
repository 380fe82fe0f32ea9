"""When a regime changed, and into what: a series of the store, written once per event."""

from __future__ import annotations

import polars as pl

from tradewind.market.schema import TRANSITIONS, empty
from tradewind.market.store import BarStore
from tradewind.regimes.detector import REGIMES, IntArray, RegimeSeries

KIND = "regime"


def series_kind(timeframe: str) -> str:
    """Return the store's name of a timeframe's transitions, such as ``regime_15m``."""
    return f"{KIND}_{timeframe}"


def transitions(ts: IntArray, regimes: RegimeSeries) -> pl.DataFrame:
    """Return the rows at which the regime differs from the row before.

    Returns
    -------
    DataFrame
        ts (open of the first trading bar under the new regime), before, after, confidence.
    """
    codes = regimes.codes
    changed = [row for row in range(1, len(codes)) if codes[row] != codes[row - 1]]
    return pl.DataFrame(
        {
            "ts": ts[changed],
            "before": [REGIMES[codes[row - 1]].value for row in changed],
            "after": [REGIMES[codes[row]].value for row in changed],
            "confidence": regimes.confidence[changed],
        },
        schema=dict(TRANSITIONS),
    )


def record_transitions(
    store: BarStore, symbol: str, ts: IntArray, regimes: RegimeSeries
) -> pl.DataFrame:
    """Bring the stored transitions of the span of ``ts`` to those of ``regimes``; return them.

    Repeating it changes no byte. A stored transition that corrected bars have undone stays
    as a row whose ``after`` equals its ``before``: a series of the store loses no row.
    """
    found = transitions(ts, regimes)
    if not len(ts):
        return found
    kind = series_kind(regimes.timeframe)
    known = store.read_series(kind, symbol, until_ms=int(ts[-1]), start_ms=int(ts[0]) + 1)
    undone = known.join(found.select("ts"), on="ts", how="anti").with_columns(after="before")
    rows = pl.concat([found, undone]).sort("ts")
    if rows.height:
        store.write_series(kind, symbol, rows)
    return found


def read_transitions(
    store: BarStore, symbol: str, timeframe: str, *, until_ms: int, start_ms: int | None = None
) -> pl.DataFrame:
    """Return the transitions known at ``until_ms``; none is no error."""
    rows = store.read_series(series_kind(timeframe), symbol, until_ms=until_ms, start_ms=start_ms)
    if rows.is_empty():
        return empty(TRANSITIONS)
    return rows.filter(pl.col("before") != pl.col("after"))
