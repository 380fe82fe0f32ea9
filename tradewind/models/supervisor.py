"""The model supervisor's judgement of one live member: a pure function of what it said.

A figure enters a warning or a disable at one limit and leaves it at a lower one; between the
two nothing changes. A state also lasts a least time, so that no noise at a limit flaps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tradewind.ledger.members import (
    SUPERVISOR,
    MemberCode,
    MemberState,
    MemberStatus,
)
from tradewind.models import _supervised_figures as measured
from tradewind.models._supervised_figures import Answers as Answers
from tradewind.models.base import BoolArray, IntArray
from tradewind.settings import MS_PER_DAY, Limit, Settings, SupervisorSettings

Action = Literal["none", "warn", "disable", "enable"]
MS_PER_HOUR = 3_600_000
QUALITY = (
    MemberCode.CALIBRATION,
    MemberCode.ACCURACY,
    MemberCode.BIAS,
    MemberCode.CONSISTENCY,
)
"""Judged on what a member says: a disabled one goes on saying it, with weight 0."""
OPERATIONS = (MemberCode.ERRORS, MemberCode.LATENCY)
"""A disabled member is not asked again, so it comes back on parole, to be judged anew."""


QUALITY_FIGURES = (
    (MemberCode.CALIBRATION, "ece_score", "ece"),
    (MemberCode.CALIBRATION, "log_loss_score", "log_loss"),
    (MemberCode.ACCURACY, "accuracy_score", "accuracy"),
    (MemberCode.BIAS, "bias", "bias"),
    (MemberCode.CONSISTENCY, "flips", "flips"),
)
"""Reason, name of the figure, and the setting with its limits."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of one member's champion version.

    Parameters
    ----------
    answers
        Of this version alone, in the window.
    asked_ts, failed
        Bars of the answers that it should have been part of (ms), and whether it failed;
        shape (n,).
    base_rate
        Share of rises that was known before the window.
    """

    family: str
    key: str
    version: str
    answers: Answers
    asked_ts: IntArray
    failed: BoolArray
    base_rate: float = 0.5


@dataclass(frozen=True)
class Finding:
    """One figure beside its limits; ``value`` None where there is too little to judge it."""

    code: MemberCode
    name: str
    value: float | None
    limit: Limit
    text: str

    @property
    def level(self) -> int:
        """Return 0 under the warning, 1 at it, 2 where it disables."""
        if self.value is None or self.value < self.limit.warn:
            return 0
        return 2 if self.value >= self.limit.disable else 1

    @property
    def calm(self) -> bool:
        """Return whether nothing speaks against leaving: under the lower limit, or unknown."""
        return self.value is None or self.value < self.limit.leave


@dataclass(frozen=True)
class Verdict:
    """The state a member should have from now on, and everything it rests on."""

    after: MemberState
    action: Action
    findings: tuple[Finding, ...]


def judge(
    evidence: Evidence, before: MemberState | None, now_ms: int, settings: Settings
) -> Verdict:
    """Return the verdict on one member; the same input gives the same verdict.

    Parameters
    ----------
    evidence
        Of the champion's present version.
    before
        Its state in the ledger, None where there is none. One that a person holds is
        returned as it is, with the findings beside.
    now_ms
        Market time.
    """
    parole = before is not None and before.code is MemberCode.PAROLE
    start = before.since_ms if before is not None and parole else -math.inf
    figures, findings = _measure(evidence, now_ms, start, settings)
    if before is not None and before.held:
        return Verdict(before, "none", findings)
    fresh = before is None or before.version != evidence.version
    status, code, since_ms = _next(evidence, before, findings, now_ms, settings)
    hours = _hours(since_ms, now_ms)
    limits = settings.supervisor
    retrain = code in QUALITY and (
        status is MemberStatus.DISABLED
        or (status is MemberStatus.WARNED and hours >= limits.retrain_warned_hours)
    )
    after = MemberState(
        evidence.family,
        evidence.key,
        status,
        code,
        _why(status, code, findings, before),
        SUPERVISOR,
        since_ms,
        version=evidence.version,
        # Asked once, asked until the state ends: the request must not come and go.
        retrain=retrain
        or (not fresh and before is not None and before.retrain and before.state is status),
        figures=figures,
    )
    was = before.state if before is not None else MemberStatus.ENABLED
    return Verdict(after, _action(was, status), findings)


def _next(
    evidence: Evidence,
    before: MemberState | None,
    findings: Sequence[Finding],
    now_ms: int,
    settings: Settings,
) -> tuple[MemberStatus, MemberCode, int]:
    """Return the state, its code and since when."""
    limits = settings.supervisor
    worst = max(findings, key=lambda item: item.level)
    entered = MemberStatus.WARNED if worst.level else MemberStatus.ENABLED
    if before is None:
        return entered, worst.code if worst.level else MemberCode.WELL, now_ms
    if before.version and before.version != evidence.version:
        # Another version has passed the gates: what the one before did is not its doing.
        return MemberStatus.ENABLED, MemberCode.NEW_VERSION, now_ms
    hours = _hours(before.since_ms, now_ms)
    if before.state is MemberStatus.ENABLED:
        if worst.level:
            return MemberStatus.WARNED, worst.code, now_ms
        return MemberStatus.ENABLED, before.code, before.since_ms
    if before.state is MemberStatus.WARNED:
        if worst.level == 2 and hours >= limits.min_warned_hours:
            return MemberStatus.DISABLED, worst.code, now_ms
        if hours >= limits.min_calm_hours and _well_again(before.code, findings):
            return MemberStatus.ENABLED, MemberCode.WELL, now_ms
        return MemberStatus.WARNED, _standing(before.code, findings, worst), before.since_ms
    if hours >= limits.min_disabled_hours:
        if before.code in OPERATIONS:
            return MemberStatus.WARNED, MemberCode.PAROLE, now_ms
        if _well_again(before.code, findings):
            return MemberStatus.ENABLED, MemberCode.WELL, now_ms
    return MemberStatus.DISABLED, before.code, before.since_ms


def _well_again(code: MemberCode, findings: Sequence[Finding]) -> bool:
    """Return whether every figure is calm, and what the state was entered for is known."""
    own = MemberCode.ERRORS if code is MemberCode.PAROLE else code
    named = [item for item in findings if item.code is own]
    known = any(item.value is not None for item in named) if named else True
    return known and all(item.calm for item in findings)


def _standing(code: MemberCode, findings: Sequence[Finding], worst: Finding) -> MemberCode:
    """Return the code of a warning that lasts: its own until that is calm, then the worst."""
    own = [item for item in findings if item.code is code]
    if worst.level and own and all(item.calm for item in own):
        return worst.code
    return code


def _measure(
    evidence: Evidence, now_ms: int, operations_start: float, settings: Settings
) -> tuple[dict[str, float], tuple[Finding, ...]]:
    """Return every figure, and those that have limits with their limits."""
    limits = settings.supervisor
    known = evidence.answers.ts >= now_ms - limits.window_days * MS_PER_DAY
    said = evidence.answers.subset(known & (evidence.answers.ts <= now_ms))
    figures, quality = _quality(evidence, said, settings)
    begin = max(now_ms - limits.operations_hours * MS_PER_HOUR, operations_start)
    recent = said.subset(said.ts >= begin)
    asked = (evidence.asked_ts >= begin) & (evidence.asked_ts <= now_ms)
    failed = int(evidence.failed[asked].sum())
    figures |= {"asked": float(asked.sum()), "failed": float(failed)}
    errors = failed / int(asked.sum()) if asked.sum() >= limits.min_asked else None
    timed = recent.latency_ms[np.isfinite(recent.latency_ms)]
    slow = float(np.percentile(timed, 95)) if len(timed) >= limits.min_asked else None
    operations = (
        Finding(
            MemberCode.ERRORS,
            "errors",
            errors,
            limits.errors,
            f"it failed in {failed} of {int(asked.sum())} answers",
        ),
        Finding(
            MemberCode.LATENCY,
            "latency_p95_ms",
            slow,
            limits.latency_ms,
            f"its forward takes {slow or 0:.0f} ms at the 95th percentile",
        ),
    )
    findings = (*quality, *operations)
    figures |= {item.name: float(item.value) for item in findings if item.value is not None}
    return figures, findings


def _quality(
    evidence: Evidence, said: Answers, settings: Settings
) -> tuple[dict[str, float], tuple[Finding, ...]]:
    """Return the figures of what a member said, those without enough behind them unknown."""
    limits = settings.supervisor
    rows = said.subset(np.isfinite(said.y))
    days = measured.days_of(rows.ts)
    enough = len(rows) >= limits.min_labels and days >= limits.min_days
    side = measured.sides(said.p_up, settings.serving.base_threshold)
    figures: dict[str, float] = {
        "answers": len(said),
        "labels": len(rows),
        "label_days": days,
        "calls": int((side != 0).sum()),
        "base_rate": evidence.base_rate,
    }
    found: list[Finding] = []
    if enough:
        figures["rises"] = float(rows.y.mean())
        found += [
            _ece(rows, figures, settings),
            _log_loss(rows, evidence.base_rate, limits),
            _accuracy(rows, figures, settings),
        ]
    if figures["calls"] >= limits.min_calls:
        found.append(_flips(said, side, limits))
    if enough and figures["calls"] >= limits.min_calls:
        found.append(_bias(said.subset(side != 0), side[side != 0], figures, limits))
    known = {item.name for item in found}
    unknown = (
        Finding(code, name, None, getattr(limits, setting), "")
        for code, name, setting in QUALITY_FIGURES
        if name not in known
    )
    return figures, (*found, *unknown)


def _ece(rows: Answers, figures: dict[str, float], settings: Settings) -> Finding:
    ece, perfect, score = measured.excess_ece(
        rows,
        horizon=settings.training.horizon,
        step_ms=settings.market.timeframe_ms,
        repeats=settings.supervisor.perfect_repeats,
    )
    figures |= {"ece": ece, "ece_perfect": perfect}
    text = f"ECE {ece:.3f} where a perfect model shows {perfect:.3f} ({score:.1f} deviations)"
    return Finding(MemberCode.CALIBRATION, "ece_score", score, settings.supervisor.ece, text)


def _log_loss(rows: Answers, base_rate: float, limits: SupervisorSettings) -> Finding:
    score = measured.excess_log_loss(rows.p_up, rows.y, base_rate, rows.ts)
    text = f"log-loss is {score:.1f} standard errors above the base rate's"
    return Finding(MemberCode.CALIBRATION, "log_loss_score", score, limits.log_loss, text)


def _accuracy(rows: Answers, figures: dict[str, float], settings: Settings) -> Finding:
    limits = settings.supervisor
    side = measured.sides(rows.p_up, settings.serving.base_threshold)
    called, side = rows.subset(side != 0), side[side != 0]
    if len(called) < limits.min_calls:
        return Finding(MemberCode.ACCURACY, "accuracy_score", None, limits.accuracy, "")
    true = ((side == 1) == (called.y == 1)).astype(np.float64)
    claimed = np.maximum(called.p_up, 1 - called.p_up)
    score = measured.day_score(claimed - true, called.ts)
    figures |= {"accuracy_calls": float(true.mean()), "claimed": float(claimed.mean())}
    text = (
        f"{true.mean():.1%} of the calls came true, {claimed.mean():.1%} was claimed "
        f"({score:.1f} standard errors)"
    )
    return Finding(MemberCode.ACCURACY, "accuracy_score", score, limits.accuracy, text)


def _flips(said: Answers, side: IntArray, limits: SupervisorSettings) -> Finding:
    rate = measured.flip_rate(said, side)
    text = f"{rate:.0%} of the calls turn the one before round"
    return Finding(MemberCode.CONSISTENCY, "flips", rate, limits.flips, text)


def _bias(
    called: Answers, side: IntArray, figures: dict[str, float], limits: SupervisorSettings
) -> Finding:
    days = measured.effective_days(called.ts)
    share = float((side == 1).mean())
    figures |= {"call_days": days, "buy_share": share}
    if days < limits.bias_days:
        return Finding(MemberCode.BIAS, "bias", None, limits.bias, "")
    # One long call of a sound model is one-sided too: days must agree on the side.
    score = abs(measured.day_score(side / 2, called.ts))
    figures["bias_score"] = score
    away = abs(share - figures["rises"]) if score >= limits.bias_score else 0.0
    text = f"BUY is {share:.0%} of {len(side)} calls, {figures['rises']:.0%} of the bars rose"
    return Finding(MemberCode.BIAS, "bias", away, limits.bias, text)


def _why(
    status: MemberStatus,
    code: MemberCode,
    findings: Sequence[Finding],
    before: MemberState | None,
) -> str:
    """Return the reasons with their figures, worst first."""
    high = sorted((item for item in findings if item.level), key=lambda item: -item.level)
    said = "; ".join(
        f"{item.text} (limit {item.limit.disable if item.level == 2 else item.limit.warn:g})"
        for item in high
    )
    if said:
        return said
    if status is not MemberStatus.ENABLED and before is not None and before.state is status:
        return before.why
    if code is MemberCode.PAROLE:
        return "asked again after the time that a disable for errors or latency lasts"
    if code is MemberCode.NEW_VERSION:
        return "another version is champion: judged afresh"
    judged = [item.name for item in findings if item.value is not None]
    return f"within its limits: {', '.join(judged)}" if judged else "too few answers to judge yet"


def _action(was: MemberStatus, status: MemberStatus) -> Action:
    if was is status:
        return "none"
    if status is MemberStatus.ENABLED:
        return "enable"
    return "warn" if status is MemberStatus.WARNED else "disable"


def _hours(since_ms: int, now_ms: int) -> float:
    """Return how long a state lasts; one of later than now is of a replay that was set back."""
    return (now_ms - since_ms) / MS_PER_HOUR if since_ms <= now_ms else math.inf
