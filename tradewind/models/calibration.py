"""From a raw probability to one that means what it says.

Maps are compared by log-loss on the calibration slice, out of fold and in time order:
temperature, Platt (logistic in the logit), beta (Kull, Silva Filho and Flach, 2017) and
isotonic (breakpoints, interpolated); the one kept is refitted on the whole slice. A richer map
has to be better than the simpler one by one standard error over days: the lowest of five noisy
scores is often a map that bends to the slice, and isotonic flattens passes besides.

Labels overlap and the base rate of a few weeks does not last, so the parametric maps are
maximum a posteriori fits: the likelihood counts only as many rows as there are labels that
do not overlap, and normal priors hold the slope near 1 and the intercept near 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import BoolArray, FloatArray, IntArray
from tradewind.models.metrics import row_log_loss
from tradewind.settings import MS_PER_DAY

CLIP = 1e-6
KINDS = ("identity", "temperature", "platt", "beta", "isotonic")
"""From the simplest to the richest."""
MIN_ROWS = 100
ISOTONIC_BINS = 20
ISOTONIC_LABELS = 30
"""Labels that do not overlap, at least, behind each breakpoint."""
SLOPE_SPREAD = 0.5
INTERCEPT_SPREAD = 0.05
"""Standard deviations of the priors: half as steep is plausible, 1 point of base rate is."""
FOLDS = 4


@dataclass(frozen=True)
class Calibrator:
    """A monotone map from raw to calibrated probability, as plain numbers.

    Parameters
    ----------
    kind
        identity, temperature, platt, beta or isotonic.
    x, y
        Parameters (``x``; parametric kinds) or breakpoints (``x`` raw, ``y`` calibrated).
    """

    kind: str
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def apply(self, p: FloatArray) -> FloatArray:
        """Return calibrated probabilities in (0, 1), same shape; NaN stays NaN."""
        raw = np.clip(np.asarray(p, dtype=np.float64), CLIP, 1 - CLIP)
        if self.kind == "identity":
            out = raw
        elif self.kind == "isotonic":
            out = np.where(np.isnan(raw), np.nan, np.interp(raw, self.x, self.y))
        else:
            design = _design(self.kind, raw.ravel())
            out = _sigmoid(design @ np.asarray(self.x)).reshape(raw.shape)
        return np.clip(out, CLIP, 1 - CLIP)

    def to_json(self) -> dict[str, Any]:
        """Return the map as JSON values."""
        return {"kind": self.kind, "x": list(self.x), "y": list(self.y)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Calibrator:
        """Read what `to_json` gave.

        Raises
        ------
        TradewindError
            ``model_unusable`` for an unknown kind or breakpoints that are not monotone.
        """
        found = cls(str(values["kind"]), tuple(values["x"]), tuple(values["y"]))
        monotone = all(np.diff(found.x) > 0) and all(np.diff(found.y) >= 0)
        if found.kind not in KINDS or (found.kind == "isotonic" and not monotone):
            raise TradewindError(
                ErrorCode.MODEL_UNUSABLE,
                f"calibrator of kind {found.kind!r} is not one of {KINDS} or not monotone",
                "Retrain the model; do not edit calibrator.json",
            )
        return found


@dataclass(frozen=True)
class CalibrationChoice:
    """The calibrator kept, and the out-of-fold log-loss of every kind compared."""

    calibrator: Calibrator
    kind: str
    scores: dict[str, float]


def fit_calibrator(
    p_raw: FloatArray,
    y: FloatArray,
    *,
    ts: IntArray,
    horizon: int = 1,
    kinds: Sequence[str] = KINDS,
) -> CalibrationChoice:
    """Compare the kinds in time order within the slice and refit the best on all of it.

    Parameters
    ----------
    p_raw
        Raw probabilities, shape (n,).
    y
        Labels 0 or 1, shape (n,).
    ts
        Times, shape (n,); a fold is fitted on what came before it.
    horizon
        Bars a label looks ahead: neighbouring labels share all but one of them.
    kinds
        What is compared, the simplest (identity) first.

    Raises
    ------
    TradewindError
        ``not_enough_bars`` for fewer than 100 rows or only one class; ``model_unusable``
        for a raw probability that is NaN or infinite.
    """
    if len(y) < MIN_ROWS or len(np.unique(y)) < 2:
        raise TradewindError(
            ErrorCode.NOT_ENOUGH_BARS,
            f"calibration slice has {len(y)} rows with classes {np.unique(y).tolist()}",
            f"At least {MIN_ROWS} rows of both classes are needed: raise days_back",
        )
    if not np.isfinite(p_raw).all():
        raise TradewindError(
            ErrorCode.MODEL_UNUSABLE,
            f"{int((~np.isfinite(p_raw)).sum())} of {len(p_raw)} raw probabilities are not finite",
            "Train the model again with another seed or a lower learning rate",
        )
    order = np.argsort(ts, kind="stable")
    p, labels = np.asarray(p_raw, dtype=np.float64)[order], np.asarray(y)[order]
    place = np.unique(np.asarray(ts)[order], return_inverse=True)[1]
    independent = (int(place[-1]) + 1) / len(place) / horizon
    losses = {
        kind: _out_of_fold_losses(kind, p, labels, place, horizon, independent) for kind in kinds
    }
    scores = {kind: float(rows.mean()) for kind, rows in losses.items()}
    days = np.asarray(ts)[order][out_of_fold_rows(np.asarray(ts)[order])] // MS_PER_DAY
    best = "identity"
    for kind in kinds[1:]:
        if _clearly_better(losses[kind] - losses[best], days):
            best = kind
    return CalibrationChoice(_fit(best, p, labels, independent), best, scores)


def _clearly_better(difference: FloatArray, days: IntArray) -> bool:
    """Return whether the mean daily difference is below zero by one standard error.

    A slice of one day has no error to be measured by: there, below zero is enough.
    """
    place = np.unique(days, return_inverse=True)[1]
    daily = np.bincount(place, weights=difference) / np.bincount(place)
    if len(daily) < 2:
        return bool(daily.mean() < 0)
    return bool(daily.mean() < -daily.std(ddof=1) / np.sqrt(len(daily)))


def out_of_fold_rows(ts: IntArray) -> BoolArray:
    """Return which rows of a calibration slice the scores of `fit_calibrator` are over."""
    place = np.unique(ts, return_inverse=True)[1]
    judged: BoolArray = place >= _bounds(place)[1]
    return judged


def _bounds(place: IntArray) -> IntArray:
    """Return where folds begin and end, in numbers of moments; the first is never judged."""
    return np.linspace(0, place.max() + 1, FOLDS + 2).astype(np.int64)


def _out_of_fold_losses(
    kind: str, p: FloatArray, y: FloatArray, place: IntArray, horizon: int, independent: float
) -> FloatArray:
    """Return the log-loss of the judged rows, fitted on what was known before each fold.

    ``place`` numbers the moments; a label is known ``horizon`` moments later.
    """
    losses = []
    for start, end in itertools.pairwise(_bounds(place)[1:]):
        past, now = place + horizon <= start, (place >= start) & (place < end)
        usable = kind if len(np.unique(y[past])) == 2 else "identity"
        fitted = _fit(usable, p[past], y[past], independent)
        losses.append(row_log_loss(fitted.apply(p[now]), y[now]))
    return np.concatenate(losses)


def _fit(kind: str, p: FloatArray, y: FloatArray, independent: float) -> Calibrator:
    """Fit one map; ``independent`` is the share of rows whose labels do not overlap."""
    if kind == "identity":
        return Calibrator(kind)
    if kind == "isotonic":
        return _fit_isotonic(p, y, independent)
    from scipy.optimize import minimize

    design = _design(kind, np.clip(p, CLIP, 1 - CLIP))
    slopes = {"temperature": 1, "platt": 1, "beta": 2}[kind]
    offsets = design.shape[1] - slopes
    prior = np.array([1.0] * slopes + [0.0] * offsets)
    spread = np.array([SLOPE_SPREAD] * slopes + [INTERCEPT_SPREAD] * offsets)
    rows = independent * len(p)

    def objective(w: FloatArray) -> float:
        likelihood = rows * float(row_log_loss(_sigmoid(design @ w), y).mean())
        return likelihood + 0.5 * float((((w - prior) / spread) ** 2).sum())

    bounds = [(0.0, None)] * slopes + [(None, None)] * offsets
    found = minimize(objective, prior, bounds=bounds)
    return Calibrator(kind, tuple(float(w) for w in found.x))


def _fit_isotonic(p: FloatArray, y: FloatArray, independent: float) -> Calibrator:
    """Pool the slice into equal-mass bins first, so that no step rests on a few labels.

    Neighbours that the fit made equal become ONE breakpoint at their centre: between the
    breakpoints the map rises steadily, and passes near one another stay near.
    """
    from sklearn.isotonic import IsotonicRegression

    bins = min(ISOTONIC_BINS, max(2, int(independent * len(p) / ISOTONIC_LABELS)))
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    x = np.array([p[part].mean() for part in parts])
    rate = np.array([(y[part].sum() + 0.5) / (len(part) + 1) for part in parts])
    weight = np.array([len(part) for part in parts], dtype=np.float64)
    fitted = IsotonicRegression().fit_transform(x, rate, sample_weight=weight)
    x, fitted, weight = _merged(fitted, x, fitted, weight)
    x, fitted, _ = _merged(np.round(x, 12), x, fitted, weight)
    return Calibrator("isotonic", tuple(map(float, x)), tuple(map(float, fitted)))


def _merged(
    by: FloatArray, x: FloatArray, y: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the weighted centres of the points that are equal in ``by``."""
    _, group = np.unique(by, return_inverse=True)
    sums = np.zeros((int(group.max()) + 1, 3))
    np.add.at(sums, group, np.column_stack([x * weight, y * weight, weight]))
    return sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2], sums[:, 2]


def _design(kind: str, p: FloatArray) -> FloatArray:
    logit = np.log(p) - np.log1p(-p)
    if kind == "temperature":
        return logit[:, None]
    if kind == "platt":
        return np.column_stack([logit, np.ones_like(p)])
    return np.column_stack([np.log(p), -np.log1p(-p), np.ones_like(p)])


def _sigmoid(z: FloatArray) -> FloatArray:
    out: FloatArray = 1 / (1 + np.exp(-np.clip(z, -50, 50)))
    return out
