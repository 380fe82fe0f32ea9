"""Metrics of probabilities, under the same names in every run.

``p`` and ``y`` have shape (n,); ``y`` is 0 or 1; NaN is refused by the caller, never here.
"""

from __future__ import annotations

import numpy as np

from tradewind.models.base import FloatArray, IntArray

ECE_BINS = 15
CLIP = 1e-6


def auc(p: FloatArray, y: FloatArray) -> float:
    """Return the area under the ROC curve (ties count half); 0.5 with a single class."""
    from scipy.stats import rankdata

    ups = int(y.sum())
    downs = len(y) - ups
    if ups == 0 or downs == 0:
        return 0.5
    ranks = rankdata(p)
    return float((ranks[y == 1].sum() - ups * (ups + 1) / 2) / (ups * downs))


def row_log_loss(p: FloatArray, y: FloatArray) -> FloatArray:
    """Return the log-loss of each row, in nats."""
    q = np.clip(p, CLIP, 1 - CLIP)
    loss: FloatArray = -(y * np.log(q) + (1 - y) * np.log1p(-q))
    return loss


def log_loss(p: FloatArray, y: FloatArray) -> float:
    """Return the mean log-loss, in nats."""
    return float(row_log_loss(p, y).mean())


def brier(p: FloatArray, y: FloatArray) -> float:
    """Return the mean squared error of the probability."""
    return float(((p - y) ** 2).mean())


def accuracy(p: FloatArray, y: FloatArray) -> float:
    """Return the share of rows whose side of one half was right (exactly 0.5 says up)."""
    return float(((p >= 0.5) == (y == 1)).mean())


def equal_mass_bins(p: FloatArray, bins: int = ECE_BINS) -> list[IntArray]:
    """Return row positions of ``bins`` bins with (nearly) equal numbers of rows."""
    return np.array_split(np.argsort(p, kind="stable"), min(bins, len(p)))


def ece(p: FloatArray, y: FloatArray, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error over equal-mass bins."""
    parts = equal_mass_bins(p, bins)
    return float(sum(abs(p[part].mean() - y[part].mean()) * len(part) for part in parts) / len(p))


def perfect_ece(p: FloatArray, bins: int = ECE_BINS, *, repeats: int = 200, seed: int = 0) -> float:
    """Return the mean ECE a perfectly calibrated model would show with these very p.

    Labels are drawn from ``p`` itself, so what remains is the sampling error of n rows
    (independent rows: overlapping labels make the true figure larger).
    """
    parts = equal_mass_bins(p, bins)
    rng = np.random.default_rng(seed)
    total = 0.0
    for part in parts:
        drawn = (rng.random((repeats, len(part))) < p[part]).mean(axis=1)
        total += float(np.abs(drawn - p[part].mean()).mean()) * len(part)
    return total / len(p)


def perfect_ece_overlapping(
    p: FloatArray,
    ts: IntArray,
    symbol: IntArray,
    *,
    horizon: int,
    bins: int = ECE_BINS,
    repeats: int = 100,
    seed: int = 0,
) -> float:
    """Return `perfect_ece` for labels that reach over ``horizon`` rows, as real ones do.

    The label of a row is drawn from the sum of the ``horizon`` shocks after it, so that
    neighbours share most of theirs; ``p`` still is each label's exact probability. Symbols
    are drawn independently, so markets that move together make the true figure larger yet.
    """
    from scipy.stats import norm

    parts = equal_mass_bins(p, bins)
    rng = np.random.default_rng(seed)
    order = np.lexsort((ts, symbol))
    threshold = norm.ppf(np.clip(p[order], CLIP, 1 - CLIP))
    starts = np.flatnonzero(np.concatenate([[True], np.diff(symbol[order]) != 0]))
    up = np.empty(len(p), dtype=np.float64)
    total = 0.0
    for _ in range(repeats):
        for own in np.split(np.arange(len(p)), starts[1:]):
            path = np.concatenate([[0.0], np.cumsum(rng.normal(size=len(own) + horizon - 1))])
            future = (path[horizon:] - path[:-horizon]) / np.sqrt(horizon)
            up[order[own]] = future < threshold[own]
        total += sum(abs(up[part].mean() - p[part].mean()) * len(part) for part in parts)
    return total / repeats / len(p)


def reliability(
    p: FloatArray, y: FloatArray, bins: int = ECE_BINS
) -> list[tuple[float, float, int]]:
    """Return (mean p, realised rate, rows) of each equal-mass bin."""
    return [
        (float(p[part].mean()), float(y[part].mean()), len(part))
        for part in equal_mass_bins(p, bins)
    ]


def risk_coverage(uncertainty: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (coverage, mean error of the kept rows), keeping the most certain rows first."""
    order = np.argsort(uncertainty, kind="stable")
    kept = np.arange(1, len(order) + 1)
    risk: FloatArray = np.cumsum(error[order]) / kept
    return kept / len(order), risk


def error_by_decile(uncertainty: FloatArray, error: FloatArray) -> list[float]:
    """Return the mean error in each decile of uncertainty, most certain first."""
    return [float(error[part].mean()) for part in equal_mass_bins(uncertainty, 10)]


def classification_metrics(
    p: FloatArray, y: FloatArray, *, bins: int = ECE_BINS
) -> dict[str, float]:
    """Return auc, log_loss, brier, ece and accuracy."""
    q = np.asarray(p, dtype=np.float64)
    return {
        "auc": auc(q, y),
        "log_loss": log_loss(q, y),
        "brier": brier(q, y),
        "ece": ece(q, y, bins),
        "accuracy": accuracy(q, y),
    }
