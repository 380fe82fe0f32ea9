"""From a raw probability to one that means what it says.

Maps are compared by log-loss on the calibration slice, out of fold and in time order:
temperature, Platt (logistic in the logit), beta (Kull, Silva Filho and Flach, 2017) and
isotonic (breakpoints, interpolated); the best is refitted on the whole slice.

Labels overlap and the base rate of a few weeks does not last, so the parametric maps are
maximum a posteriori fits: the likelihood counts only as many rows as there are labels that
do not overlap, and normal priors hold the slope near 1 and the intercept near 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import FloatArray, IntArray

CLIP = 1e-6
KINDS = ("identity", "temperature", "platt", "beta", "isotonic")
MIN_ROWS = 100
ISOTONIC_BINS = 20
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
    p_raw: FloatArray, y: FloatArray, *, ts: IntArray, horizon: int
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

    Raises
    ------
    TradewindError
        ``not_enough_bars`` for fewer than 100 rows or only one class.
    """
    if len(y) < MIN_ROWS or len(np.unique(y)) < 2:
        raise TradewindError(
            ErrorCode.NOT_ENOUGH_BARS,
            f"calibration slice has {len(y)} rows with classes {np.unique(y).tolist()}",
            f"At least {MIN_ROWS} rows of both classes are needed: raise days_back",
        )
    order = np.argsort(ts, kind="stable")
    p, labels = np.asarray(p_raw, dtype=np.float64)[order], np.asarray(y)[order]
    independent = len(np.unique(ts)) / len(ts) / horizon
    scores = {kind: _out_of_fold_loss(kind, p, labels, independent) for kind in KINDS}
    best = min(KINDS, key=lambda kind: scores[kind])
    return CalibrationChoice(_fit(best, p, labels, independent), best, scores)


def _out_of_fold_loss(kind: str, p: FloatArray, y: FloatArray, independent: float) -> float:
    """Return the mean log-loss of the rows after the first fold, fitted on what came before."""
    bounds = np.linspace(0, len(y), FOLDS + 2).astype(int)
    losses = []
    for fold in range(1, FOLDS + 1):
        past, now = slice(0, bounds[fold]), slice(bounds[fold], bounds[fold + 1])
        usable = kind if len(np.unique(y[past])) == 2 else "identity"
        fitted = _fit(usable, p[past], y[past], independent)
        losses.append(_log_loss(fitted.apply(p[now]), y[now]))
    return float(np.concatenate(losses).mean())


def _fit(kind: str, p: FloatArray, y: FloatArray, independent: float) -> Calibrator:
    """Fit one map; ``independent`` is the share of rows whose labels do not overlap."""
    if kind == "identity":
        return Calibrator(kind)
    if kind == "isotonic":
        return _fit_isotonic(p, y)
    from scipy.optimize import minimize

    design = _design(kind, np.clip(p, CLIP, 1 - CLIP))
    slopes = {"temperature": 1, "platt": 1, "beta": 2}[kind]
    offsets = design.shape[1] - slopes
    prior = np.array([1.0] * slopes + [0.0] * offsets)
    spread = np.array([SLOPE_SPREAD] * slopes + [INTERCEPT_SPREAD] * offsets)
    rows = independent * len(p)

    def objective(w: FloatArray) -> float:
        likelihood = rows * float(_log_loss(_sigmoid(design @ w), y).mean())
        return likelihood + 0.5 * float((((w - prior) / spread) ** 2).sum())

    bounds = [(0.0, None)] * slopes + [(None, None)] * offsets
    found = minimize(objective, prior, bounds=bounds)
    return Calibrator(kind, tuple(float(w) for w in found.x))


def _fit_isotonic(p: FloatArray, y: FloatArray) -> Calibrator:
    """Pool the slice into equal-mass bins first, so that no step rests on a few rows."""
    from sklearn.isotonic import IsotonicRegression

    parts = np.array_split(np.argsort(p, kind="stable"), min(ISOTONIC_BINS, len(p) // 50 + 1))
    x = np.array([p[part].mean() for part in parts])
    rate = np.array([(y[part].sum() + 0.5) / (len(part) + 1) for part in parts])
    weight = np.array([len(part) for part in parts], dtype=np.float64)
    x, first = np.unique(x, return_index=True)
    fitted = IsotonicRegression(out_of_bounds="clip").fit_transform(
        x, rate[first], sample_weight=weight[first]
    )
    return Calibrator("isotonic", tuple(map(float, x)), tuple(map(float, fitted)))


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


def _log_loss(p: FloatArray, y: FloatArray) -> FloatArray:
    q = np.clip(p, CLIP, 1 - CLIP)
    return -(y * np.log(q) + (1 - y) * np.log1p(-q))
