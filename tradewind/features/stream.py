"""Features one bar at a time: what `compute_features` says, to 1e-9, in microseconds.

For whoever sees every bar pass, such as a replay or a loop over hundreds of symbols. Serving
slices blocks of `compute_features` instead, whose values agree between processes to the bit.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features._cross import (
    FUNDING_MAX_AGE_MS,
    OPEN_INTEREST_SPAN_MS,
    SURVEY_MAX_AGE_MS,
    references,
)
from tradewind.features._stream_state import NAN, Extremes, Lagged, Moments, Recursions
from tradewind.features.definitions import BAND_WIDTH, FAST, LONG, PERIOD, longest_window
from tradewind.settings import MS_PER_DAY, Settings

COMPANION_COLUMNS = {
    "funding": "funding_rate",
    "open_interest": "open_interest",
    "long_short": "long_short_ratio",
}
KEPT_VALUES = 4096
"""Values of a companion series in memory: beyond twice that, the oldest are forgotten."""


class StreamBar(NamedTuple):
    """One closed bar; ``ts`` is its open."""

    ts: int
    high: float
    low: float
    close: float
    volume: float


class StreamRow(NamedTuple):
    """Features of one bar: ``wide`` as `definitions.WIDE`, shape (F,), NaN where not known.

    ``warm`` as in `compute_features`; before it, indicators still remember where they began.
    """

    ts: int
    wide: NDArray[np.float64]
    atr: float
    history: int
    warm: bool


class FeatureStream:
    """Features of one symbol, brought up to date bar by bar.

    Parameters
    ----------
    settings
        As of `compute_features`.
    symbol
        Whose features.
    """

    def __init__(self, settings: Settings, symbol: str) -> None:
        self.symbol = symbol
        self._references = references(settings)
        self._step = settings.market.timeframe_ms
        self._warmup = settings.features.warmup_bars
        self._longest_ms = (settings.features.max_gap_bars + 1) * self._step
        self._ratio_window = settings.features.ratio_window
        self._reach = longest_window(settings)
        self._lead = 1 if symbol == self._references[0] else 0
        self._series: dict[str, tuple[list[int], list[float]]] = {
            name: ([], []) for name in COMPANION_COLUMNS
        }
        self._ts: int | None = None
        self._own_ts: int | None = None
        self._clear_windows()
        self._recursions = Recursions()

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
        """
        stream = cls(settings, symbol)
        for name, rows in companions.items():
            column = COMPANION_COLUMNS[name]
            for ts, value in rows.select("ts", column).drop_nulls().sort("ts").iter_rows():
                stream.add(name, ts, value)
        closes = {
            name: dict(bars[name].select("ts", "close").iter_rows())
            for name in stream._references
            if name in bars
        }
        given = bars[symbol].select(StreamBar._fields).iter_rows()
        own = {bar.ts: bar for bar in map(StreamBar._make, given)}
        for ts in range(min(own, default=0), max(own, default=-1) + 1, stream._step):
            known = {name: of.get(ts, NAN) for name, of in closes.items()}
            if ts in own:
                stream.update(own[ts], known)
            else:
                stream.skip(ts, known)
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
        if self._ts is None or bar.ts - self._ts != self._step:
            self._advance(bar.ts)
        if self._own_ts is not None and bar.ts - self._own_ts > self._longest_ms:
            self._recursions = Recursions()
        self._ts = self._own_ts = bar.ts
        at = self._recursions
        at.push(bar.high, bar.low, bar.close)
        close = bar.close
        of = [close if name == self.symbol else closes.get(name, NAN) for name in self._references]
        w = self._windows(bar.high, bar.low, close, bar.volume, of)
        angle = 2 * math.pi * (bar.ts % MS_PER_DAY) / MS_PER_DAY
        known = (
            *(w.ret_1, math.log(close / at.ema_fast), math.log(close / at.ema_middle)),
            *(math.log(close / at.ema_slow), w.z, w.range_, w.vol, w.ratio_1, w.ratio_2, w.lead),
            *(at.rsi, at.atr / close, at.adx / 100, at.di_diff, at.macd_hist / close),
            *(w.bb_pctb, w.bb_width, w.stoch_k, w.volume_ratio, w.ret_4, w.ret_16, w.ret_96),
            *(w.vol_ratio, math.sin(angle), math.cos(angle)),
        )
        history = at.bars - 1
        # A sum is finite if and only if every part is.
        warm = history >= self._warmup and math.isfinite(sum(known)) and w.vol > 0
        wide = np.array((*known, *self._companions(bar.ts + self._step)))
        return StreamRow(bar.ts, wide, at.atr, history, warm)

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
        self._windows(NAN, NAN, NAN, NAN, of)
        self._ts = ts

    def _advance(self, ts: int) -> None:
        """Let the bars before ``ts`` that nobody told of pass."""
        missing = 0 if self._ts is None else (ts - self._ts) // self._step - 1
        if missing > self._reach:
            self._clear_windows()
            return
        for _ in range(missing):
            self._windows(NAN, NAN, NAN, NAN, (NAN, NAN, NAN))

    def _clear_windows(self) -> None:
        self._back_1, self._back_4 = Lagged(1), Lagged(4)
        self._back_16, self._back_96 = Lagged(16), Lagged(LONG)
        self._lead_close, self._lead_ret = Lagged(1), Lagged(1)
        self._log_close, self._close = Moments(FAST, ddof=1), Moments(FAST, ddof=0)
        self._vol, self._vol_long = Moments(FAST, ddof=1), Moments(LONG, ddof=1)
        self._volume = Moments(FAST, ddof=0)
        self._ratio_1 = Moments(self._ratio_window, ddof=1)
        self._ratio_2 = Moments(self._ratio_window, ddof=1)
        self._span = Extremes(PERIOD)

    def _windows(
        self,
        high: float,
        low: float,
        close: float,
        volume: float,
        of: Sequence[float],
    ) -> _Windows:
        log_close = math.log(close)
        ret = log_close - self._back_1.push(log_close)
        log_mean, log_std = self._log_close.push(log_close)
        mean, std = self._close.push(close)
        vol, vol_long = self._vol.push(ret)[1], self._vol_long.push(ret)[1]
        least, greatest = self._span.push(low, high)
        usual = self._volume.push(volume)[0]
        logs = [math.log(value) for value in of]
        ratio_1, ratio_2 = logs[0] - logs[1], logs[1] - logs[2]
        mean_1, std_1 = self._ratio_1.push(ratio_1)
        mean_2, std_2 = self._ratio_2.push(ratio_2)
        lead = logs[self._lead]
        band = 2 * BAND_WIDTH * std
        return _Windows(
            ret,
            log_close - self._back_4.push(log_close),
            log_close - self._back_16.push(log_close),
            log_close - self._back_96.push(log_close),
            _ratio(log_close - log_mean, log_std, 0.0),
            (high - low) / close,
            vol,
            _ratio(vol, vol_long, 1.0),
            _ratio(close - mean + band / 2, band, 0.5),
            band / mean,
            _ratio(close - least, greatest - least, 0.5),
            _ratio(volume, usual, 0.0),
            _ratio(ratio_1 - mean_1, std_1, 0.0),
            _ratio(ratio_2 - mean_2, std_2, 0.0),
            self._lead_ret.push(lead - self._lead_close.push(lead)),
        )

    def _companions(self, close_ms: int) -> tuple[float, float, float]:
        now = self._known("open_interest", close_ms, SURVEY_MAX_AGE_MS)
        day_ago = self._known("open_interest", close_ms - OPEN_INTEREST_SPAN_MS, SURVEY_MAX_AGE_MS)
        ratio = self._known("long_short", close_ms, SURVEY_MAX_AGE_MS)
        return (
            self._known("funding", close_ms, FUNDING_MAX_AGE_MS),
            math.log(now / day_ago) if now > 0 and day_ago > 0 else NAN,
            math.log(ratio) if ratio > 0 else NAN,
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


class _Windows(NamedTuple):
    ret_1: float
    ret_4: float
    ret_16: float
    ret_96: float
    z: float
    range_: float
    vol: float
    vol_ratio: float
    bb_pctb: float
    bb_width: float
    stoch_k: float
    volume_ratio: float
    ratio_1: float
    ratio_2: float
    lead: float


def _ratio(numerator: float, denominator: float, if_zero: float) -> float:
    return numerator / denominator if denominator else if_zero


def _bad(detail: str, hint: str = "Give closed bars once each, the oldest first") -> TradewindError:
    return TradewindError(ErrorCode.BAD_INPUT, detail, hint)
