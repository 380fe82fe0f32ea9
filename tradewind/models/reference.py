"""What a version remembers of its rows: ranks, bins, intervals, and ranges of the inputs.

Kept with the version so that conviction, drift and intervals compare against exactly what
the model was calibrated on, and input checks against what it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tradewind.models.base import BoolArray, Float32Array, FloatArray
from tradewind.models.bins import PSI_BINS
from tradewind.models.bins import Bins as Bins
from tradewind.models.calibration import Calibrator
from tradewind.models.conformal import Conformal
from tradewind.models.usual_drift import Usual

CONFIDENCE_QUANTILES = 201
RANGE_TAIL = 0.005
"""Share of the training rows beyond each end of a range: one wild bar must not set it."""
PREDICTION = "p_up"


@dataclass(frozen=True)
class Reference:
    """Quantiles of confidence, PSI bins per column, ranges of the wide features, intervals.

    ``low`` and ``high`` are quantiles of the training rows, nearly their range (versions made
    before hold the calibration slice's least and greatest values). ``conformal`` is None for
    a version made before there were intervals, or with too few labels for one; ``usual`` for one
    made before there were usual ranges of drift, or from too short a history.
    """

    confidence: tuple[float, ...]
    names: tuple[str, ...]
    bins: dict[str, Bins]
    low: tuple[float, ...]
    high: tuple[float, ...]
    conformal: Conformal | None = None
    usual: Usual | None = None

    @classmethod
    def fit(
        cls,
        wide: FloatArray,
        wide_names: tuple[str, ...],
        p_up: FloatArray,
        *,
        bins: int = PSI_BINS,
        trained_on: FloatArray | None = None,
        conformal: Conformal | None = None,
    ) -> Reference:
        """Learn from the calibration slice: ``wide`` (n, F) and calibrated ``p_up`` (n,).

        ``trained_on`` (m, F) are the training rows, whose ranges are kept; by default ``wide``.
        """
        confidence = 2 * np.abs(p_up - 0.5)
        quantiles = np.quantile(confidence, np.linspace(0, 1, CONFIDENCE_QUANTILES))
        columns = {name: Bins.fit(wide[:, i], bins) for i, name in enumerate(wide_names)}
        columns[PREDICTION] = Bins.fit(p_up, bins)
        low, high = _ranges(wide if trained_on is None else trained_on)
        return cls(
            confidence=tuple(float(value) for value in quantiles),
            names=tuple(wide_names),
            bins=columns,
            low=low,
            high=high,
            conformal=conformal,
        )

    def recalibrated(self, update: Calibrator, p_up: FloatArray) -> Reference:
        """Return what remains true once ``update`` follows the calibrator.

        Confidence is ranked among that of ``p_up`` (n,), the updated rows. The bins of the
        prediction move with the map and keep their shares: drift is still measured against
        the same slice, and an update silences no alarm.
        """
        confidence = 2 * np.abs(p_up - 0.5)
        quantiles = np.quantile(confidence, np.linspace(0, 1, CONFIDENCE_QUANTILES))
        before = self.bins[PREDICTION]
        edges = update.apply(np.asarray(before.edges))
        moved = Bins(tuple(float(edge) for edge in edges), before.shares)
        return replace(
            self,
            confidence=tuple(float(value) for value in quantiles),
            bins={**self.bins, PREDICTION: moved},
        )

    def conviction(self, confidence: FloatArray) -> FloatArray:
        """Return the percentile rank, 0..1, of each confidence within the slice; NaN stays."""
        quantiles = np.asarray(self.confidence)
        below = np.searchsorted(quantiles, confidence, side="left")
        through = np.searchsorted(quantiles, confidence, side="right")
        rank = (below + through) / 2 / len(quantiles)
        return np.where(np.isnan(confidence), np.nan, rank)

    def out_of_range(self, values: FloatArray | Float32Array, *, margin: float = 1.0) -> BoolArray:
        """Return which values lie outside their range by over ``margin`` widths of it.

        ``values`` (n, k) are of the first k features. NaN (not collected) is not outside, nor
        is anything of a feature that was never known in training.
        """
        low, high = (np.asarray(ends)[: values.shape[1]] for ends in (self.low, self.high))
        with np.errstate(invalid="ignore"):
            room = np.where(np.isfinite(high - low), margin * (high - low), np.inf)
            outside: BoolArray = (values < low - room) | (values > high + room)
        return outside

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; an unbounded range is None."""
        return {
            "confidence": list(self.confidence),
            "names": list(self.names),
            "bins": {name: item.to_json() for name, item in self.bins.items()},
            "low": [value if np.isfinite(value) else None for value in self.low],
            "high": [value if np.isfinite(value) else None for value in self.high],
            "conformal": None if self.conformal is None else self.conformal.to_json(),
            "usual": None if self.usual is None else self.usual.to_json(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Reference:
        """Read what `to_json` gave."""
        return cls(
            confidence=tuple(values["confidence"]),
            names=tuple(values["names"]),
            bins={name: Bins.from_json(item) for name, item in values["bins"].items()},
            low=tuple(-np.inf if value is None else float(value) for value in values["low"]),
            high=tuple(np.inf if value is None else float(value) for value in values["high"]),
            conformal=Conformal.from_json(values.get("conformal")),
            usual=Usual.from_json(values.get("usual")),
        )


def _ranges(values: FloatArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the outer quantiles of each column; infinite where a column is never finite."""
    low, high = [], []
    for column in values.T:
        finite = column[np.isfinite(column)]
        ends = (-np.inf, np.inf)
        if len(finite):
            ends = tuple(np.quantile(finite, [RANGE_TAIL, 1 - RANGE_TAIL]))
        low.append(float(ends[0]))
        high.append(float(ends[1]))
    return tuple(low), tuple(high)
