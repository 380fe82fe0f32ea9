"""Give the champion a new calibrator, from what it said last week and what came of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.steps.judge import clean_process_gates
from assets.steps.live import Live, champion_of
from assets.steps.live_evidence import (
    ROLLED,
    SERVED,
    FoundRows,
    answered,
    find_rows,
    live_answers,
    with_rolled,
)
from assets.steps.record import STAGE_TAG, log_changed, verdict_tags, version_link
from assets.units import Unit, unit_symbols
from tradewind.clock import Clock
from tradewind.files import write_json
from tradewind.settings import MS_PER_DAY, Settings

if TYPE_CHECKING:
    import polars as pl

    from registry.tracking import Tracking
    from registry.versions import RegisteredVersion
    from tradewind.models.bundle import ModelBundle
    from tradewind.models.calibration import CalibrationChoice
    from tradewind.models.evaluation import EvaluationReport
    from tradewind.models.gates import GateReport
    from tradewind.models.live_calibration import Answered

KEPT, REGISTERED = "kept", "registered"
KIND = "recalibration"
FROM_TAG = "recalibrated_from"
AT_TAG = "recalibrated_at_ms"
FOUND_TAG = "recalibration"
SHOWN_FIRST = ("outcome", "new_version", "alias", "gates", "gates_failed", "labels", "update")


@dataclass(frozen=True)
class _Evidence:
    """What is known at ``now_ms``: all answers, the champion's last ones, and their rows."""

    said: pl.DataFrame
    recent: Answered
    found: FoundRows
    now_ms: int


@dataclass(frozen=True)
class _Candidate:
    """A champion with its new calibrator, judged, and the folder that holds its files."""

    champion: RegisteredVersion
    bundle: ModelBundle
    evidence: _Evidence
    report: EvaluationReport
    gates: GateReport
    work: Path


def recalibrate_champion(
    settings: Settings, clock: Clock, unit: Unit, *, who: str = "pipeline"
) -> Live:
    """Refit the champion's calibrator on its last answers, and register what comes of it.

    Where no update of the served probabilities is clearly better than none, nothing is
    registered (``outcome`` "kept"). Otherwise the forecaster with its new calibrator is a new
    version, which has to pass the same gates as a retrained one: skill, the paired comparison
    with the champion and uncertainty on last week's rows, each day calibrated by what was
    known before it; ECE on the rows of ``calibration.live_history_days``, in the same way.
    Running it again at the same market time gives the same version, also after a kill.

    Raises
    ------
    TradewindError
        ``no_champion``; ``not_enough_labels`` where too few of its answers have an outcome.
    """
    from filelock import FileLock

    from registry.tracking import Tracking

    folder = settings.home / "work" / "recalibrate" / unit.name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # a second run finds what the first one made
        return _recalibrate(settings, Tracking(settings), clock.now_ms(), unit, folder, who)


def _recalibrate(
    settings: Settings, tracking: Tracking, now_ms: int, unit: Unit, folder: Path, who: str
) -> Live:
    import polars as pl

    from tradewind.models.live_calibration import fit_update

    champion, bundle = champion_of(settings, unit)
    if champion.tags.get(AT_TAG) == str(now_ms):
        return _told(settings, champion, "champion")
    calibration = settings.calibration
    said = live_answers(settings, tracking, unit, now_ms)
    own = (pl.col("version") == champion.version) & (
        pl.col("bar_ts") >= now_ms - calibration.live_days * MS_PER_DAY
    )
    recent = answered(said.filter(own))
    choice = fit_update(
        recent, horizon=settings.training.horizon, needed=calibration.live_min_labels
    )
    figures: dict[str, Any] = {
        "outcome": KEPT,
        "labels": len(recent),
        "update": choice.kind,
        **{f"log_loss_{kind}": score for kind, score in choice.scores.items()},
    }
    if choice.kind == "identity":
        return Live(champion.label, len(recent), figures)
    said = with_rolled(settings, said)
    found = find_rows(settings, unit, said.filter(own), now_ms)
    evidence = _Evidence(said, recent, found, now_ms)
    work = folder / _token(champion, recent)
    candidate = _judged(settings, champion, bundle, choice, evidence, work)
    figures |= {
        "outcome": REGISTERED,
        "calibrator": candidate.bundle.calibrator.kind,
        **_gain(settings, evidence),
        "gates": "passed" if candidate.gates.passed else "failed",
        "gates_failed": verdict_tags(candidate.gates)["gates_failed"],
    }
    version = _registered(settings, tracking, unit, candidate, figures)
    alias = _promoted(tracking, version, candidate.gates, who)
    shutil.rmtree(work)  # the registry has the files
    return _told(settings, version, alias)


def _judged(
    settings: Settings,
    champion: RegisteredVersion,
    bundle: ModelBundle,
    choice: CalibrationChoice,
    evidence: _Evidence,
    work: Path,
) -> _Candidate:
    """Return the bundle with its new calibrator, saved in ``work``, and what the gates say."""
    from tradewind.models.live_calibration import updated

    calibrator = updated(bundle.calibrator, choice.calibrator)
    reference = bundle.reference.recalibrated(
        choice.calibrator, choice.calibrator.apply(evidence.recent.p_up)
    )
    fresh = replace(bundle, calibrator=calibrator, reference=reference)
    report = _report(settings, fresh, evidence.found)
    write_json(work / "report.json", report.to_json())
    evidence.found.training_set.save(work / "training_set")
    fresh = _saved(settings, champion, fresh, report, evidence.recent, work)
    gates = _gates(settings, fresh, report, evidence, work)
    return _Candidate(champion, fresh, evidence, report, gates, work)


def _report(settings: Settings, bundle: ModelBundle, found: FoundRows) -> EvaluationReport:
    """Measure last week's rows, each day by what was known before it."""
    import numpy as np

    from tradewind.models.evaluation import judge_rows

    forecast = bundle.predict(found.rows, n_samples=settings.training.judge_passes)
    confidence = 2 * np.abs(found.rolled - 0.5)
    forecast = replace(
        forecast,
        p_up=found.rolled,
        confidence=confidence,
        conviction=bundle.reference.conviction(confidence),
    )
    base = {"base_rate": np.full(len(found.rows), bundle.meta.base_rate)}
    return judge_rows(settings, bundle, found.rows, forecast, base)


def _saved(
    settings: Settings,
    champion: RegisteredVersion,
    bundle: ModelBundle,
    report: EvaluationReport,
    recent: Answered,
    work: Path,
) -> ModelBundle:
    """Save the bundle beside the champion's own forecaster files; return what the files hold.

    Nothing in it depends on the wall clock, so that made again it has the same digest. The
    skill, which weighs the member in the ensemble, stays: a week of labels cannot tell it.
    """
    from tradewind.models.bundle import ModelBundle

    labels_end = int(recent.ts.max()) + (
        (settings.training.horizon + 1) * settings.market.timeframe_ms
    )
    metrics = {name: float(v) for name, v in report.metrics().items() if v is not None}
    update = {"metrics": metrics, "calibrated_end_ms": labels_end}
    replace(bundle, meta=bundle.meta.model_copy(update=update)).save(
        work / "bundle", forecaster_of=settings.home / "models" / champion.label
    )
    return ModelBundle.load(work / "bundle")


def _gates(
    settings: Settings,
    bundle: ModelBundle,
    report: EvaluationReport,
    evidence: _Evidence,
    work: Path,
) -> GateReport:
    from tradewind.models.gates import GateReport, check_gates, ece_gate

    found = evidence.found
    ece = ece_gate(
        settings,
        evidence.said[ROLLED].to_numpy(),
        evidence.said["y_up"].to_numpy(),
        rows="live answers",
        remedy="let serving answer longer, or raise calibration.live_history_days",
    )
    checked = check_gates(settings, report, found.served)
    gates = GateReport(tuple(ece if gate.name == ece.name else gate for gate in checked.gates))
    for gate in clean_process_gates(
        settings,
        bundle,
        found.training_set,
        work / "bundle",
        work / "training_set",
        evidence.now_ms,
    ):
        gates = gates.with_gate(gate)
    return gates


def _gain(settings: Settings, evidence: _Evidence) -> dict[str, float]:
    """Return what is won over what was served, on rows that no update was fitted on."""
    from tradewind.models.metrics import ece, log_loss

    found, y = evidence.found, evidence.found.rows.y_up
    said, bins = evidence.said, settings.calibration.ece_bins
    labels = said["y_up"].to_numpy()
    return {
        "rows_judged": len(found.rows),
        "log_loss_minus_champion": log_loss(found.rolled, y) - log_loss(found.served, y),
        "rows_ece": len(said),
        "ece": ece(said[ROLLED].to_numpy(), labels, bins),
        "ece_as_served": ece(said[SERVED].to_numpy(), labels, bins),
    }


def _registered(
    settings: Settings,
    tracking: Tracking,
    unit: Unit,
    candidate: _Candidate,
    figures: dict[str, Any],
) -> RegisteredVersion:
    """Register the candidate under a run nested in the champion's, once."""
    from registry.links import run_url
    from registry.names import recalibration_name, span_text
    from registry.pyfunc_io import example_of
    from registry.tracking import NOTE_TAG
    from registry.versions import register_bundle

    champion, bundle, evidence = candidate.champion, candidate.bundle, candidate.evidence
    recent = evidence.recent
    start, end = int(recent.ts.min()), int(recent.ts.max())
    identity = {"kind": KIND, "version": champion.label, "work": candidate.work.name}
    verdict = verdict_tags(candidate.gates)
    kind = bundle.calibrator.kind
    given, answer = example_of(bundle, evidence.found.rows, n_samples=settings.serving.n_samples)
    with tracking.start_run(
        recalibration_name(unit.family, unit.key, champion.version, start, end),
        run_id=tracking.find_run(identity),
        parent_run_id=champion.run_id,
        tags={
            **identity,
            **verdict,
            "family": unit.family,
            "model_key": unit.key,
            "symbols": " ".join(unit_symbols(settings, unit)),
            "profile": settings.profile.value,
            "data_span": span_text(start, end),
            "feature_version": bundle.meta.feature_version,
            "data_fingerprint": bundle.meta.data_fingerprint,
        },
        params={"calibrator": kind, "update": figures["update"], "labels": len(recent)},
    ) as run:
        log_changed(run, candidate.report.metrics())
        run.log_artifact(candidate.work / "report.json", "evaluation")
        page = run_url(settings, tracking.experiment_id, run.run_id)
        told = figures | ({"mlflow_url": page} if page else {})
        version = register_bundle(
            tracking,
            candidate.work / "bundle",
            run_id=run.run_id,
            name=unit.name,
            input_example=given,
            output_example=answer,
            description=(
                f"{champion.label} with its calibrator refitted on {len(recent)} answers and "
                f"what came of them, {span_text(start, end)}; the forecaster is the same."
            ),
            tags={
                **verdict,
                FROM_TAG: champion.label,
                AT_TAG: str(evidence.now_ms),
                FOUND_TAG: {"figures": told, "gates": [asdict(g) for g in candidate.gates.gates]},
                "calibrator": kind,
                "profile": settings.profile.value,
                "train_span": span_text(bundle.meta.train_start_ms, bundle.meta.train_end_ms),
                "data_span": span_text(start, end),
            },
        )
        run.set_tags(
            {
                STAGE_TAG: "judged",
                "new_version": version.label,
                NOTE_TAG: _note(settings, candidate, figures, version),
            }
        )
    return version


def _promoted(
    tracking: Tracking, version: RegisteredVersion, gates: GateReport, who: str
) -> str | None:
    """Give the version the alias that its gates have earned; return it."""
    from registry.aliases import promote_candidate
    from registry.tracking import RunHandle

    change = promote_candidate(tracking, version, gates.passed, gates.reasons, who=who)
    alias = None if change is None else change.alias
    RunHandle(tracking, version.run_id).set_tags(
        {STAGE_TAG: "promoted" if alias else "judged", "alias": alias or "none"}
    )
    return alias


def _told(settings: Settings, version: RegisteredVersion, alias: str | None) -> Live:
    """Return what a recalibration found, as the version that it made remembers it."""
    from registry.links import version_url

    found = json.loads(version.tags[FOUND_TAG])
    figures = found["figures"] | {"new_version": version.label, "alias": alias or "none"}
    shown = {name: figures[name] for name in SHOWN_FIRST} | figures
    page = version_url(settings, version.name, version.version)
    if page:
        shown["version_page_url"] = page
    return Live(version.tags[FROM_TAG], shown["labels"], shown, tuple(found["gates"]))


def _note(
    settings: Settings,
    candidate: _Candidate,
    figures: dict[str, Any],
    version: RegisteredVersion,
) -> str:
    gates = candidate.gates
    ticks = " · ".join(f"{'✓' if gate.passed else '✗'} {gate.name}" for gate in gates.gates)
    return "\n".join(
        [
            f"**{candidate.champion.label}** recalibrated on {figures['labels']} answers "
            f"({figures['update']}): log-loss minus the champion's "
            f"{figures['log_loss_minus_champion']:+.5f} on {figures['rows_judged']} rows  ",
            f"Gates {'passed' if gates.passed else 'FAILED'}: {ticks}",
            "",
            f"- registered as {version_link(settings, version.name, version.version)}",
            *(f"- ✗ {reason}" for reason in gates.reasons),
        ]
    )


def _token(champion: RegisteredVersion, rows: Answered) -> str:
    """Return a name made of all that the new calibrator follows from."""
    digest = hashlib.sha256(champion.label.encode())
    for values in asdict(rows).values():
        digest.update(values.tobytes())
    return digest.hexdigest()[:16]
