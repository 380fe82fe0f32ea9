"""How much of a backtest is luck: the Sharpe ratio deflated, and overfitting by selection.

Bailey and López de Prado, "The Deflated Sharpe Ratio" (2014); Bailey, Borwein, López de Prado
and Zhu, "The Probability of Backtest Overfitting" (2017). Ratios here are of one period (a
day), not annual.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import FloatArray

EULER_GAMMA = 0.5772156649015329
MIN_DAYS = 3
CHUNK = 2048
"""Combinations whose ratios are held in memory at a time."""


def sharpe_ratios(daily: FloatArray) -> FloatArray:
    """Return the Sharpe ratio a day of each column of ``daily`` (T, N); 0 without variation."""
    mean, spread = daily.mean(axis=0), daily.std(axis=0)
    ratios: FloatArray = np.divide(mean, spread, out=np.zeros_like(mean), where=spread > 0)
    return ratios


def expected_maximum_sharpe(spread: float, trials: int) -> float:
    """Return the greatest ratio to be expected of ``trials`` worthless strategies.

    Parameters
    ----------
    spread
        Standard deviation of the Sharpe ratios over the trials.
    trials
        Independent strategies tried; 0 is returned for fewer than two.
    """
    from scipy.stats import norm

    if trials < 2:
        return 0.0
    greatest = (1 - EULER_GAMMA) * norm.ppf(1 - 1 / trials)
    greatest += EULER_GAMMA * norm.ppf(1 - 1 / (trials * np.e))
    return float(greatest) * spread


def deflated_sharpe(daily: FloatArray, trials: int, *, spread: float | None = None) -> float:
    """Return the probability that the true Sharpe ratio beats the best of ``trials`` by luck.

    Parameters
    ----------
    daily
        Returns a day, shape (T,).
    trials
        Strategies tried, this one included. One: the probability of any skill.
    spread
        Standard deviation of the trials' ratios; None: that of worthless ones, 1/√(T − 1).

    Returns
    -------
    float
        0 for fewer than three days or returns that do not vary.
    """
    from scipy.stats import kurtosis, skew

    days, deviation = len(daily), float(daily.std())
    if days < MIN_DAYS or deviation <= 0:
        return 0.0
    ratio = float(daily.mean()) / deviation
    luck = expected_maximum_sharpe(1 / np.sqrt(days - 1) if spread is None else spread, trials)
    return probabilistic_sharpe(
        ratio,
        luck,
        days=days,
        skewness=float(skew(daily)),
        kurtosis=float(kurtosis(daily, fisher=False)),
    )


def probabilistic_sharpe(
    ratio: float, benchmark: float, *, days: int, skewness: float, kurtosis: float
) -> float:
    """Return the probability that the true Sharpe ratio exceeds ``benchmark``.

    Parameters
    ----------
    ratio, benchmark
        Observed and compared ratio, both of one day.
    days
        Returns observed.
    skewness, kurtosis
        Of the returns; 0 and 3 where they are normal.
    """
    from scipy.stats import norm

    shape = max(1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2, 1e-9)
    return float(norm.cdf((ratio - benchmark) * np.sqrt((days - 1) / shape)))


@dataclass(frozen=True)
class Overfitting:
    """What combinatorially symmetric cross-validation found.

    Parameters
    ----------
    probability
        Share of the splits in which the strategy that was best in one half of the time is
        below the median in the other (PBO); one half for strategies without skill.
    loss_probability
        Share of the splits in which that strategy loses money in the other half.
    slope
        Of its ratio in the other half on its ratio in the first, over the splits.
    splits, strategies, days
        What it was computed from.
    """

    probability: float
    loss_probability: float
    slope: float
    splits: int
    strategies: int
    days: int


def overfitting(daily: FloatArray, *, blocks: int = 16) -> Overfitting:
    """Return the probability of backtest overfitting of choosing the best of N strategies.

    Time is cut into ``blocks`` equal parts; every choice of half of them is a training set
    once, the other half its test. Strategies are compared by Sharpe ratio.

    Parameters
    ----------
    daily
        Returns a day of each strategy, shape (T, N), N ≥ 2; days beyond a multiple of
        ``blocks`` are left out at the start.
    blocks
        Even.

    Raises
    ------
    TradewindError
        ``bad_input`` for an odd number of blocks, too few strategies or days.
    """
    from scipy.stats import rankdata

    days, strategies = daily.shape
    length = days // blocks
    if blocks % 2 or strategies < 2 or length < 2:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"{days} days of {strategies} strategies in {blocks} blocks cannot be compared",
            "Give an even number of blocks, two strategies and two days a block at least",
        )
    cut = daily[days - length * blocks :].reshape(blocks, length, strategies)
    sums, squares = cut.sum(axis=1), (cut**2).sum(axis=1)
    halves = np.array(list(itertools.combinations(range(blocks), blocks // 2)))
    rows = length * blocks // 2
    inside, outside, below = [], [], []
    for start in range(0, len(halves), CHUNK):
        chosen = np.zeros((len(halves[start : start + CHUNK]), blocks))
        np.put_along_axis(chosen, halves[start : start + CHUNK], 1, axis=1)
        train = _ratios(chosen @ sums, chosen @ squares, rows)
        test = _ratios((1 - chosen) @ sums, (1 - chosen) @ squares, rows)
        best = train.argmax(axis=1)[:, None]
        rank = np.take_along_axis(rankdata(test, axis=1), best, axis=1)[:, 0]
        below.append(rank / (strategies + 1) <= 0.5)
        inside.append(np.take_along_axis(train, best, axis=1)[:, 0])
        outside.append(np.take_along_axis(test, best, axis=1)[:, 0])
    x, z = np.concatenate(inside), np.concatenate(outside)
    spread = float(x.var())
    return Overfitting(
        probability=float(np.concatenate(below).mean()),
        loss_probability=float((z < 0).mean()),
        slope=float(((x - x.mean()) * (z - z.mean())).mean() / spread) if spread > 0 else 0.0,
        splits=len(halves),
        strategies=strategies,
        days=length * blocks,
    )


def _ratios(sums: FloatArray, squares: FloatArray, rows: int) -> FloatArray:
    mean = sums / rows
    spread = np.sqrt(np.maximum(squares / rows - mean**2, 0))
    # Below this, a variance is what rounding left of nothing.
    ratios: FloatArray = np.divide(mean, spread, out=np.zeros_like(mean), where=spread > 1e-12)
    return ratios
