"""What a version remembers of its calibration slice: ranks, bins and ranges.

Kept with the version so that conviction, drift and input checks compare against exactly
what the model was calibrated on, with fixed bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tradewind.models.base import BoolArray, FloatArray

CONFIDENCE_QUANTILES = 201
PSI_BINS = 10
PREDICTION = "p_up"


@dataclass(frozen=True)
class Bins:
    """Fixed bins of one column: inner edges, and shares of each bin and of NaN (the last)."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def fit(cls, values: FloatArray, bins: int) -> Bins:
        """Return equal-mass bins, or one a value where there are few values.

        A few-valued (or constant) column also gets a bin below and one above them, which
        are empty now: a constant that moves must not look unmoved.
        """
        finite = values[np.isfinite(values)]
        distinct = np.unique(finite)
        if len(distinct) > bins:
            edges = np.unique(np.quantile(finite, np.linspace(0, 1, bins + 1)[1:-1]))
        else:
            edges = np.concatenate([np.nextafter(distinct[:1], -np.inf), distinct])
        inner = tuple(float(edge) for edge in edges)
        return cls(inner, cls(inner, ()).shares_of(values))

    def shares_of(self, values: FloatArray) -> tuple[float, ...]:
        """Return the share of ``values`` in each bin, then the share that is not finite."""
        if len(values) == 0:
            return tuple(0.0 for _ in range(len(self.edges) + 2))
        finite = values[np.isfinite(values)]
        counts = np.bincount(
            np.searchsorted(self.edges, finite, side="left"), minlength=len(self.edges) + 1
        )
        parts = [*counts, len(values) - len(finite)]
        return tuple(float(part) / len(values) for part in parts)


@dataclass(frozen=True)
class Reference:
    """Quantiles of confidence, PSI bins per column, and ranges of the wide features."""

    confidence: tuple[float, ...]
    names: tuple[str, ...]
    bins: dict[str, Bins]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def fit(
        cls,
        wide: FloatArray,
        wide_names: tuple[str, ...],
        p_up: FloatArray,
        *,
        bins: int = PSI_BINS,
    ) -> Reference:
        """Learn from the calibration slice: ``wide`` (n, F) and calibrated ``p_up`` (n,)."""
        confidence = 2 * np.abs(p_up - 0.5)
        quantiles = np.quantile(confidence, np.linspace(0, 1, CONFIDENCE_QUANTILES))
        columns = {name: Bins.fit(wide[:, i], bins) for i, name in enumerate(wide_names)}
        columns[PREDICTION] = Bins.fit(p_up, bins)
        masked = np.ma.masked_invalid(wide)
        return cls(
            confidence=tuple(float(value) for value in quantiles),
            names=tuple(wide_names),
            bins=columns,
            low=tuple(float(v) for v in np.ma.filled(masked.min(axis=0), -np.inf)),
            high=tuple(float(v) for v in np.ma.filled(masked.max(axis=0), np.inf)),
        )

    def conviction(self, confidence: FloatArray) -> FloatArray:
        """Return the percentile rank, 0..1, of each confidence within the slice; NaN stays."""
        quantiles = np.asarray(self.confidence)
        below = np.searchsorted(quantiles, confidence, side="left")
        through = np.searchsorted(quantiles, confidence, side="right")
        rank = (below + through) / 2 / len(quantiles)
        return np.where(np.isnan(confidence), np.nan, rank)

    def out_of_range(self, wide: FloatArray) -> BoolArray:
        """Return which values (n, F) lie outside the slice by over one width of its range."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        margin = np.where(np.isfinite(high - low), high - low, np.inf)
        with np.errstate(invalid="ignore"):
            outside: BoolArray = (wide < low - margin) | (wide > high + margin)
        return outside

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; an unbounded range is None."""
        return {
            "confidence": list(self.confidence),
            "names": list(self.names),
            "bins": {
                name: {"edges": list(item.edges), "shares": list(item.shares)}
                for name, item in self.bins.items()
            },
            "low": [value if np.isfinite(value) else None for value in self.low],
            "high": [value if np.isfinite(value) else None for value in self.high],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Reference:
        """Read what `to_json` gave."""
        return cls(
            confidence=tuple(values["confidence"]),
            names=tuple(values["names"]),
            bins={
                name: Bins(tuple(item["edges"]), tuple(item["shares"]))
                for name, item in values["bins"].items()
            },
            low=tuple(-np.inf if value is None else float(value) for value in values["low"]),
            high=tuple(np.inf if value is None else float(value) for value in values["high"]),
        )
