"""Brings the stored transitions of a symbol's regimes up to date with its bars."""

from __future__ import annotations

from tradewind.features.reading import read_regimes
from tradewind.market.store import BarStore
from tradewind.regimes.transitions import read_transitions, record_transitions
from tradewind.settings import MS_PER_DAY, Settings

LOOK_BACK_MS = 7 * MS_PER_DAY
"""Transitions this near the newest known one are looked at again: bars may be corrected."""


def record_regimes(
    settings: Settings, store: BarStore, symbol: str, *, until_ms: int
) -> dict[str, int]:
    """Record every change of regime up to ``until_ms``; return how many are held by timeframe.

    The first time it goes through all stored bars, later from shortly before the newest
    recorded change. Repeating it changes no byte.

    Raises
    ------
    TradewindError
        ``no_bars`` when the symbol was never stored.
    """
    known = read_transitions(store, symbol, settings.market.timeframe, until_ms=until_ms)
    start = int(known["ts"][-1]) - LOOK_BACK_MS if known.height else 0
    frame, regimes = read_regimes(settings, store, symbol, start_ms=start, until_ms=until_ms)
    ts = frame["ts"].to_numpy()
    for found in regimes.values():
        record_transitions(store, symbol, ts, found)
    return {
        timeframe: read_transitions(store, symbol, timeframe, until_ms=until_ms).height
        for timeframe in regimes
    }
