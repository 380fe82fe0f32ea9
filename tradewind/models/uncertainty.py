"""From stochastic passes to one forecast per row, with what is and is not known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tradewind.models.base import FloatArray, RawForecast
from tradewind.models.calibration import Calibrator
from tradewind.models.reference import Reference


@dataclass(frozen=True)
class Forecast:
    """Served values per row; every array has shape (n,).

    Parameters
    ----------
    p_up
        Calibrated mean over passes of the probability of a rise.
    mu
        Mean over passes of the expected H-bar log return.
    epistemic, aleatoric, uncertainty
        Std over passes of mu, mean predicted sigma, and the root of the sum of their
        squares; all in the units of mu.
    epistemic_p
        Std over passes of the calibrated probability.
    confidence
        ``2·|p_up − 0.5|``.
    conviction
        Rank of the confidence among those of the calibration slice, 0..1.
    passes
        Number of stochastic passes (or bag members) behind the row.
    mu_low, mu_high
        Conformal interval of the H-bar log return; None where the version keeps none.
    """

    p_up: FloatArray
    mu: FloatArray
    epistemic: FloatArray
    aleatoric: FloatArray
    uncertainty: FloatArray
    epistemic_p: FloatArray
    confidence: FloatArray
    conviction: FloatArray
    passes: int
    mu_low: FloatArray | None = None
    mu_high: FloatArray | None = None


def combine(raw: RawForecast, calibrator: Calibrator, reference: Reference) -> Forecast:
    """Reduce the passes of shape (S, n) to one forecast per row.

    The standard deviations are over the S passes themselves (population form), so that a
    single pass has zero epistemic spread rather than NaN.
    """
    p_up = calibrator.apply(raw.p.mean(axis=0))
    calibrated = calibrator.apply(raw.p.ravel()).reshape(raw.p.shape)
    mu = raw.mu.mean(axis=0)
    epistemic = raw.mu.std(axis=0)
    aleatoric = raw.sigma.mean(axis=0)
    uncertainty = np.hypot(epistemic, aleatoric)
    confidence = 2.0 * np.abs(p_up - 0.5)
    interval = reference.conformal
    low, high = (None, None) if interval is None else interval.bounds(mu, uncertainty)
    return Forecast(
        p_up=p_up,
        mu=mu,
        epistemic=epistemic,
        aleatoric=aleatoric,
        uncertainty=uncertainty,
        epistemic_p=calibrated.std(axis=0),
        confidence=confidence,
        conviction=reference.conviction(confidence),
        passes=raw.p.shape[0],
        mu_low=low,
        mu_high=high,
    )
