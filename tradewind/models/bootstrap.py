"""Intervals by block bootstrap over time.

Rows of the same time are resampled together, in blocks longer than a label's overlap, so
that neither overlapping labels nor symbols that move together make an interval too narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tradewind.models.base import FloatArray, IntArray
from tradewind.settings import MS_PER_DAY

Statistic = Callable[[IntArray], float]


@dataclass(frozen=True)
class Interval:
    """A point estimate with a percentile interval."""

    value: float
    low: float
    high: float


def interval(
    statistic: Statistic,
    ts: IntArray,
    *,
    samples: int,
    level: float = 0.95,
    block_ms: int = MS_PER_DAY,
    seed: int = 0,
) -> Interval:
    """Return ``statistic`` of all rows, with its bootstrap interval.

    Parameters
    ----------
    statistic
        Function of row positions, shape (m,); positions repeat in a resample.
    ts
        Times of the rows, shape (n,), epoch ms.
    samples
        Number of resamples.
    level
        Two-sided confidence level.
    block_ms
        Length of a block; at least the label's horizon, by default a day.
    """
    blocks = _blocks(ts, block_ms)
    rng = np.random.default_rng(seed)
    values = np.array(
        [
            statistic(
                np.concatenate([blocks[i] for i in rng.integers(0, len(blocks), len(blocks))])
            )
            for _ in range(samples)
        ]
    )
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(statistic(np.arange(len(ts)))), float(low), float(high))


def mean_interval(
    values: FloatArray,
    ts: IntArray,
    *,
    samples: int,
    level: float = 0.95,
    block_ms: int = MS_PER_DAY,
    seed: int = 0,
) -> Interval:
    """Return the mean of ``values`` (n,) with its interval; sums per block make it quick."""
    blocks = _blocks(ts, block_ms)
    sums = np.array([values[block].sum() for block in blocks])
    sizes = np.array([len(block) for block in blocks])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(blocks), (samples, len(blocks)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def _blocks(ts: IntArray, block_ms: int) -> list[IntArray]:
    order = np.argsort(ts, kind="stable")
    number = (ts[order] - ts.min()) // block_ms
    cuts = np.flatnonzero(np.diff(number)) + 1
    return [part.astype(np.int64) for part in np.split(order, cuts)]
