"""Calibrate, evaluate, gate and register the candidate of a unit."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.steps.card import CARD_FILE, CardFacts, description, model_card, model_description
from assets.steps.probe import probe_bundle
from assets.steps.record import (
    CONTEXTS,
    STAGE_TAG,
    log_changed,
    summarise,
    unit_note,
    unit_tags,
    verdict_tags,
)
from assets.units import Unit
from assets.workspace import UnitTask, Workspace, workspace
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_json
from tradewind.settings import Settings

if TYPE_CHECKING:
    from registry.tracking import Tracking
    from registry.versions import RegisteredVersion
    from tradewind.models.base import FloatArray, Samples
    from tradewind.models.bundle import ModelBundle
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.evaluation import EvaluationReport
    from tradewind.models.gates import Gate, GateReport
    from tradewind.models.walk_forward import OutOfSample

LOSS_SERIES = ("train_loss", "valid_loss", "valid_log_loss")
SAME = 1e-9
"""How far a clean process's answer may be from this one's: the same code and bytes."""


@dataclass(frozen=True)
class Judgement:
    """A registered candidate and what its gates said."""

    name: str
    version: int
    run_id: str
    passed: bool
    gates: list[dict[str, Any]]
    metrics: dict[str, float | None]
    pictures: list[str]
    run_url: str | None = None
    version_url: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def evaluate(settings: Settings, task: UnitTask) -> Judgement:
    """Turn a finished fit into a registered version with figures, pictures and gates.

    Running it again gives the same version: the bundle that a first run saved is read, and
    the registry knows it by its digest.
    """
    from registry.links import run_url, version_url
    from registry.tracking import NOTE_TAG, Tracking
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.evaluation import evaluate as measure
    from tradewind.models.pictures import save_loss_curve, save_pictures

    work = workspace(settings, task)
    with work.locked("judge"):
        training_set = TrainingSet.load(work.training_set)
        bundle = _candidate(settings, task, training_set, work)
        report = measure(
            settings, training_set, bundle, task.key, _out_of_sample(settings, task, training_set)
        )
        bundle = _saved(bundle, report, work)
        write_json(work.report, report.to_json())
        pictures = save_pictures(report, work.pictures)
        tracking = Tracking(settings)
        gates = _gates(settings, task, tracking, training_set, bundle, report, work)
        metrics = report.metrics()
        run_id = str(json.loads(work.tracking_run.read_text(encoding="utf-8"))["run_id"])
        page = run_url(settings, tracking.experiment_id, run_id)
        with tracking.start_run(
            task.unit.name, run_id=run_id, tags=unit_tags(settings, task)
        ) as run:
            loss = save_loss_curve(_losses(tracking, run_id), work.pictures)
            pictures += [loss] if loss else []
            logged = metrics | report.symbol_metrics()
            log_changed(run, logged)
            run.log_params({"calibrator": bundle.calibrator.kind})
            facts = CardFacts(
                settings=settings,
                task=task,
                meta=bundle.meta,
                gates=gates,
                metrics=logged,
                slices=_slices(settings, training_set, task.key),
                calibrator=bundle.calibrator.kind,
                run_id=run_id,
                run_page=page,
            )
            card = model_card(facts)
            run.log_text(card, CARD_FILE)
            run.log_artifact(work.report, "evaluation")
            run.log_artifact(work.pictures, "pictures")
            version = _register(settings, tracking, facts, work, bundle, training_set, card)
            run.set_tags(
                {
                    **verdict_tags(gates),
                    STAGE_TAG: "judged",
                    "version": version.label,
                    NOTE_TAG: unit_note(settings, task, gates, metrics, version),
                }
            )
        summarise(settings, tracking, task.parent_run_id)
    return Judgement(
        name=version.name,
        version=version.version,
        run_id=run_id,
        passed=gates.passed,
        gates=[asdict(gate) for gate in gates.gates],
        metrics=metrics,
        pictures=[str(path) for path in pictures],
        run_url=page,
        version_url=version_url(settings, version.name, version.version),
    )


def _candidate(
    settings: Settings, task: UnitTask, training_set: TrainingSet, work: Workspace
) -> ModelBundle:
    """Return the bundle that an earlier run saved here, or make it from the finished fit."""
    from tradewind.models.bundle import BundleMeta, ModelBundle
    from tradewind.models.evaluation import calibrate_candidate
    from tradewind.models.training import fit_candidate

    if work.bundle.exists():
        return ModelBundle.load(work.bundle)
    fitted = fit_candidate(
        settings,
        training_set,
        task.family,
        task.key,
        seed=task.seed,
        epochs=task.epochs,
        workdir=work.root,
    )
    calibrated = calibrate_candidate(settings, training_set, fitted.forecaster, task.key)
    forecaster, last = fitted.refitted()
    step = settings.market.timeframe_ms
    meta = BundleMeta(
        family=task.family,
        key=task.key,
        symbols=fitted.samples.symbols,
        timeframe=training_set.timeframe,
        horizon=training_set.horizon,
        window=fitted.samples.deep.width,
        feature_version=training_set.feature_version,
        wide_names=fitted.samples.wide_names,
        data_fingerprint=training_set.data_fingerprint,
        train_start_ms=fitted.boundaries["train"][0],
        train_end_ms=fitted.boundaries[last][1] + step,
        data_end_ms=training_set.end_ms,
        held_out_from_ms=fitted.boundaries["test"][0],
        seed=task.seed,
        epochs=fitted.report.epochs,
        created_ms=time.time_ns() // 1_000_000,
        skill=calibrated.skill,
        base_rate=calibrated.base_rate,
        gates="unknown",  # the registry's tag tells; the files are judged after they are made
    )
    return ModelBundle(meta, forecaster, calibrated.choice.calibrator, calibrated.reference)


def _saved(bundle: ModelBundle, report: EvaluationReport, work: Workspace) -> ModelBundle:
    """Save the bundle with its figures and its worth, once, and return what the files hold."""
    from tradewind.models.bundle import ModelBundle
    from tradewind.models.track_record import record_skill

    if not work.bundle.exists():
        metrics = {name: float(v) for name, v in report.metrics().items() if v is not None}
        skill = bundle.meta.skill
        if report.out_of_sample is not None:
            skill = record_skill(report.out_of_sample, otherwise=skill)
        meta = bundle.meta.model_copy(update={"metrics": metrics, "skill": skill})
        ModelBundle(meta, bundle.forecaster, bundle.calibrator, bundle.reference).save(work.bundle)
    return ModelBundle.load(work.bundle)


def _out_of_sample(settings: Settings, task: UnitTask, training_set: TrainingSet) -> OutOfSample:
    from tradewind.models.walk_forward import run_walk_forward

    return run_walk_forward(
        settings,
        training_set,
        task.family,
        task.key,
        workdir=workspace(settings, task).root,
        epochs=task.epochs,
        seed=task.seed,
    )


def _gates(
    settings: Settings,
    task: UnitTask,
    tracking: Tracking,
    training_set: TrainingSet,
    bundle: ModelBundle,
    report: EvaluationReport,
    work: Workspace,
) -> GateReport:
    from tradewind.models.gates import GateReport, check_gates

    champion, unfitted_from_ms, note = _champion_answer(settings, tracking, task.unit, report)
    found = check_gates(settings, report, champion, champion_unfitted_from_ms=unfitted_from_ms)
    if note:
        shown = tuple(
            _noted(gate, note) if gate.name == "champion" else gate for gate in found.gates
        )
        found = GateReport(shown)
    for gate in clean_process_gates(
        settings, bundle, training_set, work.bundle, work.training_set, task.until_ms
    ):
        found = found.with_gate(gate)
    return found


def _champion_answer(
    settings: Settings, tracking: Tracking, unit: Unit, report: EvaluationReport
) -> tuple[FloatArray | None, int, str]:
    """Return the champion's p_up on the candidate's test rows, from where on it learnt from
    none of them, and a note if it has no answer.
    """
    from registry.versions import fetch_bundle, resolve
    from tradewind.models.bundle import ModelBundle

    champion = resolve(tracking, unit.family, unit.key)
    if champion is None:
        return None, 0, ""
    folder = fetch_bundle(
        tracking, champion.name, version=champion.version, cache_dir=settings.home / "models"
    )
    try:
        passes = settings.training.judge_passes
        bundle = ModelBundle.load(folder)
        answer = bundle.predict(report.test, n_samples=passes)
    except TradewindError as error:
        if error.code is not ErrorCode.MODEL_UNUSABLE:
            raise
        return None, 0, f"champion {champion.label} cannot predict these rows: {error.detail}"
    return answer.p_up, bundle.meta.unfitted_from_ms, ""


def _noted(gate: Gate, note: str) -> Gate:
    from tradewind.models.gates import Gate

    return Gate(gate.name, gate.passed, gate.value, gate.limit, note)


def clean_process_gates(
    settings: Settings,
    bundle: ModelBundle,
    training_set: TrainingSet,
    bundle_folder: Path,
    training_set_folder: Path,
    until_ms: int,
) -> list[Gate]:
    """Return the gates artefact and smoke of a bundle and a training set as they are saved."""
    import numpy as np

    from tradewind.models.gates import Gate

    rows = training_set.samples
    last = rows.subset(np.array([len(rows) - 1], dtype=np.int64))
    here = float(bundle.predict(last, n_samples=settings.serving.n_samples).p_up[0])
    probe = probe_bundle(settings, bundle_folder, training_set_folder, until_ms)
    distance = None if probe.p_up is None else abs(probe.p_up - here)
    return [
        Gate(
            "artefact",
            distance is not None and distance <= SAME,
            distance,
            SAME,
            f"clean process: {probe.load_text}",
        ),
        Gate("smoke", probe.served, None, None, f"serving's code: {probe.served_text}"),
    ]


def _register(
    settings: Settings,
    tracking: Tracking,
    facts: CardFacts,
    work: Workspace,
    bundle: ModelBundle,
    training_set: TrainingSet,
    card: str,
) -> RegisteredVersion:
    from registry.names import span_text
    from registry.pyfunc_io import example_of
    from registry.versions import register_bundle
    from tradewind.models.training import rows_of

    task, meta = facts.task, bundle.meta
    given, answer = example_of(
        bundle,
        rows_of(training_set.samples, task.key),
        n_samples=settings.serving.n_samples,
    )
    return register_bundle(
        tracking,
        work.bundle,
        run_id=facts.run_id,
        name=task.unit.name,
        input_example=given,
        output_example=answer,
        description=description(card),
        model_description=model_description(meta),
        tags={
            **verdict_tags(facts.gates),
            "git_commit": task.git_commit,
            "dagster_run_id": task.dagster_run_id,
            "source": task.source,
            "profile": settings.profile.value,
            "calibrator": facts.calibrator,
            "trigger": task.trigger,
            "reason": task.reason or "none",
            "train_span": span_text(meta.train_start_ms, meta.train_end_ms),
            "data_span": span_text(training_set.start_ms, training_set.end_ms),
        },
    )


def _losses(tracking: Tracking, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Return the series of each loss that the fit logged, by epoch."""
    with tracking.translated():
        histories = {name: tracking.client.get_metric_history(run_id, name) for name in LOSS_SERIES}
    return {
        name: sorted({point.step: point.value for point in points if point.step}.items())
        for name, points in histories.items()
        if points
    }


def _slices(settings: Settings, training_set: TrainingSet, key: str) -> dict[str, Samples]:
    """Return the rows of each role, as the fit cut them."""
    from tradewind.models.splits import time_split
    from tradewind.models.training import rows_of

    samples = rows_of(training_set.samples, key)
    split = time_split(
        samples.ts,
        horizon_ms=settings.training.horizon * settings.market.timeframe_ms,
        shares=settings.training.split,
    )
    return {role: samples.subset(getattr(split, name)) for name, role in CONTEXTS.items()}
