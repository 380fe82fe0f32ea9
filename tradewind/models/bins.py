"""Fixed bins of one column, for comparing how its values are spread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tradewind.models.base import FloatArray, IntArray

PSI_BINS = 10


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
        parts = np.bincount(self.places_of(values), minlength=len(self.edges) + 2)
        return tuple(float(part) / max(len(values), 1) for part in parts)

    def places_of(self, values: FloatArray) -> IntArray:
        """Return the bin of each value; that of what is not finite is the last."""
        places = np.searchsorted(self.edges, values, side="left")
        found: IntArray = np.where(np.isfinite(values), places, len(self.edges) + 1)
        return found

    def to_json(self) -> dict[str, list[float]]:
        """Return JSON values."""
        return {"edges": list(self.edges), "shares": list(self.shares)}

    @classmethod
    def from_json(cls, values: dict[str, list[float]]) -> Bins:
        """Read what `to_json` gave."""
        return cls(tuple(values["edges"]), tuple(values["shares"]))
