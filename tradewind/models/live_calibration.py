"""Recalibration by what came of served predictions.

A week holds few labels that do not overlap, so what is fitted is a small update of the
probabilities as served (a temperature, or Platt's slope and intercept, with priors at "no
change"), and only where it is clearly better than none. Applied after the version's own map it
is again a map of the version's own kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import BoolArray, FloatArray, IntArray
from tradewind.models.calibration import (
    MIN_ROWS,
    CalibrationChoice,
    Calibrator,
    fit_calibrator,
)
from tradewind.settings import MS_PER_DAY

UPDATES = ("identity", "temperature", "platt")


@dataclass(frozen=True, eq=False)
class Answered:
    """Served probabilities and what came of them; arrays of shape (n,), sorted by ``ts``.

    ``version`` is that of the model which answered; ``ts`` the bar's open in ms.
    """

    ts: IntArray
    version: IntArray
    p_up: FloatArray
    y: FloatArray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ts)

    def subset(self, mask: BoolArray) -> Answered:
        """Return the rows of a mask."""
        return Answered(self.ts[mask], self.version[mask], self.p_up[mask], self.y[mask])


def fit_update(rows: Answered, *, horizon: int, needed: int) -> CalibrationChoice:
    """Return the update of one version's served probabilities.

    Raises
    ------
    TradewindError
        ``not_enough_labels`` for fewer than ``needed`` rows, or rows of one class.
    """
    if len(rows) < needed or len(np.unique(rows.y)) < 2:
        rose = int(rows.y.sum())
        raise TradewindError(
            ErrorCode.NOT_ENOUGH_LABELS,
            f"{len(rows)} realised labels ({rose} rose), {needed} of both classes are needed",
            "Let serving answer longer, run the Dagster job `outcomes`, or lower "
            "TRADEWIND_CALIBRATION__LIVE_MIN_LABELS",
        )
    return fit_calibrator(rows.p_up, rows.y, ts=rows.ts, horizon=horizon, kinds=UPDATES)


def updated(calibrator: Calibrator, update: Calibrator) -> Calibrator:
    """Return the map that calibrates as before and then applies ``update``.

    An isotonic map keeps its breakpoints and is updated at each of them.
    """
    slope, intercept = _affine(update)
    if (slope, intercept) == (1.0, 0.0):
        return calibrator
    if calibrator.kind == "isotonic":
        moved = update.apply(np.asarray(calibrator.y))
        return Calibrator("isotonic", calibrator.x, tuple(float(value) for value in moved))
    if calibrator.kind == "beta":
        a, b, c = calibrator.x
        return Calibrator("beta", (slope * a, slope * b, slope * c + intercept))
    before = _affine(calibrator)
    return Calibrator("platt", (slope * before[0], slope * before[1] + intercept))


def rolled(rows: Answered, *, days: int, horizon_ms: int, horizon: int, needed: int) -> FloatArray:
    """Return ``p_up`` as it would have been served, had each day begun with an update.

    A day's update is fitted on the ``days`` before it, on the same version's rows whose labels
    were known by then; NaN where they are too few: of such a day an update says nothing.
    Shape (n,).
    """
    p = np.full(len(rows), np.nan)
    day = rows.ts // MS_PER_DAY
    for now in np.unique(day):
        start = int(now) * MS_PER_DAY
        for version in np.unique(rows.version[day == now]):
            own = rows.version == version
            past = own & (rows.ts >= start - days * MS_PER_DAY) & (rows.ts + horizon_ms < start)
            known = rows.subset(past)
            if len(known) < max(needed, MIN_ROWS) or len(np.unique(known.y)) < 2:
                continue
            today = own & (day == now)
            choice = fit_update(known, horizon=horizon, needed=needed)
            p[today] = choice.calibrator.apply(rows.p_up[today])
    return p


def _affine(calibrator: Calibrator) -> tuple[float, float]:
    """Return slope and intercept of a map that is a line in the logit."""
    if calibrator.kind == "identity":
        return 1.0, 0.0
    if calibrator.kind == "temperature":
        return calibrator.x[0], 0.0
    assert calibrator.kind == "platt", calibrator.kind
    return calibrator.x[0], calibrator.x[1]
