"""Release gates: what a candidate must show before it may get an alias.

A gate states its figure and its limit in words a person reads in the UI; the same gates
and limits hold in every profile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models import metrics as m
from tradewind.models.base import FloatArray, IntArray
from tradewind.models.bootstrap import TimeBootstrap
from tradewind.models.evaluation import EvaluationReport
from tradewind.models.walk_forward import OutOfSample
from tradewind.settings import MS_PER_DAY, Settings

GATE_NAMES = ("skill", "ece", "champion", "uncertainty", "finite", "artefact", "smoke")
"""All release gates; the last two are the caller's, who adds them `GateReport.with_gate`."""

WALK_FORWARD_ROWS = "walk-forward rows"
FORECAST_ARRAYS = ("p_up", "mu", "uncertainty", "epistemic_p", "confidence", "conviction")


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
    settings: Settings,
    report: EvaluationReport,
    champion_p: FloatArray | None,
    *,
    pooled: OutOfSample | None = None,
    champion_unfitted_from_ms: int = 0,
) -> GateReport:
    """Return the statistical gates of a candidate.

    Parameters
    ----------
    champion_p
        The champion's calibrated p_up on the report's own test rows, shape (n,); None
        where there is no champion to compare with.
    pooled
        Walk-forward rows of the whole family (`walk_forward.pool`) for the ECE gate, where
        the report's own are too few.
    champion_unfitted_from_ms
        From where on the champion was neither fitted nor calibrated on bars
        (`BundleMeta.unfitted_from_ms`); the comparison with it leaves out the rows before.
    """
    rows = report.out_of_sample if pooled is None else pooled
    return GateReport(
        (
            _skill(settings, report),
            _no_ece(settings) if rows is None else ece_gate(settings, rows.p_up, rows.y),
            _champion(settings, report, champion_p, champion_unfitted_from_ms),
            _uncertainty(settings, report),
            _finite(report, rows),
        )
    )


def _skill(settings: Settings, report: EvaluationReport) -> Gate:
    """Accuracy above its minimum, or a log-loss significantly below the base rate's.

    In a market that mostly rose or fell, always saying so is right more often than the
    minimum; the accuracy must beat that too.
    """
    accuracy = float(report.figures["accuracy"])
    gain = float(report.figures["log_loss_minus_base_rate"])
    high = float(report.figures["log_loss_minus_base_rate_high"])
    rose = float(report.test.y_up.mean())
    limit = max(settings.gates.min_accuracy, rose, 1 - rose)
    return Gate(
        "skill",
        bool(accuracy > limit or high < 0),
        _finite_or_none(accuracy),
        limit,
        f"accuracy {accuracy:.4f} on {len(report.test)} test rows (gate > {limit:.4f}: the "
        f"minimum, or always saying the commoner side), or log-loss minus the base rate's "
        f"{gain:+.5f}, at most {high:+.5f} with {settings.gates.confidence_level:.0%} "
        "confidence (gate < 0)",
    )


def ece_gate(
    settings: Settings,
    p_up: FloatArray,
    y: FloatArray,
    *,
    rows: str = WALK_FORWARD_ROWS,
    remedy: str = "raise training.days_back",
) -> Gate:
    """Return the verdict on out-of-sample rows (n,): their ECE, beside a perfect model's.

    ``rows`` says what they are, and ``remedy`` what gives more of them.
    """
    count, limit = len(p_up), settings.calibration.ece_gate
    needed = settings.calibration.min_gate_rows
    if count < needed:
        text = f"ECE is judged on at least {needed} out-of-sample {rows}, there are {count}"
        return Gate("ece", False, None, limit, f"{text}: {remedy}")
    bins = settings.calibration.ece_bins
    value = m.ece(p_up, y, bins)
    return Gate(
        "ece",
        bool(value <= limit),
        _finite_or_none(value),
        limit,
        f"ECE {value:.4f} on {count} {rows} (gate ≤ {limit}; a perfectly "
        f"calibrated model would show {m.perfect_ece(p_up, bins):.4f})",
    )


def _no_ece(settings: Settings) -> Gate:
    return ece_gate(settings, np.empty(0), np.empty(0))


def _champion(
    settings: Settings,
    report: EvaluationReport,
    champion_p: FloatArray | None,
    unfitted_from_ms: int,
) -> Gate:
    """Not significantly worse than the champion on the test rows that are new to both.

    Too few of them are no evidence against the candidate: it passes, without a figure. What it
    can win here is the alias challenger; `paired_review` decides on bars to come.
    """
    if champion_p is None:
        return Gate("champion", True, None, 0.0, "no champion to compare with")
    rows = report.test
    if champion_p.shape != (len(rows),):
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"champion_p has shape {champion_p.shape}, the test slice {len(rows)} rows",
            "Predict with the champion on report.test",
        )
    new = rows.ts >= unfitted_from_ms
    days = len(np.unique(rows.ts[new] // MS_PER_DAY))
    left = (
        f"{int(new.sum())} of {len(rows)} test rows, of {days} day{'' if days == 1 else 's'}, "
        "that the champion was neither fitted nor calibrated on"
    )
    gates = settings.gates
    if new.sum() < gates.promotion_min_rows or days < gates.promotion_min_days:
        return Gate(
            "champion",
            True,
            None,
            0.0,
            f"not compared with the champion: {left}; {gates.promotion_min_rows} rows of "
            f"{gates.promotion_min_days} days are needed. The review of challengers compares "
            "on bars to come",
        )
    y = rows.y_up[new]
    worse = _bootstrap(settings, rows.ts[new]).paired(
        m.row_log_loss(report.forecast.p_up[new], y), m.row_log_loss(champion_p[new], y)
    )
    return Gate(
        "champion",
        bool(worse.low <= 0),
        _finite_or_none(worse.value),
        0.0,
        f"log-loss minus the champion's {worse.value:+.5f} [{worse.low:+.5f}, "
        f"{worse.high:+.5f}] on {left} (gate: not above 0 with confidence)",
    )


def _uncertainty(settings: Settings, report: EvaluationReport) -> Gate:
    """The error grows with the stated uncertainty: rank correlation above 0 with confidence."""
    error = np.abs(report.test.fwd_ret - report.forecast.mu)
    found = _bootstrap(settings, report.test.ts).rank_correlation(
        error, report.forecast.uncertainty
    )
    return Gate(
        "uncertainty",
        bool(found.low > 0),
        _finite_or_none(found.value),
        0.0,
        f"rank correlation of error with uncertainty {found.value:+.3f} "
        f"[{found.low:+.3f}, {found.high:+.3f}] (gate: above 0 with confidence)",
    )


def _finite(report: EvaluationReport, rows: OutOfSample | None) -> Gate:
    """No NaN or infinity in any prediction, of the test slice or walked forward."""
    seen = [getattr(report.forecast, name) for name in FORECAST_ARRAYS]
    if rows is not None:
        seen += [getattr(rows, name) for name in ("p_up", "mu", "sigma", "epistemic_p")]
    bad = sum(int((~np.isfinite(values)).sum()) for values in seen)
    return Gate("finite", bad == 0, float(bad), 0.0, f"{bad} values are NaN or infinite (gate 0)")


def _bootstrap(settings: Settings, ts: IntArray) -> TimeBootstrap:
    return TimeBootstrap(
        ts,
        samples=settings.training.bootstrap_samples,
        level=settings.gates.confidence_level,
        block_ms=settings.training.horizon * settings.market.timeframe_ms,
        seed=settings.training.seed,
    )


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
