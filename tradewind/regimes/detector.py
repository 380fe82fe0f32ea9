"""The detector: metrics of one timeframe in, a regime for every bar out.

It restarts at fixed points of absolute time, each time ``memory`` bars before that point. So
what hysteresis remembers has a bound, and a bar's regime is the same from years of bars or
from the last few thousand.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tradewind.regimes.kinds import METRICS, Regime, RegimeReading
from tradewind.settings import RegimeThresholds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
CodeArray = NDArray[np.int8]
BoolArray = NDArray[np.bool_]
REGIMES: tuple[Regime, ...] = tuple(Regime)
"""A code is a place in this tuple."""

CODE: Mapping[Regime, int] = {regime: place for place, regime in enumerate(REGIMES)}
FULL_ADX = 50.0
"""ADX of an unmistakable trend: full confidence."""

FULL_DI = 25.0
"""Difference of the DI, in points, of an unmistakable trend."""


@dataclass(frozen=True, eq=False)
class RegimeSeries:
    """Regimes of one timeframe, one value a row, arrays of shape (n,)."""

    timeframe: str
    codes: CodeArray
    confidence: FloatArray
    metrics: dict[str, FloatArray]

    def reading(self, row: int) -> RegimeReading:
        """Return what is said of one row."""
        return RegimeReading(
            timeframe=self.timeframe,
            regime=REGIMES[int(self.codes[row])],
            confidence=float(self.confidence[row]),
            metrics={name: float(values[row]) for name, values in self.metrics.items()},
        )

    def take(self, rows: IntArray) -> RegimeSeries:
        """Return the given rows; UNKNOWN without metrics where the row is −1."""
        lost = rows < 0
        codes = np.where(lost, CODE[Regime.UNKNOWN], _picked(self.codes, rows)).astype(np.int8)
        return RegimeSeries(
            self.timeframe,
            codes,
            np.where(lost, 0.0, _picked(self.confidence, rows)),
            {n: np.where(lost, np.nan, _picked(v, rows)) for n, v in self.metrics.items()},
        )


def detect(
    timeframe: str,
    place: IntArray,
    metrics: Mapping[str, FloatArray],
    thresholds: RegimeThresholds,
    *,
    confirm_bars: int,
    memory_bars: int,
    anchor_bars: int,
) -> RegimeSeries:
    """Return the regime of every row.

    Parameters
    ----------
    timeframe
        Name of the timeframe that the rows are bars of.
    place
        Number of each bar in absolute time (open time / bar length), rising by one a row.
    metrics
        Every name of `METRICS`, shape (n,); NaN says that there were too few bars.
    confirm_bars
        Bars in a row that another regime must last before it is believed.
    memory_bars
        Bars that the detector looks back to know what it said before.
    anchor_bars
        It restarts at multiples of this many bars.

    Returns
    -------
    RegimeSeries
        UNKNOWN with confidence 0 where a metric is NaN.
    """
    raw, codes = np.empty(len(place), dtype=np.int8), np.empty(len(place), dtype=np.int8)
    share = np.empty(len(place))
    shape, decided, undecided = _shapes(metrics, thresholds)
    edges = (np.flatnonzero(np.diff(place // anchor_bars)) + 1).tolist()
    for first, end in itertools.pairwise([0, *edges, len(place)]):
        start = max(0, first - memory_bars)
        if start == end:
            continue
        part = slice(start, end)
        trend = _trend_direction(metrics["alignment"][part], decided[part], undecided[part])
        found = _with_trend(shape[part], trend)
        settled, rival = _confirmed(found, confirm_bars)
        raw[first:end] = found[first - start :]
        codes[first:end] = settled[first - start :]
        share[first:end] = rival[first - start :]
    # Half for a regime that the newest bar supports, up to 1 for one that it leaves no doubt
    # of; below a half while another regime is about to take over.
    agreed = 0.5 + 0.5 * _strength(raw, metrics, thresholds)
    confidence = np.where(raw == codes, agreed, 0.5 * (1 - share))
    confidence = np.where(codes == CODE[Regime.UNKNOWN], 0.0, confidence)
    return RegimeSeries(timeframe, codes, confidence, {n: metrics[n] for n in METRICS})


def _shapes(
    m: Mapping[str, FloatArray], limits: RegimeThresholds
) -> tuple[CodeArray, FloatArray, BoolArray]:
    """Return what each bar looks like by itself, were it no trend; then of the trend:

    its direction (0: a range), and whether the ADX is between its limits, undecided.
    """
    breakout = (m["range_ratio"] > limits.breakout_range_ratio) & (
        np.abs(m["momentum"]) > limits.breakout_momentum
    )
    dry = (m["volume_ratio"] < limits.illiquid_volume_ratio) | (
        m["liquidity_ratio"] < limits.illiquid_liquidity_ratio
    )
    unknown = ~np.all([np.isfinite(m[name]) for name in METRICS], axis=0)
    # The first that holds; see docs/regimes.md for why in this order.
    order = (
        (unknown, Regime.UNKNOWN),
        (dry, Regime.ILLIQUID),
        (breakout, Regime.BREAKOUT),
        (m["risk_atr_pct"] > limits.high_volatility, Regime.HIGH_VOLATILITY),
        (m["atr_ratio"] > limits.atr_ratio_high, Regime.RANGE_HIGH_VOL),
    )
    shape = np.select(
        [condition for condition, _ in order],
        [CODE[regime] for _, regime in order],
        CODE[Regime.RANGE_LOW_VOL],
    ).astype(np.int8)
    adx, aligned = m["adx"], m["alignment"] != 0
    undecided = aligned & (adx >= limits.adx_range) & (adx <= limits.adx_trend)
    return shape, np.where(aligned & (adx > limits.adx_trend), m["alignment"], 0.0), undecided


def _trend_direction(
    alignment: FloatArray, decided: FloatArray, undecided: BoolArray
) -> FloatArray:
    """Return +1, −1 or 0 (range); between the two ADX limits what was decided last stays."""
    last = _last_flagged(~undecided)
    before = np.where(last >= 0, decided[np.maximum(last, 0)], 0.0)
    return np.where(undecided, np.where(before == alignment, before, 0.0), decided)


def _with_trend(shape: CodeArray, trend: FloatArray) -> CodeArray:
    """Return the regime: a trend comes before the shapes of a market without one."""
    first = CODE[Regime.HIGH_VOLATILITY], CODE[Regime.RANGE_HIGH_VOL], CODE[Regime.RANGE_LOW_VOL]
    free = (shape == first[0]) | (shape == first[1]) | (shape == first[2])
    named = np.where(trend > 0, CODE[Regime.TREND_UP], CODE[Regime.TREND_DOWN])
    return np.where(free & (trend != 0), named, shape).astype(np.int8)


def _confirmed(raw: CodeArray, confirm_bars: int) -> tuple[CodeArray, FloatArray]:
    """Return the regime that lasted ``confirm_bars`` last, and how far its rival has come.

    UNKNOWN is believed at once, and so is what comes after it.
    """
    rows = np.arange(len(raw))
    begins = np.concatenate([[True], raw[1:] != raw[:-1]])
    begin = np.maximum.accumulate(np.where(begins, rows, 0))
    run = rows - begin + 1
    unknown = raw == CODE[Regime.UNKNOWN]
    after_unknown = (begin > 0) & unknown[np.maximum(begin - 1, 0)]
    believed = (run >= confirm_bars) | unknown | after_unknown | (begin == 0)
    settled = raw[_last_flagged(believed)]
    return settled, np.minimum(run / confirm_bars, 1.0)


def _strength(raw: CodeArray, m: Mapping[str, FloatArray], limits: RegimeThresholds) -> FloatArray:
    """Return 0..1: how far beyond its threshold the metric is that decides."""
    down = raw == CODE[Regime.TREND_DOWN]
    agreeing_di = np.where(down, -m["di_diff"], m["di_diff"]) / FULL_DI
    trend = (_beyond(m["adx"], limits.adx_trend, FULL_ADX) + _unit(agreeing_di)) / 2
    calm = _beyond(-m["adx"], -limits.adx_range, 0.0)
    far = {
        Regime.TREND_UP: trend,
        Regime.TREND_DOWN: trend,
        Regime.RANGE_LOW_VOL: calm,
        Regime.RANGE_HIGH_VOL: calm,
        Regime.BREAKOUT: _over(m["range_ratio"], limits.breakout_range_ratio),
        Regime.HIGH_VOLATILITY: _over(m["risk_atr_pct"], limits.high_volatility),
        Regime.ILLIQUID: np.maximum(
            _unit(1 - m["volume_ratio"] / limits.illiquid_volume_ratio),
            _unit(1 - m["liquidity_ratio"] / limits.illiquid_liquidity_ratio),
        ),
    }
    found = np.zeros(len(raw))
    for regime, strength in far.items():
        found = np.where(raw == CODE[regime], strength, found)
    return found


def _beyond(x: FloatArray, limit: float, full: float) -> FloatArray:
    return _unit((x - limit) / max(full - limit, 1e-12))


def _over(x: FloatArray, limit: float) -> FloatArray:
    """Return 0 at the limit, 1 at twice the limit."""
    return _unit(x / limit - 1)


def _unit(x: FloatArray) -> FloatArray:
    clipped: FloatArray = np.clip(np.nan_to_num(x, nan=0.0), 0.0, 1.0)
    return clipped


def _last_flagged(flags: BoolArray) -> IntArray:
    """Return for each row the newest flagged row at or before it, −1 where there is none."""
    rows = np.arange(len(flags), dtype=np.int64)
    last: IntArray = np.maximum.accumulate(np.where(flags, rows, -1))
    return last


def _picked(values: NDArray[np.generic], rows: IntArray) -> NDArray[np.generic]:
    if not len(values):
        return np.zeros(len(rows), dtype=values.dtype)
    return values[np.maximum(rows, 0)]
