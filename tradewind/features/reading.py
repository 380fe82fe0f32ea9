"""Features straight from the store, for a span of time, with the history they need."""

from __future__ import annotations

import numpy as np
import polars as pl

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features._cross import (
    FUNDING_MAX_AGE_MS,
    OPEN_INTEREST_SPAN_MS,
    SURVEY_MAX_AGE_MS,
    references,
)
from tradewind.features.compute import features_and_regimes
from tradewind.features.definitions import ANCHOR_BARS, history_rows
from tradewind.market.schema import (
    BARS,
    FUNDING_KIND,
    LONG_SHORT_RATIO_KIND,
    OPEN_INTEREST_KIND,
    empty,
)
from tradewind.market.store import BarStore
from tradewind.market.timeframes import regime_rows
from tradewind.regimes.detector import RegimeSeries
from tradewind.settings import Settings

COMPANIONS: dict[str, tuple[str, int]] = {
    "funding": (FUNDING_KIND, FUNDING_MAX_AGE_MS),
    "open_interest": (OPEN_INTEREST_KIND, OPEN_INTEREST_SPAN_MS + SURVEY_MAX_AGE_MS),
    "long_short": (LONG_SHORT_RATIO_KIND, SURVEY_MAX_AGE_MS),
}
"""By name in `compute_features`: the store's series, and how far back a bar looks into it."""


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
    return read_regimes(settings, store, symbol, start_ms=start_ms, until_ms=until_ms)[0]


def read_regimes(
    settings: Settings, store: BarStore, symbol: str, *, start_ms: int, until_ms: int
) -> tuple[pl.DataFrame, dict[str, RegimeSeries]]:
    """Return `read_features` and, row for row, the regimes with their metrics by timeframe."""
    step, timeframe = settings.market.timeframe_ms, settings.market.timeframe
    start = -(-start_ms // step) * step
    before = store.read_bars(
        symbol,
        timeframe,
        until_ms=start,
        last=max(history_rows(settings), regime_rows(settings)) + ANCHOR_BARS,
    )
    span = store.read_bars(symbol, timeframe, until_ms=until_ms, start_ms=start)
    own = pl.concat([before, span])
    bars = {symbol: own}
    if own.is_empty():
        return features_and_regimes(bars, symbol, settings)
    first = int(own["ts"][0])
    for name in references(settings):
        if name not in bars:
            bars[name] = reference_bars(settings, store, name, start_ms=first, until_ms=until_ms)
    frame, regimes = features_and_regimes(
        bars,
        symbol,
        settings,
        **read_companions(store, symbol, start_ms=first, until_ms=until_ms),
    )
    rows = np.arange(before.height, own.height)
    return frame[before.height :], {name: found.take(rows) for name, found in regimes.items()}


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


def read_companions(
    store: BarStore, symbol: str, *, start_ms: int, until_ms: int
) -> dict[str, pl.DataFrame]:
    """Return the companion series that bars from ``start_ms`` on can use, by argument name."""
    return {
        name: store.read_series(kind, symbol, until_ms=until_ms, start_ms=start_ms - reach)
        for name, (kind, reach) in COMPANIONS.items()
    }
