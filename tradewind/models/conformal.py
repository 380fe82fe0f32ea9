"""Split conformal intervals for mu: how wide they must be, as the calibration slice says.

A row's score is its absolute error over its own stated uncertainty; an interval of level L
reaches as far as all but (1 − L) of the slice's scores. Nothing about the errors' shape is
assumed, only that the future resembles the slice.

The usual guarantee counts n exchangeable scores and takes the ⌈(n + 1)·L⌉-th of them. Labels
of H bars overlap, and markets move together, so a slice of n rows holds far fewer independent
scores: the quantile is taken over all rows (which estimates it better than any thinned ones),
while the correction for a finite n counts only the moments whose labels do not overlap. It is
still approximate: neither overlap nor a change of regime is covered by the theorem, which is
why the coverage on walk-forward rows stands beside the nominal level.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tradewind.models.base import BoolArray, FloatArray, IntArray, RawForecast

TIE = 1e-9
"""Values this near are equal: shares of a count are not exact in floating point."""


@dataclass(frozen=True)
class Conformal:
    """The half-width of an interval of ``level``, in units of a row's uncertainty.

    ``rows`` scores made it, of which ``independent`` have labels that do not overlap.
    """

    level: float
    quantile: float
    rows: int
    independent: float

    def bounds(self, mu: FloatArray, uncertainty: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the lower and upper bound of the H-bar return; shapes of ``mu``, its units."""
        reach = self.quantile * uncertainty
        return mu - reach, mu + reach

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any] | None) -> Conformal | None:
        """Read what `to_json` gave; None (a version made before, or too few labels) stays."""
        return None if values is None else cls(**values)


def scores(raw: RawForecast, fwd_ret: FloatArray) -> FloatArray:
    """Return |fwd_ret − mu| over the total uncertainty of each row, shape (n,)."""
    uncertainty = np.hypot(raw.mu.std(axis=0), raw.sigma.mean(axis=0))
    found: FloatArray = np.abs(fwd_ret - raw.mu.mean(axis=0)) / uncertainty
    return found


def independent_labels(ts: IntArray, horizon: int) -> float:
    """Return how many moments of ``ts`` have labels that do not overlap.

    ``horizon`` is over how many of the moments a label reaches. Symbols at one moment count
    once: their returns are nearly the same news.
    """
    return len(np.unique(ts)) / horizon


def fit_conformal(found: FloatArray, *, independent: float, level: float) -> Conformal | None:
    """Return the interval's half-width; None where so few labels cannot support the level.

    Parameters
    ----------
    found
        Scores of the calibration slice, shape (n,).
    independent
        How many of them count, see `independent_labels`.
    level
        Share of future returns that an interval shall hold.
    """
    share = level * (independent + 1) / independent if len(found) else np.inf
    if share > 1 + TIE:
        return None
    place = max(1, math.ceil(share * len(found) - TIE * len(found)))
    quantile = float(np.sort(found)[min(place, len(found)) - 1])
    return Conformal(level, quantile, len(found), independent)


def conformal_p(found: FloatArray, calibration: FloatArray, *, independent: float) -> FloatArray:
    """Return each score's conformal p-value: how unusual it is beside the slice's, in (0, 1].

    `covered` tells from it whether a row lies inside the interval of any level.
    """
    ordered = np.sort(calibration)
    at_least = 1 - np.searchsorted(ordered, found, side="left") / len(ordered)
    p: FloatArray = (1 + independent * at_least) / (independent + 1)
    return p


def covered(p: FloatArray, level: float) -> BoolArray:
    """Return which rows lie inside their interval of ``level``; NaN is outside."""
    inside: BoolArray = p > 1 - level + TIE
    return inside
