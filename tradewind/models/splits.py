"""Splits in time, with the horizon purged where one slice ends and the next begins.

A label of bar t is the close of bar t + H. A row is purged when that bar opens at or after
the next slice's first row: no label reaches into data that a later slice is judged on.
Boundaries are moments, the same for every symbol; ``ts`` may hold each moment many times.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.samples import IntArray
from tradewind.settings import TrainingSettings

MIN_SLICE_ROWS = 30
"""Fewer rows in a slice say nothing about a model."""


@dataclass(frozen=True, eq=False)
class Split:
    """Positions into ``ts`` of the four slices, each rising in time."""

    train: IntArray
    valid: IntArray
    calib: IntArray
    test: IntArray


@dataclass(frozen=True, eq=False)
class Fold:
    """One emulated retraining: what it learns from, and the time after it."""

    fit: IntArray
    valid: IntArray
    calib: IntArray
    test: IntArray


def time_split(
    ts: IntArray,
    *,
    horizon_ms: int,
    shares: Sequence[float],
    min_rows: int = MIN_SLICE_ROWS,
) -> Split:
    """Cut by shares of the distinct moments: train | H | valid | H | calib | H | test.

    Parameters
    ----------
    ts
        Open times in ms, any order, shape (n,).
    horizon_ms
        H bars in ms; that much is purged off the END of each slice but the last.
    shares
        Four shares that sum to 1, purge included.

    Raises
    ------
    TradewindError
        ``not_enough_bars`` when a slice keeps fewer than ``min_rows``.
    """
    moments = np.unique(ts)
    starts = _starts(moments, shares)
    end = int(moments[-1]) + 1 if len(moments) else 0
    slices = _slices(ts, [*starts, end], horizon_ms)
    _check_sizes(slices, ("train", "valid", "calib", "test"), min_rows, len(ts))
    return Split(*slices)


def walk_forward(
    ts: IntArray,
    *,
    horizon_ms: int,
    folds: int,
    fold_ms: int,
    shares: Sequence[float] | None = None,
    fit_ms: int | None = None,
    min_history_share: float = 0.5,
    min_rows: int = MIN_SLICE_ROWS,
) -> list[Fold]:
    """Emulate periodic retraining: test folds of ``fold_ms`` that roll up to the newest row.

    Parameters
    ----------
    ts, horizon_ms
        As `time_split`.
    folds
        Test folds wanted; fewer come back when the span is too short for all of them.
    fold_ms
        Length of a test fold, the time between two retrainings.
    shares
        As `time_split`: the first three, in proportion, cut what lies before a test fold
        into fit, valid and calib. Default: `TrainingSettings.split`.
    fit_ms
        Look back no further than this before a test fold; None: to the first row.
    min_history_share
        Part of the span that is never a test fold, so that the first fold has a past.

    Raises
    ------
    TradewindError
        ``not_enough_bars`` when not even one fold fits, or a slice has too few rows.
    """
    past = np.asarray(TrainingSettings().split if shares is None else shares, dtype=np.float64)[:3]
    past = past / past.sum()
    first, end = (int(ts.min()), int(ts.max()) + 1) if len(ts) else (0, 0)
    room = int((end - first) * (1 - min_history_share) // fold_ms)
    if room < 1 or folds < 1:
        raise _too_few(
            f"walk-forward wants {folds} folds of {fold_ms} ms, but the {len(ts)} rows "
            f"span {end - first} ms, of which folds may take {1 - min_history_share:.0%}"
        )
    count = min(folds, room)
    return [
        _fold(ts, end - left * fold_ms, fold_ms, past, horizon_ms, fit_ms, min_rows)
        for left in range(count, 0, -1)
    ]


def fold_between(
    ts: IntArray, bounds: Sequence[int], *, purge_ms: int, min_rows: int = MIN_SLICE_ROWS
) -> Fold:
    """Return the fold whose slices lie between five moments: fit, valid, calib, test, end.

    ``purge_ms`` is left out at the end of each slice but the last: the label's horizon, and
    an embargo if there is one.

    Raises
    ------
    TradewindError
        ``not_enough_bars`` when a slice keeps fewer than ``min_rows``.
    """
    slices = _slices(ts, bounds, purge_ms)
    _check_sizes(slices, ("fit", "valid", "calib", "test"), min_rows, len(ts))
    return Fold(*slices)


def _fold(
    ts: IntArray,
    start: int,
    fold_ms: int,
    past: np.ndarray,
    horizon_ms: int,
    fit_ms: int | None,
    min_rows: int,
) -> Fold:
    before = ts < start if fit_ms is None else (ts < start) & (ts >= start - fit_ms)
    starts = _starts(np.unique(ts[before]), past)
    slices = _slices(ts, [*starts, start, start + fold_ms], horizon_ms)
    _check_sizes(slices, ("fit", "valid", "calib", "test"), min_rows, len(ts))
    return Fold(*slices)


def _starts(moments: IntArray, shares: Sequence[float] | np.ndarray) -> list[int]:
    """Return the first moment of each share."""
    if not len(moments):
        raise _too_few("there is no row to split")
    before = np.concatenate([[0.0], np.cumsum(np.asarray(shares))[:-1]])
    places = np.minimum(np.round(before * len(moments)).astype(np.int64), len(moments) - 1)
    return [int(moment) for moment in moments[places]]


def _slices(ts: IntArray, bounds: Sequence[int], horizon_ms: int) -> list[IntArray]:
    """Return positions between successive bounds, purged before every bound but the last."""
    out = []
    for place, (start, end) in enumerate(itertools.pairwise(bounds)):
        last = place == len(bounds) - 2
        inside = (ts >= start) & (ts < end if last else ts + horizon_ms < end)
        positions = np.flatnonzero(inside)
        out.append(positions[np.argsort(ts[positions], kind="stable")].astype(np.int64))
    return out


def _check_sizes(
    slices: Sequence[IntArray], names: Sequence[str], min_rows: int, total: int
) -> None:
    for name, positions in zip(names, slices, strict=True):
        if len(positions) < min_rows:
            sizes = ", ".join(f"{n} {len(s)}" for n, s in zip(names, slices, strict=True))
            raise _too_few(
                f"{total} rows leave the slice {name} with {len(positions)} after the purge, "
                f"{min_rows} are needed ({sizes})"
            )


def _too_few(detail: str) -> TradewindError:
    return TradewindError(
        ErrorCode.NOT_ENOUGH_BARS,
        detail,
        "Raise training.days_back, or run `tradewind ingest` for more history",
    )
