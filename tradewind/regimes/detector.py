"""The detector: metrics of one timeframe in, a regime for every bar out.

It restarts at fixed points of absolute time, each time ``memory`` bars before that point. So
what hysteresis remembers has a bound, and a bar's regime is the same from years of bars or
from the last few thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tradewind.regimes.kinds import METRICS, Regime, RegimeReading
from tradewind.settings import RegimeThresholds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
CodeArray = NDArray[np.int8]
BoolArray = NDArray[np.bool_]
Number = TypeVar("Number", np.int8, np.float64)
REGIMES: tuple[Regime, ...] = tuple(Regime)
"""A code is a place in this tuple."""

CODE: Mapping[Regime, int] = {regime: place for place, regime in enumerate(REGIMES)}
WITHOUT_TREND = np.array(
    [CODE[Regime.HIGH_VOLATILITY], CODE[Regime.RANGE_HIGH_VOL], CODE[Regime.RANGE_LOW_VOL]],
    dtype=np.int8,
)
"""Shapes of a market without a trend: a trend comes before them."""

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
        return RegimeSeries(
            self.timeframe,
            _picked(self.codes, rows, CODE[Regime.UNKNOWN]),
            _picked(self.confidence, rows, 0.0),
            {name: _picked(values, rows, np.nan) for name, values in self.metrics.items()},
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
    from tradewind.regimes import _kernel

    count = len(place)
    raw, codes, share = np.empty(count, np.int8), np.empty(count, np.int8), np.empty(count)
    shape, decided, undecided = _shapes(metrics, thresholds)
    _kernel.settle(
        shape,
        np.isin(shape, WITHOUT_TREND),
        decided,
        undecided,
        metrics["alignment"],
        (CODE[Regime.TREND_UP], CODE[Regime.TREND_DOWN], CODE[Regime.UNKNOWN]),
        int(place[0]) if count else 0,
        anchor_bars,
        memory_bars,
        confirm_bars,
        raw,
        codes,
        share,
    )
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


def _picked(values: NDArray[Number], rows: IntArray, lost: float) -> NDArray[Number]:
    """Return ``values[rows]``, ``lost`` where the row is −1: the last of what is picked from."""
    return np.append(values, np.array(lost, values.dtype))[rows]
