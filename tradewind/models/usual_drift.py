"""How far windows of a version's own history lay from its reference: what is usual for it.

Neighbouring rows are alike, so a week of a slow feature (volatility, funding) differs from any
longer reference although nothing has changed. Every window of the same length that the version
could know when it was made is measured against the same bins; only what goes beyond them is news.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tradewind.models.base import FloatArray, IntArray, Samples
from tradewind.settings import MS_PER_DAY

if TYPE_CHECKING:
    from tradewind.models.reference import Bins

FLOOR = 1e-4
"""An empty bin counts as this share, so that one missing row is not infinite drift."""
MIN_LENGTHS = 4
"""Histories shorter than this many windows tell nothing of what is usual."""


@dataclass(frozen=True)
class Usual:
    """The largest PSI of windows of ``days`` days, and the longest stand-still, by column.

    ``runs`` are counts of consecutive rows of one symbol on which a feature did not change
    (NaN after NaN is no change).
    """

    days: int
    psi: dict[str, float]
    runs: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"days": self.days, "psi": self.psi, "runs": self.runs}

    @classmethod
    def from_json(cls, values: dict[str, Any] | None) -> Usual | None:
        """Read what `to_json` gave; None of a version made before there was a usual range."""
        if values is None:
            return None
        psi = {name: float(value) for name, value in values["psi"].items()}
        runs = {name: int(value) for name, value in values["runs"].items()}
        return cls(int(values["days"]), psi, runs)


def psi_of_shares(expected: FloatArray, actual: FloatArray) -> FloatArray:
    """Return the population stability index over the last axis: shares of the same bins."""
    e, a = np.maximum(expected, FLOOR), np.maximum(actual, FLOOR)
    total: FloatArray = ((a - e) * np.log(a / e)).sum(axis=-1)
    return total


def usual_drift(
    bins: Mapping[str, Bins],
    history: Samples,
    *,
    days: int,
    p_ts: IntArray,
    p_up: FloatArray,
    prediction: str,
) -> Usual | None:
    """Measure every window of ``days`` days, a day apart, that lies before the last one.

    The last window is left out: the first look at a new version is at that one.

    Parameters
    ----------
    history
        All rows known when the version was made, shape (n, ...), sorted by time.
    p_ts, p_up
        Opens and calibrated predictions of rows that the forecaster was not fitted on, (m,),
        named ``prediction`` among ``bins``; too few of them and the column has no range.

    Returns
    -------
    Usual or None
        None where the history is shorter than four windows.
    """
    end_ms = int(history.ts.max()) - days * MS_PER_DAY + 1
    if end_ms - int(history.ts.min()) < MIN_LENGTHS * days * MS_PER_DAY:
        return None
    psi = {
        name: _largest(bins[name], history.ts, history.wide[:, i], end_ms, days)
        for i, name in enumerate(history.wide_names)
    }
    if end_ms - int(p_ts.min()) >= MIN_LENGTHS * days * MS_PER_DAY:
        psi[prediction] = _largest(bins[prediction], p_ts, p_up, end_ms, days)
    return Usual(days, psi, longest_runs(history))


def _largest(bins: Bins, ts: IntArray, values: FloatArray, end_ms: int, days: int) -> float:
    """Return the largest PSI of the windows that end before ``end_ms``, a day apart."""
    known = ts < end_ms
    day = (end_ms - 1 - ts[known]) // MS_PER_DAY
    width = len(bins.edges) + 2
    counts = np.zeros((int(day.max()) + 1, width))
    np.add.at(counts, (day, bins.places_of(values[known])), 1.0)
    whole = np.lib.stride_tricks.sliding_window_view(counts, days, axis=0).sum(axis=-1)
    # A window with a hole of days in it is as small as none.
    full = whole.sum(axis=1) >= np.median(whole.sum(axis=1)) / 2
    shares = whole[full] / whole[full].sum(axis=1, keepdims=True)
    return float(psi_of_shares(np.asarray(bins.shares), shares).max())


def longest_runs(samples: Samples) -> dict[str, int]:
    """Return for each feature over how many rows of one symbol it stood still at most."""
    longest = np.zeros(samples.wide.shape[1], dtype=np.int64)
    for own in _by_symbol(samples):
        moved = _moved(samples.wide[own])
        for i in range(moved.shape[1]):
            at = np.flatnonzero(np.concatenate([[True], moved[:, i], [True]]))
            longest[i] = max(longest[i], int(np.diff(at).max()))
    return dict(zip(samples.wide_names, longest.tolist(), strict=True))


def standing_still(samples: Samples) -> dict[str, int]:
    """Return for each feature over how many of a symbol's last rows it has not changed."""
    longest = np.zeros(samples.wide.shape[1], dtype=np.int64)
    for own in _by_symbol(samples):
        moved = _moved(samples.wide[own])[::-1]
        changed = np.vstack([moved, np.ones((1, len(longest)), dtype=bool)])
        longest = np.maximum(longest, changed.argmax(axis=0) + 1)
    return dict(zip(samples.wide_names, longest.tolist(), strict=True))


def _by_symbol(samples: Samples) -> list[IntArray]:
    return [np.flatnonzero(samples.symbol == code) for code in np.unique(samples.symbol)]


def _moved(values: FloatArray) -> np.ndarray:
    """Return (n − 1, F): whether a row's value differs from the row's before it."""
    before, after = values[:-1], values[1:]
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    return ~same
