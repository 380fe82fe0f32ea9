"""Population stability: recent rows against the bins stored with the version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import FloatArray
from tradewind.models.reference import PREDICTION, Reference
from tradewind.models.usual_drift import psi_of_shares
from tradewind.settings import DriftSettings

Status = Literal["fine", "warn", "alert"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class Limits:
    """From where on a column's PSI is a warning, and above where an alert."""

    warn: float
    alert: float


@dataclass(frozen=True)
class DriftReport:
    """PSI per column, the prediction among them under ``p_up``; ``rows`` were compared.

    ``raw_status`` is what the bare limits say of the same figures. ``dead`` are features that
    have stood still for longer than they ever should; they alarm whatever their PSI is. The
    worst feature is a dead one, else the one highest over its own limit.
    """

    psi: dict[str, float]
    limits: dict[str, Limits]
    statuses: dict[str, Status]
    status: Status
    raw_status: Status
    worst_feature: str
    worst_psi: float
    prediction_psi: float
    rows: int
    dead: tuple[str, ...] = ()

    @property
    def over_limit(self) -> float:
        """Return the worst column's PSI as a multiple of its limit."""
        return self.worst_psi / self.limits[self.worst_feature].alert

    def to_figures(self) -> dict[str, float | str | None]:
        """Return the verdict and what it rests on, then ``to_metrics``."""
        return {
            "status": self.status,
            "raw_status": self.raw_status,
            "worst_feature": self.worst_feature,
            "worst_psi": self.worst_psi,
            "worst_limit": self.limits[self.worst_feature].alert,
            "over_limit": self.over_limit,
            "dead": ", ".join(self.dead) or None,
            **self.to_metrics(),
        }

    def to_metrics(self) -> dict[str, float]:
        """Return ``psi_{column}`` figures, the worst first."""
        ordered = sorted(self.psi.items(), key=lambda item: -item[1])
        return {f"psi_{name}": value for name, value in ordered}


def psi(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Return the population stability index of two lists of shares over the same bins."""
    e, a = (np.asarray(shares, dtype=np.float64) for shares in (expected, actual))
    return float(psi_of_shares(e, a))


def status_of(value: float, limits: Limits | DriftSettings) -> Status:
    """Return fine below the warning, alert above the alert, warn between."""
    if value > limits.alert:
        return "alert"
    return "fine" if value < limits.warn else "warn"


def limits_of(reference: Reference, settings: DriftSettings) -> dict[str, Limits]:
    """Return each column's limits: the settings', and beyond what is usual for the version.

    A version without usual ranges, or with those of windows of another length, has the bare
    limits; so has every version with ``settings.usual`` off.
    """
    usual = reference.usual
    known = usual is not None and settings.usual and usual.days == settings.recent_days
    largest = usual.psi if known and usual is not None else {}
    return {
        name: Limits(
            warn=max(settings.warn, largest.get(name, 0.0)),
            alert=max(settings.alert, settings.usual_factor * largest.get(name, 0.0)),
        )
        for name in reference.bins
    }


def dead_features(
    reference: Reference, still: Mapping[str, int], settings: DriftSettings
) -> tuple[str, ...]:
    """Return features unchanged for over ``dead_bars`` rows and longer than ever before.

    ``still`` are rows since the last change (`usual_drift.standing_still`). What stood still in
    the history for half as long is not called dead; without a history nothing is.
    """
    if reference.usual is None:
        return ()
    runs = reference.usual.runs
    return tuple(
        name
        for name, rows in still.items()
        if name in runs and rows > max(settings.dead_bars, settings.usual_factor * runs[name])
    )


def drift_report(
    reference: Reference,
    wide: FloatArray,
    names: Sequence[str],
    p_up: FloatArray,
    *,
    settings: DriftSettings,
    still: Mapping[str, int] | None = None,
) -> DriftReport:
    """Compare recent features (n, F) and predictions (m,) with the version's reference.

    The two may be of different rows of the same days: a slow family predicts every k-th.

    NaN has a bin of its own: a feature that falls silent drifts. ``still`` are rows since each
    feature's last change; None: not looked at.

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
    limits = limits_of(reference, settings)
    dead = dead_features(reference, still or {}, settings)
    statuses = {name: status_of(value, limits[name]) for name, value in found.items()}
    statuses |= dict.fromkeys(dead, "alert")
    worst = max(found, key=lambda name: (name in dead, found[name] / limits[name].alert))
    return DriftReport(
        psi=found,
        limits=limits,
        statuses=statuses,
        # The prediction counts like a feature; one alert is enough.
        status=max(statuses.values(), key=STATUSES.index),
        raw_status=status_of(max(found.values()), settings),
        worst_feature=worst,
        worst_psi=found[worst],
        prediction_psi=found[PREDICTION],
        rows=len(wide),
        dead=dead,
    )
