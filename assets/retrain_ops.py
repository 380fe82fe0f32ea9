"""The ops of the retrain job: each runs one step and reports it on the asset graph."""

# No postponed annotations here: Dagster reads the type of `context` as it stands.

from collections.abc import Iterator, Mapping
from typing import Any

from dagster import (
    AssetMaterialization,
    AssetObservation,
    DynamicOut,
    DynamicOutput,
    OpExecutionContext,
    Out,
    Output,
    op,
)

from assets import metadata, steps
from assets.checks import drift_evaluation, gate_evaluations, report_check
from assets.config import RetrainConfig, names
from assets.keys import family_key
from assets.platform import Platform
from assets.steps.record import asked_by
from assets.workspace import UnitTask

Task = dict[str, Any]
POOL = "training"
CODE = "2"


@op(
    out=DynamicOut(Task),
    code_version=CODE,
    description="Check the form, settle the units and open the tracking run.",
)
def plan_units(
    context: OpExecutionContext, platform: Platform, config: RetrainConfig
) -> Iterator[DynamicOutput[Task]]:
    """Yield one task a unit."""
    trigger, reason = asked_by(context.run.tags)
    plan = steps.plan_retrain(
        platform.settings,
        platform.clock(),
        symbols=config.symbols,
        families=names(config.families),
        days_back=config.days_back,
        epochs=config.epochs,
        seed=config.seed,
        dagster_run_id=context.run_id,
        allow_failed_gates=config.allow_failed_gates,
        trigger=trigger,
        reason=reason,
    )
    context.log.info("retraining %s", ", ".join(task.unit.name for task in plan.tasks))
    for task in plan.tasks:
        yield DynamicOutput(task.model_dump(), mapping_key=task.unit.mapping_key)


@op(code_version=CODE, description="Build the training set.")
def prepare_unit(context: OpExecutionContext, platform: Platform, unit: Task) -> Task:
    """Store the training set and report it."""
    task = UnitTask(**unit)
    shown = steps.prepare(platform.settings, task)
    context.log_event(_materialised(task, "training_set", shown))
    return unit


@op(
    pool=POOL,
    code_version=CODE,
    description="Fit the model; a killed fit continues from its checkpoint.",
)
def fit_unit(context: OpExecutionContext, platform: Platform, unit: Task) -> Task:
    """Fit and report; each epoch is a line of the log, a point on the graph and in MLflow."""
    task = UnitTask(**unit)
    log = _epoch_log(context, task, "fit")

    def on_epoch(epoch: int, values: Mapping[str, float]) -> None:
        log(epoch, values)
        context.log_event(_observed(task, {"epoch": epoch, **values}))

    def on_run(run_id: str, url: str | None) -> None:
        context.log.info("%s: MLflow run %s %s", task.unit.name, run_id, url or "")
        context.log_event(_observed(task, {"mlflow_run_id": run_id, "mlflow_url": url}))

    shown = steps.fit(platform.settings, task, on_epoch, on_run)
    context.log_event(_materialised(task, "model", shown))
    return unit


@op(
    pool=POOL,
    code_version=CODE,
    description="Emulate past retrainings for out-of-sample predictions.",
)
def walk_forward_unit(context: OpExecutionContext, platform: Platform, unit: Task) -> int:
    """Walk forward; each fold is a line of the run's log."""
    task = UnitTask(**unit)
    return steps.walk_forward(platform.settings, task, _epoch_log(context, task, "walk_forward"))


@op(
    pool=POOL,
    out=Out(Task),
    code_version=CODE,
    description="Calibrate, evaluate, check the gates, register the version.",
)
def evaluate_unit(
    context: OpExecutionContext, platform: Platform, unit: Task, out_of_sample_rows: int
) -> Task:
    """Judge the candidate and report its figures, pictures and gates."""
    task = UnitTask(**unit)
    judged = steps.evaluate(platform.settings, task)
    shown = {
        **metadata.judgement(judged),
        **metadata.figures({"out_of_sample_rows": out_of_sample_rows}),
    }
    context.log_event(
        AssetMaterialization(
            family_key(task.family, "evaluation"), partition=task.key, metadata=shown
        )
    )
    for evaluation in gate_evaluations(task, judged):
        report_check(context, evaluation)
    return {"task": unit, "judged": judged.to_dict()}


@op(
    code_version=CODE,
    description="PSI of features and prediction, recent bars against the calibration slice.",
)
def drift_unit(context: OpExecutionContext, platform: Platform, judged: Task) -> Task:
    """Measure drift and report it as a soft check."""
    task = UnitTask(**judged["task"])
    drift = steps.measure_drift(platform.settings, task)
    context.log_event(_materialised(task, "drift", drift.figures))
    report_check(context, drift_evaluation(task, drift))
    return judged


@op(
    out=Out(Task, is_required=False),
    code_version=CODE,
    description="Move the alias, if the gates recorded on the version allow it.",
)
def promote_unit(
    context: OpExecutionContext, platform: Platform, judged: Task
) -> Iterator[Output[Task]]:
    """Promote, or say which gates forbid it."""
    task = UnitTask(**judged["task"])
    release = steps.promote(platform.settings, task, steps.Judgement(**judged["judged"]))
    context.log.info("%s", release.text)
    if release.alias is None:
        return
    shown = {"version": f"{release.name}/{release.version}", "alias": release.alias}
    links = {"version_page_url": judged["judged"].get("version_url")}
    context.log_event(_materialised(task, "promotion", {**shown, **links, "text": release.text}))
    yield Output({**shown, "gates": "passed" if release.passed else "failed"})


def _materialised(task: UnitTask, stage: str, shown: Mapping[str, Any]) -> AssetMaterialization:
    return AssetMaterialization(
        family_key(task.family, stage), partition=task.key, metadata=metadata.figures(shown)
    )


def _observed(task: UnitTask, shown: Mapping[str, Any]) -> AssetObservation:
    return AssetObservation(
        family_key(task.family, "model"), partition=task.key, metadata=metadata.figures(shown)
    )


def _epoch_log(context: OpExecutionContext, task: UnitTask, step: str) -> steps.EpochLog:
    def log(number: int, values: Mapping[str, float]) -> None:
        text = " ".join(f"{name}={value:.4f}" for name, value in values.items())
        context.log.info("%s %s %d %s", task.unit.name, step, number, text)

    return log


__all__ = [
    "drift_unit",
    "evaluate_unit",
    "fit_unit",
    "plan_units",
    "prepare_unit",
    "promote_unit",
    "walk_forward_unit",
]
