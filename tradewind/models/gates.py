"""Release gates: what a candidate must show before it may get an alias.

A gate states its figure and its limit in words a person reads in the UI; the same gates
and limits hold in every profile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tradewind.models import metrics as m
from tradewind.models.base import FloatArray
from tradewind.models.bootstrap import mean_interval
from tradewind.models.evaluation import EvaluationReport
from tradewind.settings import Settings

GATE_NAMES = ("skill", "ece", "champion", "uncertainty", "finite", "artefact", "smoke")


@dataclass(frozen=True)
class Gate:
    """One gate's verdict; ``value`` and ``limit`` are None where no figure exists."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    text: str


@dataclass(frozen=True)
class GateReport:
    """All verdicts."""

    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Return whether every gate passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def reasons(self) -> list[str]:
        """Return the texts of the gates that did not pass."""
        return [gate.text for gate in self.gates if not gate.passed]

    def with_gate(self, gate: Gate) -> GateReport:
        """Return a report with one more gate."""
        return GateReport((*self.gates, gate))


def check_gates(
    settings: Settings, report: EvaluationReport, champion_p: FloatArray | None
) -> GateReport:
    """Return the statistical gates of a candidate.

    Parameters
    ----------
    champion_p
        The champion's calibrated p_up on the report's own test rows, shape (n,); None
        where there is no champion to compare with.
    """
    return GateReport(
        (
            _skill(settings, report),
            _ece(settings, report),
            _champion(settings, report, champion_p),
            _uncertainty(settings, report),
            _finite(report),
        )
    )


def _skill(settings: Settings, report: EvaluationReport) -> Gate:
    """Accuracy above its minimum, or a log-loss significantly below the base rate's."""
    accuracy = float(report.figures["accuracy"])
    high = float(report.figures["log_loss_minus_base_rate_high"])
    limit = settings.gates.min_accuracy
    return Gate(
        "skill",
        accuracy > limit or high < 0,
        accuracy,
        limit,
        f"accuracy {accuracy:.4f} (gate > {limit}), or log-loss minus base rate at most "
        f"{high:+.5f} at {settings.gates.confidence_level:.0%} (gate < 0)",
    )


def _ece(settings: Settings, report: EvaluationReport) -> Gate:
    """Calibration error on pooled walk-forward rows, beside a perfect model's."""
    rows = report.out_of_sample
    count = 0 if rows is None else len(rows.ts)
    limit = settings.calibration.ece_gate
    if rows is None or count < settings.calibration.min_gate_rows:
        return Gate(
            "ece",
            False,
            None,
            limit,
            f"ECE needs {settings.calibration.min_gate_rows} walk-forward rows, there are {count}",
        )
    value = m.ece(rows.p_up, rows.y, settings.calibration.ece_bins)
    perfect = m.perfect_ece(rows.p_up, settings.calibration.ece_bins)
    return Gate(
        "ece",
        value <= limit,
        value,
        limit,
        f"ECE {value:.4f} on {count} walk-forward rows (gate ≤ {limit}; "
        f"a perfectly calibrated model would show {perfect:.4f})",
    )


def _champion(settings: Settings, report: EvaluationReport, champion_p: FloatArray | None) -> Gate:
    """Not significantly worse than the champion on the same rows."""
    if champion_p is None:
        return Gate("champion", True, None, 0.0, "no champion to compare with")
    rows = report.test
    worse = mean_interval(
        m.row_log_loss(report.forecast.p_up, rows.y_up) - m.row_log_loss(champion_p, rows.y_up),
        rows.ts,
        samples=settings.training.bootstrap_samples,
        level=settings.gates.confidence_level,
    )
    return Gate(
        "champion",
        worse.low <= 0,
        worse.value,
        0.0,
        f"log-loss minus the champion's on the same {len(rows)} rows {worse.value:+.5f} "
        f"[{worse.low:+.5f}, {worse.high:+.5f}] (gate: not above 0 with confidence)",
    )


def _uncertainty(settings: Settings, report: EvaluationReport) -> Gate:
    """The error grows with the stated uncertainty: rank correlation above 0 with confidence."""
    from scipy.stats import rankdata

    rows = report.test
    error = rankdata(np.abs(rows.fwd_ret - report.forecast.mu))
    stated = rankdata(report.forecast.uncertainty)
    product = _standardised(error) * _standardised(stated)
    found = mean_interval(
        product,
        rows.ts,
        samples=settings.training.bootstrap_samples,
        level=settings.gates.confidence_level,
    )
    return Gate(
        "uncertainty",
        found.low > 0,
        found.value,
        0.0,
        f"rank correlation of error with uncertainty {found.value:+.3f} "
        f"[{found.low:+.3f}, {found.high:+.3f}] (gate: above 0 with confidence)",
    )


def _finite(report: EvaluationReport) -> Gate:
    forecast = report.forecast
    bad = sum(
        int((~np.isfinite(values)).sum())
        for values in (forecast.p_up, forecast.mu, forecast.uncertainty, forecast.epistemic_p)
    )
    return Gate("finite", bad == 0, float(bad), 0.0, f"{bad} values are NaN or infinite (gate 0)")


def _standardised(values: FloatArray) -> FloatArray:
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
