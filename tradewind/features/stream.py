"""Features one bar at a time: what `compute_features` says, from the same code, in microseconds.

For whoever sees every bar pass, such as a replay or a loop over hundreds of symbols.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features._cross import (
    FUNDING_MAX_AGE_MS,
    OPEN_INTEREST_SPAN_MS,
    SURVEY_MAX_AGE_MS,
    leader,
    reference_closes,
    references,
)
from tradewind.features._grid import COLUMNS, Grid
from tradewind.features._stream_state import Recursion, Tail
from tradewind.features.compute import checked, clock_features
from tradewind.features.definitions import (
    BAND_WIDTH,
    REQUIRED_FEATURES,
    WIDE,
    longest_window,
    window_periods,
)
from tradewind.settings import MS_PER_DAY, Settings

NAN = math.nan
COMPANION_COLUMNS = {
    "funding": "funding_rate",
    "open_interest": "open_interest",
    "long_short": "long_short_ratio",
}
KEPT_VALUES = 4096
"""Values of a companion series in memory: beyond twice that, the oldest are forgotten."""

REQUIRED = np.array([WIDE.index(name) for name in REQUIRED_FEATURES])
VOL, HOUR_SIN, HOUR_COS, FUNDING, OPEN_INTEREST, LONG_SHORT = map(
    WIDE.index,
    (
        *("vol_20", "hour_sin", "hour_cos"),
        *("funding_rate", "open_interest_change", "long_short_ratio"),
    ),
)


class StreamBar(NamedTuple):
    """One closed bar; ``ts`` is its open."""

    ts: int
    high: float
    low: float
    close: float
    volume: float


class StreamRow(NamedTuple):
    """Features of one bar: ``wide`` as `definitions.WIDE`, shape (F,), NaN where not known.

    ``atr``, ``history`` and ``warm`` as in `compute_features`.
    """

    ts: int
    wide: NDArray[np.float64]
    atr: float
    history: int
    warm: bool


class FeatureStream:
    """Features of one symbol, brought up to date bar by bar.

    They are the batch's to 1e-9 once warm, and to the bit once ``definitions.ANCHOR_BARS`` more
    bars were seen: as is a batch of so many bars.

    Parameters
    ----------
    settings
        As of `compute_features`.
    symbol
        Whose features.
    """

    def __init__(self, settings: Settings, symbol: str) -> None:
        from tradewind.features import _kernel

        self.symbol = symbol
        self._kernel = _kernel
        self._references = references(settings)
        self._step = settings.market.timeframe_ms
        self._warmup = settings.features.warmup_bars
        self._max_gap = settings.features.max_gap_bars
        self._reach = longest_window(settings)
        self._periods = window_periods(settings)
        self._lead = leader(symbol, settings)
        self._clock = clock_features(np.arange(0, MS_PER_DAY, self._step), self._step)
        self._series: dict[str, tuple[list[int], list[float]]] = {
            name: ([], []) for name in COMPANION_COLUMNS
        }
        self._ts: int | None = None
        self._own_ts: int | None = None
        self._recursion = Recursion(self._step, self._warmup)
        self._grid = Tail(len(COLUMNS) + len(self._references), self._reach + 1)
        self._bars, self._closes = np.split(self._grid.table, [len(COLUMNS)])

    @classmethod
    def primed(
        cls,
        settings: Settings,
        symbol: str,
        bars: Mapping[str, pl.DataFrame],
        **companions: pl.DataFrame,
    ) -> FeatureStream:
        """Return a stream that has seen ``bars`` (and companion series), newest included.

        ``features.warmup_bars`` bars are enough.

        Raises
        ------
        TradewindError
            ``bad_input`` as `compute_features`.
        """
        stream = cls(settings, symbol)
        for name, rows in companions.items():
            column = COMPANION_COLUMNS[name]
            for ts, value in rows.select("ts", column).drop_nulls().sort("ts").iter_rows():
                stream.add(name, ts, value)
        grid = Grid.of(checked(bars, symbol, stream._step), stream._step)
        if len(grid.ts):
            run_start = int(grid.run_starts(stream._max_gap)[-1])
            stream._recursion.prime(grid.rows_ts, grid.rows, run_start)
            known = {name: bars[symbol].clear() for name in stream._references} | dict(bars)
            closes = reference_closes(known, grid.ts, settings)
            newest = slice(-stream._reach - 1, None)
            stream._grid.hold(np.concatenate([grid.table[:, newest], closes[:, newest]]))
            stream._ts = stream._own_ts = int(grid.ts[-1])
        return stream

    def add(self, series: str, ts: int, value: float) -> None:
        """Take note of a companion's value (funding, open_interest, long_short) of ``ts``.

        Raises
        ------
        TradewindError
            ``bad_input`` for a value older than the newest one, or an unknown series.
        """
        if series not in self._series:
            known = ", ".join(self._series)
            raise _bad(f"series = {series!r} is unknown", f"Use one of {known}")
        moments, values = self._series[series]
        if moments and ts <= moments[-1]:
            raise _bad(f"{series} of {self.symbol} at ts = {ts} is not newer than {moments[-1]}")
        moments.append(ts)
        values.append(value)
        if len(moments) > 2 * KEPT_VALUES:
            del moments[:-KEPT_VALUES], values[:-KEPT_VALUES]

    def update(self, bar: StreamBar, closes: Mapping[str, float]) -> StreamRow:
        """Add the next closed bar; return its features.

        Parameters
        ----------
        bar
            A bar after the newest one; what lies between and was not told to `skip` is a
            hole in every market.
        closes
            Closes of the reference symbols' bars of the same ``ts``; one that is absent or
            NaN is a bar that does not exist. The symbol's own need not be given.

        Raises
        ------
        TradewindError
            ``bad_input`` for a bar that is not newer, off the grid, or not finite.
        """
        self._check(bar)
        ts, high, low, close, volume = bar
        if self._ts is None or ts - self._ts != self._step:
            self._advance(ts)
        if self._own_ts is not None and ts - self._own_ts > (self._max_gap + 1) * self._step:
            self._recursion.break_off()
        self._ts = self._own_ts = ts
        of = [close if name == self.symbol else closes.get(name, NAN) for name in self._references]
        self._grid.append(high, low, close, volume, *of)
        self._recursion.push(ts, high, low, close)
        table = self._features(ts)
        wide = table[:, 0]
        history = self._recursion.history
        # A sum is finite if and only if every part is.
        finite = math.isfinite(wide.take(REQUIRED).sum())
        warm = history >= self._warmup and finite and bool(wide[VOL] > 0)
        return StreamRow(ts, wide, float(self._recursion.out[self._kernel.ATR, 0]), history, warm)

    def _features(self, ts: int) -> NDArray[np.float64]:
        """Return `definitions.WIDE` of the newest bar, shape (F, 1)."""
        kernel, recursion, end = self._kernel, self._recursion, self._grid.end
        last, out = end - 1, np.empty((len(WIDE), 1))
        place = ts // self._step - last
        kernel.window_features(
            self._bars,
            self._closes,
            self._lead,
            place,
            self._periods,
            BAND_WIDTH,
            0,
            last,
            end,
            last,
            out,
        )
        kernel.indicator_features(recursion.out, recursion.rows.table, recursion.rows.end - 1, out)
        time_of_day = ts % MS_PER_DAY // self._step
        out[HOUR_SIN] = self._clock["hour_sin"][time_of_day]
        out[HOUR_COS] = self._clock["hour_cos"][time_of_day]
        out[FUNDING], out[OPEN_INTEREST], out[LONG_SHORT] = self._companions(ts + self._step)
        return out

    def skip(self, ts: int, closes: Mapping[str, float]) -> None:
        """Take note that the symbol has no bar of ``ts``; other markets may have.

        Raises
        ------
        TradewindError
            ``bad_input`` for a ``ts`` that is not newer, or off the grid.
        """
        self._check_ts(ts)
        self._advance(ts)
        of = [NAN if name == self.symbol else closes.get(name, NAN) for name in self._references]
        self._grid.append(NAN, NAN, NAN, NAN, *of)
        self._ts = ts

    def _advance(self, ts: int) -> None:
        """Let the bars before ``ts`` that nobody told of pass."""
        missing = 0 if self._ts is None else (ts - self._ts) // self._step - 1
        if missing > self._reach:
            self._grid.clear()
            return
        for _ in range(missing):
            self._grid.append(*[NAN] * len(self._grid.table))

    def _companions(self, close_ms: int) -> tuple[float, float, float]:
        now = self._known("open_interest", close_ms, SURVEY_MAX_AGE_MS)
        day_ago = self._known("open_interest", close_ms - OPEN_INTEREST_SPAN_MS, SURVEY_MAX_AGE_MS)
        ratio = self._known("long_short", close_ms, SURVEY_MAX_AGE_MS)
        return (
            self._known("funding", close_ms, FUNDING_MAX_AGE_MS),
            float(np.log(now / day_ago)) if now > 0 and day_ago > 0 else NAN,
            float(np.log(ratio)) if ratio > 0 else NAN,
        )

    def _known(self, series: str, moment: int, max_age_ms: int) -> float:
        """Return the last value strictly before a moment, NaN if none or too old."""
        moments, values = self._series[series]
        place = bisect_left(moments, moment) - 1
        return values[place] if place >= 0 and moment - moments[place] <= max_age_ms else NAN

    def _check(self, bar: StreamBar) -> None:
        self._check_ts(bar.ts)
        prices = bar.high, bar.low, bar.close
        if not (min(prices) > 0 and math.isfinite(sum(prices) + bar.volume)):
            raise _bad(f"bar {bar} of {self.symbol} has a value that is no price or volume")

    def _check_ts(self, ts: int) -> None:
        if self._ts is not None and ts <= self._ts:
            raise _bad(f"bar ts = {ts} of {self.symbol} is not newer than {self._ts}")
        if ts % self._step:
            raise _bad(f"bar ts = {ts} of {self.symbol} is not on the {self._step} ms grid")


def _bad(detail: str, hint: str = "Give closed bars once each, the oldest first") -> TradewindError:
    return TradewindError(ErrorCode.BAD_INPUT, detail, hint)
