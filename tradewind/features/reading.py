"""Features straight from the store, for a span of time, with the history they need."""

from __future__ import annotations

import polars as pl

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features._cross import FUNDING_MAX_AGE_MS, references
from tradewind.features.compute import compute_features
from tradewind.features.definitions import ANCHOR_BARS, history_rows
from tradewind.market.schema import BARS, FUNDING_KIND, empty
from tradewind.market.store import BarStore
from tradewind.settings import Settings


def read_features(
    settings: Settings, store: BarStore, symbol: str, *, start_ms: int, until_ms: int
) -> pl.DataFrame:
    """Return the features of bars that open at or after ``start_ms``, closed at ``until_ms``.

    Enough earlier bars are read for every row to have the values it has in serving, to the
    bit, if the store holds them; columns as in `compute_features`, where ``history`` counts
    from the first bar read.

    Raises
    ------
    TradewindError
        ``no_bars`` when the symbol was never stored.
    """
    step, timeframe = settings.market.timeframe_ms, settings.market.timeframe
    start = -(-start_ms // step) * step
    before = store.read_bars(
        symbol, timeframe, until_ms=start, last=history_rows(settings) + ANCHOR_BARS
    )
    span = store.read_bars(symbol, timeframe, until_ms=until_ms, start_ms=start)
    own = pl.concat([before, span])
    if own.is_empty():
        return compute_features({symbol: own}, symbol, settings)
    first = int(own["ts"][0])
    bars = {symbol: own}
    for name in references(settings):
        if name not in bars:
            bars[name] = reference_bars(settings, store, name, start_ms=first, until_ms=until_ms)
    return compute_features(
        bars,
        symbol,
        settings,
        funding=read_funding(store, symbol, start_ms=first, until_ms=until_ms),
    ).filter(pl.col("ts") >= start)


def reference_bars(
    settings: Settings, store: BarStore, symbol: str, *, start_ms: int, until_ms: int
) -> pl.DataFrame:
    """Return a reference's bars; none stored is no error here, its features are then NaN."""
    try:
        return store.read_bars(
            symbol, settings.market.timeframe, until_ms=until_ms, start_ms=start_ms
        )
    except TradewindError as error:
        if error.code is not ErrorCode.NO_BARS:
            raise
        return empty(BARS)


def read_funding(store: BarStore, symbol: str, *, start_ms: int, until_ms: int) -> pl.DataFrame:
    """Return the funding rates that bars from ``start_ms`` on can use."""
    return store.read_series(
        FUNDING_KIND, symbol, until_ms=until_ms, start_ms=start_ms - FUNDING_MAX_AGE_MS
    )
