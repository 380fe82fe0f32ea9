"""Measure drift of a candidate's inputs, and move the alias it has earned."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.steps.judge import Judgement
from assets.steps.record import STAGE_TAG, log_changed, summarise, unit_tags
from assets.workspace import UnitTask, workspace
from tradewind.settings import Settings

if TYPE_CHECKING:
    from registry.versions import RegisteredVersion


@dataclass(frozen=True)
class Drift:
    """PSI of the recent window against the version's calibration slice."""

    status: str
    worst_feature: str
    worst_psi: float
    prediction_psi: float
    figures: dict[str, Any]


@dataclass(frozen=True)
class Release:
    """What became of a candidate: its alias, or why it has none."""

    name: str
    version: int
    passed: bool
    alias: str | None
    text: str


def measure_drift(settings: Settings, task: UnitTask) -> Drift:
    """Compare the last days of the training set with the bundle's reference."""
    from assets.steps.drift_look import look_at_inputs
    from registry.tracking import Tracking
    from tradewind.models.bundle import ModelBundle
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.drift_report import write_drift_html

    work = workspace(settings, task)
    samples = TrainingSet.load(work.training_set).samples
    bundle = ModelBundle.load(work.bundle)
    report, recent = look_at_inputs(settings, bundle, samples, task.until_ms)
    before = np.flatnonzero(samples.ts < recent.ts.min())
    html = write_drift_html(
        samples.subset(before), recent, work.root / "drift.html", seed=task.seed
    )
    run_id = str(json.loads(work.tracking_run.read_text(encoding="utf-8"))["run_id"])
    tags = {**unit_tags(settings, task), "drift": report.status}
    with Tracking(settings).start_run(task.unit.name, run_id=run_id, tags=tags) as run:
        log_changed(run, {"psi_worst": report.worst_psi, "psi_prediction": report.prediction_psi})
        run.log_artifact(html, "drift")
    return Drift(
        status=report.status,
        worst_feature=report.worst_feature,
        worst_psi=report.worst_psi,
        prediction_psi=report.prediction_psi,
        figures={
            **report.to_figures(),
            "report": str(html),
            "recent_rows": len(recent),
        },
    )


def _handover(
    settings: Settings, judged: Judgement, standing: RegisteredVersion | None, now_ms: int
) -> str | None:
    """Return why the champion makes way for this candidate without being beaten; else None.

    The candidate was compared with it and not found worse; uncompared it waits until the
    champion has expired, when there is nobody to be worse than.
    """
    from assets.steps.handover import handover_reason, has_expired

    compared = any(g["name"] == "champion" and g["value"] is not None for g in judged.gates)
    if standing is None or not (compared or has_expired(settings.registry, standing, now_ms)):
        return None
    return handover_reason(settings.registry, standing, now_ms)


def promote(settings: Settings, task: UnitTask, judged: Judgement) -> Release:
    """Move the alias of a version, after reading its gates again from the registry."""
    from registry.aliases import promote_candidate
    from registry.tracking import RunHandle, Tracking
    from registry.versions import find_alias, get_version

    tracking = Tracking(settings)
    version = get_version(tracking, judged.name, version=judged.version)
    passed = version.tags.get("gates") == "passed" and judged.passed
    reasons = [str(gate["text"]) for gate in judged.gates if not gate["passed"]]
    standing = find_alias(tracking, judged.name, "champion")
    change = promote_candidate(
        tracking,
        version,
        passed,
        reasons,
        handover=_handover(settings, judged, standing, task.until_ms),
        who=f"dagster:{task.dagster_run_id}",
        allow_failed=task.allow_failed_gates,
    )
    alias = None if change is None else change.alias
    RunHandle(tracking, judged.run_id).set_tags(
        {STAGE_TAG: "promoted" if alias else "judged", "alias": alias or "none"}
    )
    summarise(settings, tracking, task.parent_run_id)
    label = f"{judged.name}/{judged.version}"
    if alias is None:
        text = f"{label} is not promoted: {'; '.join(reasons)}"
    elif passed:
        text = f"{label} is now {alias}"
    else:
        text = f"{label} is {alias} although it missed its gates: {'; '.join(reasons)}"
    return Release(judged.name, judged.version, passed, alias, text)
