"""What a member is worth in an ensemble, as its walk-forward forecasts tell.

One calibration slice is forty days of overlapping labels, in which members differ by less than
chance does: weighing by it alone costs more than they differ. Half a year of forecasts, each
made before its bar, tells four times as much.
"""

from __future__ import annotations

import numpy as np

from tradewind.models.base import BoolArray, FloatArray, IntArray
from tradewind.models.metrics import log_loss, row_log_loss
from tradewind.models.walk_forward import OutOfSample
from tradewind.settings import MS_PER_DAY

LEAST_DAYS = 30
"""A shorter record says less than the calibration slice, which then stands."""


def record_skill(rows: OutOfSample, *, otherwise: float) -> float:
    """Return the relative gain in log-loss over the base rate, floored at 0.

    Parameters
    ----------
    rows
        Walk-forward forecasts; each fold's base rate is that of its own fit.
    otherwise
        Returned where the rows span fewer than `LEAST_DAYS` days.
    """
    if np.ptp(rows.ts) < (LEAST_DAYS - 1) * MS_PER_DAY:
        return otherwise
    return max(0.0, 1 - log_loss(rows.p_up, rows.y) / log_loss(rows.base_rate, rows.y))


def rolling_skill(rows: OutOfSample, *, every_ms: int, window_ms: int, known_ms: int) -> FloatArray:
    """Return the skill that each row's member had by then, shape (n,).

    A retraining every ``every_ms`` from the first row on: what it finds stands until the next.
    Where the record is too short, the skill of the row's own fold stands.

    Parameters
    ----------
    window_ms
        How far a record looks back.
    known_ms
        How long after its bar's open a label is known: younger rows are not counted.
    """
    gain = row_log_loss(rows.base_rate, rows.y) - row_log_loss(rows.p_up, rows.y)
    base = row_log_loss(rows.base_rate, rows.y)
    first = int(rows.ts.min())
    looks: IntArray = first + (rows.ts - first) // every_ms * every_ms
    found = rows.skill.copy()
    for moment in np.unique(looks).tolist():
        past = _known(rows.ts, moment - known_ms, window_ms)
        if past.any() and np.ptp(rows.ts[past]) >= (LEAST_DAYS - 1) * MS_PER_DAY:
            found[looks == moment] = max(0.0, float(gain[past].sum() / base[past].sum()))
    return found


def _known(ts: IntArray, until_ms: int, window_ms: int) -> BoolArray:
    past: BoolArray = (ts <= until_ms) & (ts > until_ms - window_ms)
    return past
