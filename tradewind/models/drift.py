"""Population stability: recent rows against the bins stored with the version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import FloatArray
from tradewind.models.reference import PREDICTION, Reference
from tradewind.models.usual_drift import Quiet, Usual, psi_of_shares, step_drift
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
    have been quiet for longer than they ever should; they alarm whatever their PSI is. ``jumpy``
    are those whose steps from bar to bar are of another size than they ever were. The worst
    feature is a dead one, else the one highest over its own limit, by level or by steps
    (``over_limit`` times); the prediction only where no feature alarms.
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
    over_limit: float
    dead: tuple[str, ...] = ()
    jumpy: tuple[str, ...] = ()

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
            "jumpy": ", ".join(self.jumpy) or None,
            **self.to_metrics(),
        }

    def to_rows(self) -> tuple[dict[str, float | str], ...]:
        """Return a row for each column, the one highest over its limit first."""
        rows: list[dict[str, float | str]] = [
            {
                "column": name,
                "psi": value,
                "warn": self.limits[name].warn,
                "alert": self.limits[name].alert,
                "status": self.statuses[name],
            }
            for name, value in self.psi.items()
        ]
        return tuple(sorted(rows, key=lambda row: -float(row["psi"]) / float(row["alert"])))

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
    usual = usual_of(reference, settings)
    largest = {} if usual is None else usual.psi
    return {name: _limits(largest.get(name, 0.0), settings) for name in reference.bins}


def usual_of(reference: Reference, settings: DriftSettings) -> Usual | None:
    """Return the version's usual range if it is to be gone by and is of the same window."""
    usual = reference.usual
    fits = usual is not None and usual.days == settings.recent_days
    return usual if settings.usual and fits else None


def _limits(largest: float, settings: DriftSettings) -> Limits:
    return Limits(
        warn=max(settings.warn, largest),
        alert=max(settings.alert, settings.usual_factor * largest),
    )


def dead_features(
    reference: Reference, quiet: Quiet | None, settings: DriftSettings
) -> tuple[str, ...]:
    """Return features unchanged, or silent, for over ``dead_bars`` rows and far beyond ever.

    ``quiet`` is `usual_drift.quiet_by_now`. What was as quiet in the history for half as long is
    not called dead; without a history nothing is.
    """
    usual = usual_of(reference, settings)
    if usual is None or quiet is None:
        return ()
    pairs = ((quiet.still, usual.quiet.still), (quiet.silent, usual.quiet.silent))
    return tuple(
        name
        for name in reference.names
        if any(
            now.get(name, 0) > max(settings.dead_bars, settings.usual_factor * longest[name])
            for now, longest in pairs
            if name in longest
        )
    )


def drift_report(
    reference: Reference,
    wide: FloatArray,
    names: Sequence[str],
    p_up: FloatArray,
    *,
    settings: DriftSettings,
    quiet: Quiet | None = None,
    steps: FloatArray | None = None,
) -> DriftReport:
    """Compare recent features (n, F) and predictions (m,) with the version's reference.

    The two may be of different rows of the same days: a slow family predicts every k-th.

    NaN has a bin of its own: a feature that falls silent drifts. ``quiet`` are rows since each
    feature's last change and last value, ``steps`` (n, F) the changes from bar to bar
    (`usual_drift.steps_of`); None: not looked at. Both are judged by the usual range alone.

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
    dead = dead_features(reference, quiet, settings)
    moved = _step_ratios(reference, steps, names, settings)
    ratios = {
        name: max(value / limits[name].alert, moved.get(name, 0.0)) for name, value in found.items()
    }
    jumpy = tuple(name for name, ratio in moved.items() if ratio > 1)
    statuses = {name: status_of(value, limits[name]) for name, value in found.items()}
    statuses |= dict.fromkeys((*dead, *jumpy), "alert")
    # A broken feature drives the prediction: it is the feature that has to be looked at.
    own = {name: statuses[name] == "alert" and name != PREDICTION for name in ratios}
    worst = max(ratios, key=lambda name: (name in dead, own[name], ratios[name]))
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
        over_limit=ratios[worst],
        dead=dead,
        jumpy=jumpy,
    )


def _step_ratios(
    reference: Reference, steps: FloatArray | None, names: Sequence[str], settings: DriftSettings
) -> dict[str, float]:
    """Return the PSI of each feature's steps as a multiple of its own limit."""
    usual = usual_of(reference, settings)
    if usual is None or steps is None:
        return {}
    return {
        name: value / _limits(usual.step_psi[name], settings).alert
        for name, value in step_drift(usual, steps, names).items()
    }
