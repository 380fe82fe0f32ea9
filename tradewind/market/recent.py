"""The last bars of a symbol, kept in memory and renewed when the store changes."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tradewind.market.store import SETTLED_NS, BarStore
from tradewind.settings import TIMEFRAME_MS

DEPTH = 4096
"""Bars held of a series; older ones are read from the files."""
KEPT_SERIES = 512
FOR_EVER_MS = 4_102_444_800_000  # 2100: every stored bar has closed by then


@dataclass(frozen=True)
class _Tail:
    """The newest bars of one series, and what the store looked like when they were read.

    ``changed`` is the folder's time, None while a later change could still bear the same.
    """

    token: int
    changed: int | None
    ts: npt.NDArray[np.int64]
    bars: pl.DataFrame
    whole: bool


class RecentBars:
    """Last bars by memory: a look-up costs microseconds and sees a new bar at once.

    A bar written, corrected or refilled by any process changes the store's token, and the
    series is read again. Safe to share between threads.

    Parameters
    ----------
    store
        Where the bars are.
    depth
        Bars held of a series; asking for more reads the files.
    """

    def __init__(self, store: BarStore, *, depth: int = DEPTH) -> None:
        self.store = store
        self.depth = depth
        self._tails: OrderedDict[tuple[str, str], _Tail] = OrderedDict()
        self._lock = threading.Lock()

    def last(self, symbol: str, timeframe: str, n: int, *, until_ms: int) -> pl.DataFrame:
        """Return the newest ``n`` bars that had closed at ``until_ms``, oldest first.

        Parameters
        ----------
        until_ms
            A point in time: no bar that closes after it is returned (no look-ahead).

        Returns
        -------
        DataFrame
            As `BarStore.read_bars`; fewer rows when the store has fewer.

        Raises
        ------
        TradewindError
            ``no_bars`` when the symbol was never stored, ``corrupt_file``.
        """
        tail = self._tail(symbol, timeframe)
        end = int(tail.ts.searchsorted(until_ms - TIMEFRAME_MS[timeframe], side="right"))
        if end >= n or tail.whole:
            return tail.bars.slice(max(0, end - n), min(n, end))
        return self.store.read_bars(symbol, timeframe, until_ms=until_ms, last=n)

    def _tail(self, symbol: str, timeframe: str) -> _Tail:
        key = symbol, timeframe
        changed = self.store.changed_ns(symbol, timeframe)
        known = self._tails.get(key)
        if known is not None and changed is not None and known.changed == changed:
            return known
        # The token first: a bar written meanwhile is then seen at the next call.
        token = self.store.change_token(symbol, timeframe)
        settled = changed is not None and time.time_ns() - changed > SETTLED_NS
        if known is None or known.token != token:
            bars = self.store.read_bars(symbol, timeframe, until_ms=FOR_EVER_MS, last=self.depth)
            ts = bars["ts"].to_numpy()
            known = _Tail(token, None, ts, bars, bars.height < self.depth)
        tail = _Tail(known.token, changed if settled else None, known.ts, known.bars, known.whole)
        with self._lock:
            self._tails[key] = tail
            self._tails.move_to_end(key)
            while len(self._tails) > KEPT_SERIES:
                self._tails.popitem(last=False)
        return tail
