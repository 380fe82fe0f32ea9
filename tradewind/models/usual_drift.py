"""How far windows of a version's own history lay from its reference: what is usual for it.

Neighbouring rows are alike, so a week of a slow feature (volatility, funding) differs from any
longer reference although nothing has changed. Every window of the same length that the version
could know when it was made is measured against the same bins; only what goes beyond them is news.

What is slow could be scaled wrongly and still lie within its usual range. Its steps cannot: the
changes from bar to bar in units of volatility are alike from week to week.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tradewind.models.base import BoolArray, FloatArray, IntArray, Samples
from tradewind.models.bins import PSI_BINS, Bins
from tradewind.settings import MS_PER_DAY

FLOOR = 1e-4
"""An empty bin counts as this share, so that one missing row is not infinite drift."""
MIN_LENGTHS = 4
"""Histories shorter than this many windows tell nothing of what is usual."""


@dataclass(frozen=True)
class Quiet:
    """By feature: consecutive rows of one symbol without a change, and without a value (NaN).

    NaN after NaN is no change.
    """

    still: dict[str, int]
    silent: dict[str, int]


@dataclass(frozen=True)
class Usual:
    """The largest PSI of windows of ``days`` days, and the longest quiet, by column.

    ``steps`` are bins of each feature's steps on the reference's rows, ``step_psi`` the largest
    PSI of windows of them.
    """

    days: int
    psi: dict[str, float]
    quiet: Quiet
    steps: dict[str, Bins]
    step_psi: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        steps = {name: bins.to_json() for name, bins in self.steps.items()}
        return {
            "days": self.days,
            "psi": self.psi,
            "still": self.quiet.still,
            "silent": self.quiet.silent,
            "steps": steps,
            "step_psi": self.step_psi,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any] | None) -> Usual | None:
        """Read what `to_json` gave; None of a version made before there was a usual range."""
        if values is None:
            return None
        return cls(
            days=int(values["days"]),
            psi={name: float(value) for name, value in values["psi"].items()},
            quiet=Quiet(dict(values["still"]), dict(values["silent"])),
            steps={name: Bins.from_json(item) for name, item in values["steps"].items()},
            step_psi={name: float(value) for name, value in values["step_psi"].items()},
        )


def psi_of_shares(expected: FloatArray, actual: FloatArray) -> FloatArray:
    """Return the population stability index over the last axis: shares of the same bins."""
    e, a = np.maximum(expected, FLOOR), np.maximum(actual, FLOOR)
    total: FloatArray = ((a - e) * np.log(a / e)).sum(axis=-1)
    return total


def usual_drift(
    bins: Mapping[str, Bins],
    history: Samples,
    compared: IntArray,
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
    compared
        Positions of the reference's own rows among them.
    p_ts, p_up
        Opens and calibrated predictions of rows that the forecaster was not fitted on, (m,),
        named ``prediction`` among ``bins``; too few of them and the column has no range.

    Returns
    -------
    Usual or None
        None where the history is shorter than four windows.
    """
    end_ms = int(history.ts.max()) - days * MS_PER_DAY + 1
    if not long_enough(history.ts, end_ms, days):
        return None
    psi = {
        name: _largest(bins[name], history.ts, history.wide[:, i], end_ms, days)
        for i, name in enumerate(history.wide_names)
    }
    if long_enough(p_ts, end_ms, days):
        psi[prediction] = _largest(bins[prediction], p_ts, p_up, end_ms, days)
    moves = steps_of(history)
    steps = {
        name: Bins.fit(_finite(moves[compared, i]), PSI_BINS)
        for i, name in enumerate(history.wide_names)
        if len(_finite(moves[compared, i]))
        # A feature that began to be collected lately has no windows of steps yet.
        and long_enough(history.ts[np.isfinite(moves[:, i])], end_ms, days)
    }
    step_psi = {
        name: _largest(steps[name], history.ts[known], moves[known, i], end_ms, days)
        for i, name in enumerate(history.wide_names)
        if name in steps
        for known in [np.isfinite(moves[:, i])]
    }
    return Usual(days, psi, longest_quiet(history), steps, step_psi)


def long_enough(ts: IntArray, end_ms: int, days: int) -> bool:
    """Tell whether rows from before ``end_ms`` hold enough windows to know what is usual."""
    return end_ms - int(ts.min()) >= MIN_LENGTHS * days * MS_PER_DAY


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


def steps_of(samples: Samples) -> FloatArray:
    """Return (n, F): each feature's change since its symbol's bar before, in its volatility.

    NaN where that bar or a value is missing, or where the market stood still.
    """
    moves = np.full(samples.wide.shape, np.nan)
    for own in _by_symbol(samples):
        gap = np.diff(samples.ts[own])
        with np.errstate(invalid="ignore", divide="ignore"):
            change = np.diff(samples.wide[own], axis=0) / samples.scale[own][1:, None]
        usable = np.isfinite(change) & (gap == gap.min(initial=MS_PER_DAY))[:, None]
        moves[own[1:]] = np.where(usable, change, np.nan)
    return moves


def step_drift(usual: Usual, steps: FloatArray, names: Sequence[str]) -> dict[str, float]:
    """Return the PSI of each feature's recent steps (n, F); none where nothing is finite."""
    found = {}
    for i, name in enumerate(names):
        values = _finite(steps[:, i])
        if name in usual.steps and len(values):
            bins = usual.steps[name]
            shares = np.asarray(bins.shares_of(values))
            found[name] = float(psi_of_shares(np.asarray(bins.shares), shares))
    return found


def _finite(values: FloatArray) -> FloatArray:
    return values[np.isfinite(values)]


def longest_quiet(samples: Samples) -> Quiet:
    """Return over how many rows of one symbol each feature stood still, and was silent, at most."""
    return _quiet(samples, _longest)


def quiet_by_now(samples: Samples) -> Quiet:
    """Return over how many of a symbol's last rows each feature stood still, and was silent."""
    return _quiet(samples, _last)


def _quiet(samples: Samples, count: Callable[[BoolArray], IntArray]) -> Quiet:
    still = silent = np.zeros(samples.wide.shape[1], dtype=np.int64)
    for own in _by_symbol(samples):
        values = samples.wide[own]
        known = ~np.isnan(values)
        # Both count rows between breaks: a change begins a run, a value ends a silence.
        still = np.maximum(still, count(_moved(values)) + 1)
        silent = np.maximum(silent, count(known))
    names = samples.wide_names
    return Quiet(
        dict(zip(names, still.tolist(), strict=True)),
        dict(zip(names, silent.tolist(), strict=True)),
    )


def _longest(breaks: BoolArray) -> IntArray:
    """Return the most consecutive rows without a break, by column of (n, F)."""
    edge = np.ones((1, breaks.shape[1]), dtype=bool)
    framed = np.vstack([edge, breaks, edge])
    found = [int(np.diff(np.flatnonzero(column)).max()) - 1 for column in framed.T]
    return np.asarray(found, dtype=np.int64)


def _last(breaks: BoolArray) -> IntArray:
    """Return the last rows without a break, by column of (n, F)."""
    edge = np.ones((1, breaks.shape[1]), dtype=bool)
    rows: IntArray = np.vstack([breaks[::-1], edge]).argmax(axis=0)
    return rows


def _by_symbol(samples: Samples) -> list[IntArray]:
    return [np.flatnonzero(samples.symbol == code) for code in np.unique(samples.symbol)]


def _moved(values: FloatArray) -> BoolArray:
    """Return (n − 1, F): whether a row's value differs from the row's before it."""
    before, after = values[:-1], values[1:]
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    moved: BoolArray = ~same
    return moved
