"""Population stability: recent rows against the bins stored with the version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tradewind.models.base import FloatArray
from tradewind.models.reference import PREDICTION, Reference
from tradewind.settings import DriftSettings

Status = Literal["fine", "warn", "alert"]
FLOOR = 1e-4
"""An empty bin counts as this share, so that one missing row is not infinite drift."""


@dataclass(frozen=True)
class DriftReport:
    """PSI per column, the prediction among them under ``p_up``."""

    psi: dict[str, float]
    status: Status
    worst_feature: str
    worst_psi: float
    prediction_psi: float

    def to_metrics(self) -> dict[str, float]:
        """Return ``psi_{column}`` figures, the worst first."""
        ordered = sorted(self.psi.items(), key=lambda item: -item[1])
        return {f"psi_{name}": value for name, value in ordered}


def psi(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Return the population stability index of two lists of shares over the same bins."""
    e = np.maximum(np.asarray(expected, dtype=np.float64), FLOOR)
    a = np.maximum(np.asarray(actual, dtype=np.float64), FLOOR)
    return float(((a - e) * np.log(a / e)).sum())


def status_of(value: float, settings: DriftSettings) -> Status:
    """Return fine below the warning, alert above the alert, warn between."""
    if value > settings.alert:
        return "alert"
    return "fine" if value < settings.warn else "warn"


def drift_report(
    reference: Reference,
    wide: FloatArray,
    names: Sequence[str],
    p_up: FloatArray,
    *,
    settings: DriftSettings,
) -> DriftReport:
    """Compare recent features (n, F) and predictions (n,) with the version's reference.

    NaN has a bin of its own: a feature that falls silent drifts. No rows give PSI 0.
    """
    columns = {name: wide[:, i] for i, name in enumerate(names)} | {PREDICTION: p_up}
    found = {
        name: psi(item.shares, item.shares_of(columns[name])) if len(p_up) else 0.0
        for name, item in reference.bins.items()
    }
    worst = max(found, key=lambda name: found[name])
    return DriftReport(
        psi=found,
        status=status_of(found[worst], settings),
        worst_feature=worst,
        worst_psi=found[worst],
        prediction_psi=found[PREDICTION],
    )
