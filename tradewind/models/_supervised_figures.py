"""What the supervisor measures of a live member, in numbers that know how little they rest on.

Labels of one day overlap, and markets move together: a day is one observation of a mean, and a
perfect model's ECE is drawn with one path of the market for all symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tradewind.models.base import BoolArray, FloatArray, IntArray
from tradewind.models.metrics import CLIP, ece, equal_mass_bins, row_log_loss
from tradewind.settings import MS_PER_DAY

PATHS_SEED = 20_240_229
"""The draws are the same for every judgement, so that the same rows give the same verdict."""


SURE = 8.0
"""Standard errors beyond which the normal tail means no more."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What one member said, arrays of shape (n,) sorted by ``ts``; ``y`` is NaN while unknown.

    ``symbol`` are numbers that tell symbols apart; ``latency_ms`` is NaN where it was not
    measured.
    """

    ts: IntArray
    symbol: IntArray
    p_up: FloatArray
    y: FloatArray
    latency_ms: FloatArray

    def __len__(self) -> int:
        """Return the number of answers."""
        return len(self.ts)

    def subset(self, mask: BoolArray) -> Answers:
        """Return the rows of a mask."""
        return Answers(
            self.ts[mask], self.symbol[mask], self.p_up[mask], self.y[mask], self.latency_ms[mask]
        )


def days_of(ts: IntArray) -> int:
    """Return how many UTC days the rows come from."""
    return len(np.unique(ts // MS_PER_DAY))


def effective_days(ts: IntArray) -> float:
    """Return how many equally filled days the rows are worth: (Σn)² / Σn² over their days."""
    rows = np.bincount(np.unique(ts // MS_PER_DAY, return_inverse=True)[1])
    return float(rows.sum() ** 2 / (rows @ rows)) if len(rows) else 0.0


def day_score(values: FloatArray, ts: IntArray) -> float:
    """Return the mean of ``values`` in standard errors, a day being one observation.

    Days count by their rows, with the variance of a ratio, and their neighbours' covariance is
    added (Newey-West, one lag), as labels reach over midnight. Few days make Student's t: the
    score is the normal one of the same probability. Zero for a single day.
    """
    from scipy.stats import norm
    from scipy.stats import t as student_t

    _, day = np.unique(ts // MS_PER_DAY, return_inverse=True)
    sums = np.bincount(day, weights=values - values.mean())
    days, freedom = len(sums), effective_days(ts) - 1
    if days < 2 or freedom <= 0:
        return 0.0
    own = float(sums @ sums)
    variance = max(own + float(sums[1:] @ sums[:-1]), own) * days / (days - 1)
    if variance == 0:
        return float(np.sign(values.mean())) * SURE
    score = float(values.sum() / np.sqrt(variance))
    tail = float(student_t.logsf(abs(score), freedom))
    return float(np.sign(score) * min(-norm.ppf(np.exp(tail)), SURE))


def excess_log_loss(p: FloatArray, y: FloatArray, base_rate: float, ts: IntArray) -> float:
    """Return the standard errors by which log-loss is above that of the base rate."""
    base = np.full(len(p), base_rate)
    return day_score(row_log_loss(p, y) - row_log_loss(base, y), ts)


def excess_ece(
    rows: Answers, *, horizon: int, step_ms: int, repeats: int
) -> tuple[float, float, float]:
    """Return ECE, a perfect model's mean ECE on these rows, and the excess in its deviations.

    A label is drawn from the sum of the ``horizon`` shocks after its bar, the same for every
    symbol of that bar: labels overlap as real ones do, and markets move as one.
    """
    from scipy.stats import norm

    measured = ece(rows.p_up, rows.y)
    place = (rows.ts - rows.ts.min()) // step_ms
    threshold = norm.ppf(np.clip(rows.p_up, CLIP, 1 - CLIP))
    parts = equal_mass_bins(rows.p_up)
    said = [float(rows.p_up[part].mean()) for part in parts]
    rng = np.random.default_rng(PATHS_SEED)
    drawn = np.empty(repeats)
    for number in range(repeats):
        shocks = rng.normal(size=int(place.max()) + horizon)
        path = np.concatenate([[0.0], np.cumsum(shocks)])
        future = (path[horizon:] - path[:-horizon]) / np.sqrt(horizon)
        up = future[place] < threshold
        gaps = [abs(up[part].mean() - p) * len(part) for part, p in zip(parts, said, strict=True)]
        drawn[number] = sum(gaps) / len(rows)
    mean, deviation = float(drawn.mean()), float(drawn.std(ddof=1))
    return measured, mean, (measured - mean) / deviation if deviation > 0 else 0.0


def sides(p_up: FloatArray, threshold: float) -> IntArray:
    """Return each vote as a number: 1 BUY, −1 SELL, 0 HOLD."""
    buy, sell = p_up >= threshold, 1 - p_up >= threshold
    return np.where(buy, 1, np.where(sell, -1, 0))


def flip_rate(rows: Answers, side: IntArray) -> float:
    """Return the share of calls on the other side than that symbol's call before."""
    flips = pairs = 0
    for symbol in np.unique(rows.symbol):
        own = side[(rows.symbol == symbol) & (side != 0)]
        flips += int((own[1:] != own[:-1]).sum())
        pairs += max(0, len(own) - 1)
    return flips / pairs if pairs else 0.0
