"""Intervals by circular block bootstrap over time.

Rows of one moment are drawn together, in blocks of at least a day and a label's horizon:
neither overlapping labels nor symbols that move together make an interval too narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tradewind.models import metrics as m
from tradewind.models.base import FloatArray, IntArray
from tradewind.settings import MS_PER_DAY

DAYS_A_YEAR = 365
BLOCK_DAYS = 7
"""Days of a strategy's returns that are drawn together."""


@dataclass(frozen=True)
class Interval:
    """A point estimate with its interval."""

    value: float
    low: float
    high: float

    def named(self, name: str) -> dict[str, float]:
        """Return ``{name, name_low, name_high}``, the form of every report."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


class TimeBootstrap:
    """Resamples of rows by blocks of time, shared by all statistics of the same rows.

    Parameters
    ----------
    ts
        Times of the rows in epoch ms, any order, repeats allowed, shape (n,).
    samples
        Resamples, B.
    level
        Two-sided confidence level.
    block_ms
        Least length of a block, usually the label's horizon; never under a day. Where the
        span holds fewer than two such blocks, half of the span is a block.
    seed
        The same rows and seed give the same interval.
    """

    def __init__(
        self,
        ts: IntArray,
        *,
        samples: int,
        level: float = 0.95,
        block_ms: int = MS_PER_DAY,
        seed: int = 0,
    ) -> None:
        moments, self._moment = np.unique(ts, return_inverse=True)
        self._level = level
        self._moments = len(moments)
        step = float(np.median(np.diff(moments))) if len(moments) > 1 else 1.0
        wanted = int(np.ceil(max(block_ms, MS_PER_DAY) / step))
        self._length = max(1, min(wanted, self._moments // 2))
        blocks = -(-self._moments // self._length)
        rng = np.random.default_rng(seed)
        self._starts = rng.integers(0, self._moments, (samples, blocks))

    def mean(self, values: FloatArray) -> Interval:
        """Return the mean of ``values`` (n,)."""
        sums = self._sums(np.column_stack([values, np.ones(len(values))]))
        return self._interval(float(np.mean(values)), sums[:, 0] / sums[:, 1])

    def paired(self, loss_a: FloatArray, loss_b: FloatArray) -> Interval:
        """Return the mean of ``loss_a − loss_b`` on the same rows: negative, a is better."""
        return self.mean(np.asarray(loss_a) - np.asarray(loss_b))

    def auc(self, p: FloatArray, y: FloatArray) -> Interval:
        """Return the area under the ROC curve; 0.5 in a resample with a single class."""
        order = np.argsort(p, kind="stable")
        first = np.flatnonzero(np.concatenate([[True], np.diff(p[order]) > 0]))
        moment, up = self._moment[order], y[order]
        draws = np.full(len(self._starts), 0.5)
        for number, starts in enumerate(self._starts):
            weight = self._times_drawn(starts)[moment]
            ups = np.add.reduceat(weight * up, first)
            downs = np.add.reduceat(weight * (1 - up), first)
            pairs = ups.sum() * downs.sum()
            if pairs > 0:
                draws[number] = ups @ (np.cumsum(downs) - downs / 2) / pairs
        return self._interval(m.auc(p, y), draws)

    def ece(self, p: FloatArray, y: FloatArray, bins: int) -> Interval:
        """Return the calibration error over the bins of the rows themselves.

        A resample's error is biased upwards by its own noise, so the interval is moved by
        the difference between the estimate and the resamples' median.
        """
        gaps = np.zeros((len(p), bins))
        for number, part in enumerate(m.equal_mass_bins(p, bins)):
            gaps[part, number] = p[part] - y[part]
        sums = self._sums(np.column_stack([gaps, np.ones(len(p))]))
        draws = np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]
        value = m.ece(p, y, bins)
        return self._interval(value, np.maximum(0, draws + value - np.median(draws)))

    def rank_correlation(self, a: FloatArray, b: FloatArray) -> Interval:
        """Return Spearman's correlation of ``a`` and ``b``; 0 where one is constant."""
        from scipy.stats import rankdata

        x, z = (rankdata(values) / len(values) - 0.5 for values in (a, b))
        terms = np.column_stack([x, z, x * x, z * z, x * z, np.ones(len(x))])
        draws = _correlation(self._sums(terms))
        return self._interval(float(_correlation(terms.sum(axis=0)[None])[0]), draws)

    def risk_coverage_area(self, uncertainty: FloatArray, error: FloatArray) -> Interval:
        """Return the mean error over all coverages, the most certain rows kept first."""
        order = np.argsort(uncertainty, kind="stable")
        moment, sorted_error = self._moment[order], error[order]

        def area(weight: FloatArray) -> float:
            kept = np.cumsum(weight)
            risk = np.cumsum(weight * sorted_error) / np.maximum(kept, 1)
            return float((weight * risk).sum() / kept[-1])

        draws = np.array([area(self._times_drawn(starts)[moment]) for starts in self._starts])
        return self._interval(area(np.ones(len(order))), draws)

    def _sums(self, values: FloatArray) -> FloatArray:
        """Return the column sums of ``values`` (n, k) in each resample, shape (B, k)."""
        at = np.zeros((self._moments, values.shape[1]))
        np.add.at(at, self._moment, values)
        around = np.concatenate([np.zeros((1, at.shape[1])), np.cumsum(np.vstack([at, at]), 0)])
        sums: FloatArray = (around[self._starts + self._length] - around[self._starts]).sum(axis=1)
        return sums

    def _times_drawn(self, starts: IntArray) -> FloatArray:
        """Return how often each moment is in one resample, shape (T,)."""
        change = np.zeros(2 * self._moments + 1)
        np.add.at(change, starts, 1)
        np.add.at(change, starts + self._length, -1)
        drawn = np.cumsum(change)[:-1]
        times: FloatArray = drawn[: self._moments] + drawn[self._moments :]
        return times

    def _interval(self, value: float, draws: FloatArray) -> Interval:
        tail = (1 - self._level) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        return Interval(value, float(low), float(high))


class DayBootstrap:
    """Circular block resamples of a strategy's daily returns.

    Parameters
    ----------
    daily
        Returns a day, in time order, shape (T,), T ≥ 1.
    samples, level, seed
        As `TimeBootstrap`.
    block_days
        Days drawn together, so that calm and wild weeks stay whole; at most half of T.
    """

    def __init__(
        self,
        daily: FloatArray,
        *,
        samples: int,
        level: float = 0.95,
        block_days: int = BLOCK_DAYS,
        seed: int = 0,
    ) -> None:
        days = len(daily)
        length = max(1, min(block_days, days // 2))
        starts = np.random.default_rng(seed).integers(0, days, (samples, -(-days // length)))
        index = (starts[:, :, None] + np.arange(length)).reshape(samples, -1)[:, :days] % days
        self._level = level
        self._own, self._drawn = daily[None], daily[index]

    def sharpe(self) -> Interval:
        """Return the annual Sharpe ratio; 0 where returns do not vary."""
        return self._of(_annual_sharpe)

    def max_drawdown(self) -> Interval:
        """Return the deepest fall of compounded equity below its peak, as a share."""
        return self._of(_deepest_fall)

    def net_return(self) -> Interval:
        """Return the compounded return of the whole span."""
        return self._of(lambda daily: np.prod(1 + daily, axis=1) - 1)

    def _of(self, statistic: Callable[[FloatArray], FloatArray]) -> Interval:
        tail = (1 - self._level) / 2
        low, high = np.quantile(statistic(self._drawn), [tail, 1 - tail])
        return Interval(float(statistic(self._own)[0]), float(low), float(high))


def _annual_sharpe(daily: FloatArray) -> FloatArray:
    mean, spread = daily.mean(axis=1), daily.std(axis=1)
    ratio: FloatArray = np.zeros_like(mean)
    np.divide(mean * np.sqrt(DAYS_A_YEAR), spread, out=ratio, where=spread > 0)
    return ratio


def _deepest_fall(daily: FloatArray) -> FloatArray:
    equity = np.cumprod(1 + daily, axis=1)
    peak = np.maximum(np.maximum.accumulate(equity, axis=1), 1)
    fall: FloatArray = ((peak - equity) / peak).max(axis=1)
    return fall


def interval(
    values: FloatArray,
    ts: IntArray,
    *,
    samples: int,
    level: float = 0.95,
    block_ms: int = MS_PER_DAY,
    seed: int = 0,
) -> Interval:
    """Return the mean of ``values`` (n,) with its interval; see `TimeBootstrap`."""
    drawn = TimeBootstrap(ts, samples=samples, level=level, block_ms=block_ms, seed=seed)
    return drawn.mean(values)


def _correlation(sums: FloatArray) -> FloatArray:
    """Return correlations from rows of (Σx, Σz, Σx², Σz², Σxz, n); 0 without variance."""
    x, z, xx, zz, xz, n = sums.T
    spread = (xx - x * x / n) * (zz - z * z / n)
    found: FloatArray = np.divide(
        xz - x * z / n, np.sqrt(np.maximum(spread, 0)), out=np.zeros(len(n)), where=spread > 1e-12
    )
    return found
