"""How much a stated uncertainty tells of the error that came of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tradewind.models import metrics as m
from tradewind.models.base import FloatArray
from tradewind.models.bootstrap import TimeBootstrap


def uncertainty_figures(
    error: FloatArray,
    uncertainty: FloatArray,
    epistemic_p: FloatArray,
    *,
    drawn: TimeBootstrap,
    limit: float,
) -> dict[str, Any]:
    """Return how the absolute error of mu goes with the uncertainty stated before it.

    Parameters
    ----------
    error, uncertainty
        In log-return units, shape (n,).
    epistemic_p
        Spread of the calibrated p_up, shape (n,); above ``limit`` a model abstains.
    drawn
        The resamples of these rows that intervals are made by.
    """
    deciles = m.error_by_decile(uncertainty, error)
    return {
        "abstain_share": float((epistemic_p > limit).mean()),
        "epistemic_p_mean": float(epistemic_p.mean()),
        **drawn.risk_coverage_area(uncertainty, error).named("risk_coverage_area"),
        **drawn.mean(error).named("mean_absolute_error"),
        **drawn.rank_correlation(uncertainty, error).named("error_rank_correlation"),
        "error_by_uncertainty_decile": deciles,
        "error_most_certain_decile": deciles[0],
        "error_least_certain_decile": deciles[-1],
        "error_deciles_rising": float((np.diff(deciles) > 0).mean()),
    }
