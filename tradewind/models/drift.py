"""Population stability: recent rows against the bins stored with the version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import FloatArray
from tradewind.models.reference import PREDICTION, Reference
from tradewind.settings import DriftSettings

Status = Literal["fine", "warn", "alert"]
FLOOR = 1e-4
"""An empty bin counts as this share, so that one missing row is not infinite drift."""


@dataclass(frozen=True)
class DriftReport:
    """PSI per column, the prediction among them under ``p_up``; ``rows`` were compared."""

    psi: dict[str, float]
    statuses: dict[str, Status]
    status: Status
    worst_feature: str
    worst_psi: float
    prediction_psi: float
    rows: int

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
    """Compare recent features (n, F) and predictions (m,) with the version's reference.

    The two may be of different rows of the same days: a slow family predicts every k-th.

    NaN has a bin of its own: a feature that falls silent drifts. Neighbouring rows are alike,
    so a short window differs from a longer reference even where nothing changed.

    Raises
    ------
    TradewindError
        ``bad_input`` without rows, or without a column that the reference knows.
    """
    unknown = [name for name in reference.names if name not in names]
    if unknown or len(p_up) == 0 or len(wide) == 0:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"{len(wide)} rows of features and {len(p_up)} predictions, "
            f"missing columns: {', '.join(unknown) or 'none'}",
            "Pass recent rows built with the feature definitions of this version",
        )
    columns = {name: wide[:, i] for i, name in enumerate(names)} | {PREDICTION: p_up}
    found = {
        name: psi(item.shares, item.shares_of(columns[name]))
        for name, item in reference.bins.items()
    }
    worst = max(found, key=lambda name: found[name])
    return DriftReport(
        psi=found,
        statuses={name: status_of(value, settings) for name, value in found.items()},
        status=status_of(found[worst], settings),
        worst_feature=worst,
        worst_psi=found[worst],
        prediction_psi=found[PREDICTION],
        rows=len(wide),
    )
