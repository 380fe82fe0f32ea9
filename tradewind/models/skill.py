"""What a member is worth in an ensemble, as its calibration slice tells."""

from __future__ import annotations

import numpy as np

from tradewind.models.base import FloatArray, IntArray
from tradewind.models.calibration import CalibrationChoice, out_of_fold_rows
from tradewind.models.metrics import log_loss


def slice_skill(choice: CalibrationChoice, y: FloatArray, ts: IntArray, base_rate: float) -> float:
    """Return the gain in log-loss over the base rate, relative to it, floored at 0.

    Out of fold, and the same rows for both: the calibrator's own slice would flatter it.

    Parameters
    ----------
    y, ts
        Labels and times of the calibration slice, shape (n,).
    base_rate
        Share of rises in the slice that the member was fitted on.
    """
    judged = y[out_of_fold_rows(ts)]
    base_loss = log_loss(np.full(len(judged), base_rate), judged)
    return max(0.0, 1 - choice.scores[choice.kind] / base_loss)
