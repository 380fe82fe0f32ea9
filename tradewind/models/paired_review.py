"""The paired review of a challenger: is it better than the champion on bars new to both?

Both answer the same rows. The difference of their log-losses is averaged over blocks of whole
days: a block holds the rows of every symbol whose label ends within it, so no bar counts in two
blocks, and symbols that move together count as one fact a day. The mean is tested by its spread
over blocks with Student's t, once for "better" and once for "worse"; a percentile bootstrap of a
few weeks' blocks would promote equals too often (`benchmarks/promotion_rates.py` measures both).

A challenger is looked at again once there are twice as many days, and each look has an equal
share of the level: however equals fare, the chance that one of the looks calls the challenger
better stays below the level. Looks at every week would learn little from each other's data and
leave the late ones, which know most, too small a share to find anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models import metrics as m
from tradewind.models.base import BoolArray, FloatArray, IntArray
from tradewind.settings import MS_PER_DAY, GateSettings

HORIZONS_A_BLOCK = 4
LEAST_ERROR = 1e-12
"""Nats; a smaller standard error is rounding, of forecasts that do not differ."""


class ReviewVerdict(StrEnum):
    """What a review found of a challenger."""

    BETTER = "better"
    NOT_WORSE = "not_worse"
    WORSE = "worse"
    TOO_FEW = "too_few"


@dataclass(frozen=True)
class PairedReview:
    """Figures of one review; those of the test are None where days or rows were too few.

    ``difference`` is the challenger's mean log-loss minus the champion's in nats, below 0 where
    the challenger is better; ``low`` and ``high`` bound it with 1 − 2·``alpha`` confidence.
    ``p_better`` and ``p_worse`` are one-sided p-values, of which one below ``alpha`` decides.
    """

    verdict: ReviewVerdict
    rows: int
    days: int
    alpha: float
    text: str
    log_loss: float | None = None
    log_loss_champion: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_better: float | None = None
    p_worse: float | None = None

    def figures(self) -> dict[str, float]:
        """Return the figures of the test by the names of every run; empty without a test."""
        named = {
            "log_loss_minus_champion": self.difference,
            "log_loss_minus_champion_low": self.low,
            "log_loss_minus_champion_high": self.high,
            "p_better": self.p_better,
            "p_worse": self.p_worse,
        }
        return {name: value for name, value in named.items() if value is not None}


def alpha_of_look(settings: GateSettings) -> float:
    """Return the one-sided level of each look, an equal share of that of all looks together."""
    return settings.promotion_alpha / settings.promotion_looks


def days_for_look(settings: GateSettings, number: int, last_days: int) -> int | None:
    """Return the days new to both that look ``number`` needs; None when all looks are spent.

    ``last_days`` were compared at the look before; 0 for the first.
    """
    if number > settings.promotion_looks:
        return None
    return max(settings.promotion_min_days, math.ceil(settings.promotion_growth * last_days))


def whole_days(ts: IntArray, horizon_ms: int) -> tuple[BoolArray, IntArray]:
    """Return which rows have their label within their block, and the block of every row.

    A block is a UTC day, or four horizons if that is longer.

    Parameters
    ----------
    ts
        Opens of the answered bars in epoch ms, any order, shape (n,).
    horizon_ms
        From a bar's open to the close of its label's last bar.
    """
    block_ms = max(MS_PER_DAY, HORIZONS_A_BLOCK * horizon_ms)
    block = ts // block_ms
    return block == (ts + horizon_ms - 1) // block_ms, block


def enough(settings: GateSettings, rows: int, days: int) -> bool:
    """Return whether so many rows and days can be judged at all."""
    return rows >= settings.promotion_min_rows and days >= settings.promotion_min_days


def paired_review(
    ts: IntArray,
    champion_p: FloatArray,
    challenger_p: FloatArray,
    y: FloatArray,
    *,
    horizon_ms: int,
    alpha: float,
    settings: GateSettings,
) -> PairedReview:
    """Compare two versions on rows that neither saw in training or calibration.

    Parameters
    ----------
    ts
        Opens of the bars in epoch ms, any order, a moment once for each symbol, shape (n,).
    champion_p, challenger_p
        Calibrated p_up of the same rows, shape (n,).
    y
        Outcomes, 0 or 1, shape (n,).
    horizon_ms
        From a bar's open to the close of its label's last bar.
    alpha
        One-sided level of this look (`alpha_of_look`).
    settings
        How many rows and days are needed.

    Raises
    ------
    TradewindError
        ``bad_input`` for arrays of other shapes, a probability outside 0 … 1 or NaN, an
        outcome other than 0 and 1, or ``alpha`` outside 0 … 0.5.
    """
    _check(ts, champion_p, challenger_p, y, alpha)
    whole, block = whole_days(ts, horizon_ms)
    _, place = np.unique(block[whole], return_inverse=True)
    rows, days = int(whole.sum()), len(np.unique(place))
    if not enough(settings, rows, days):
        return PairedReview(
            ReviewVerdict.TOO_FEW, rows, days, alpha, too_few_text(settings, rows, days)
        )
    champion = m.row_log_loss(champion_p[whole], y[whole])
    challenger = m.row_log_loss(challenger_p[whole], y[whole])
    gain = challenger - champion
    low, high, p_better, p_worse = _tested(gain, place, days, alpha)
    verdict = ReviewVerdict.NOT_WORSE
    if p_better < alpha:
        verdict = ReviewVerdict.BETTER
    elif p_worse < alpha:
        verdict = ReviewVerdict.WORSE
    difference = float(gain.mean())
    return PairedReview(
        verdict,
        rows,
        days,
        alpha,
        f"log-loss minus the champion's {difference:+.5f} [{low:+.5f}, {high:+.5f}] on {rows} "
        f"rows of {days} days new to both: {_WORDS[verdict]} (p {min(p_better, p_worse):.4f}, "
        f"level of this look {alpha:.4f})",
        log_loss=float(challenger.mean()),
        log_loss_champion=float(champion.mean()),
        difference=difference,
        low=low,
        high=high,
        p_better=p_better,
        p_worse=p_worse,
    )


def too_few_text(settings: GateSettings, rows: int, days: int) -> str:
    """Return what is said where there is too little to judge."""
    return (
        f"{rows} rows of {days} days new to both, {settings.promotion_min_rows} rows of "
        f"{settings.promotion_min_days} days are needed: not judged"
    )


_WORDS = {
    ReviewVerdict.BETTER: "better",
    ReviewVerdict.WORSE: "worse",
    ReviewVerdict.NOT_WORSE: "neither better nor worse",
}


def _tested(
    gain: FloatArray, place: IntArray, days: int, alpha: float
) -> tuple[float, float, float, float]:
    """Return the interval of the mean over blocks of unequal size, and both p-values."""
    from scipy.stats import t

    mean = float(gain.mean())
    rows = np.bincount(place, minlength=days)
    residual = np.bincount(place, weights=gain - mean, minlength=days)
    error = float(np.sqrt(days / (days - 1) * (residual**2).sum()) / rows.sum())
    if error < LEAST_ERROR:
        return mean, mean, 0.5, 0.5
    reach = float(t.isf(alpha, days - 1)) * error
    score = mean / error
    # Both tails by the same function, so that exchanging the two exchanges the verdicts.
    return mean - reach, mean + reach, float(t.sf(-score, days - 1)), float(t.sf(score, days - 1))


def _check(
    ts: IntArray, champion_p: FloatArray, challenger_p: FloatArray, y: FloatArray, alpha: float
) -> None:
    if not 0 < alpha < 0.5:
        raise _bad(f"alpha = {alpha} is no one-sided level", "Give one above 0 and below 0.5")
    for name, p in (("champion_p", champion_p), ("challenger_p", challenger_p), ("y", y)):
        if p.shape != ts.shape:
            raise _bad(f"{name} has shape {p.shape}, ts {ts.shape}", "Give one value for each row")
        if not bool(np.all((p >= 0) & (p <= 1))):
            raise _bad(f"{name} has values outside 0 … 1, or NaN", "Give finite probabilities")
    if not bool(np.isin(y, (0, 1)).all()):
        raise _bad("y has values other than 0 and 1", "Give outcomes of realised labels")


def _bad(detail: str, hint: str) -> TradewindError:
    return TradewindError(ErrorCode.BAD_INPUT, detail, hint)
