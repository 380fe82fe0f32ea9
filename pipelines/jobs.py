"""Jobs: data, retrain, search, evaluate, drift, outcomes, recalibrate, review, supervise, aliases.

Each comes with its form filled in: the real defaults, as the settings have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster import (
    AssetSelection,
    ExecutorDefinition,
    GraphDefinition,
    JobDefinition,
    define_asset_job,
    graph,
    in_process_executor,
    multiprocess_executor,
)

from assets import outcome_ops, release_ops, search_ops, store_ops, supervise_ops
from assets import retrain_ops as ops
from assets.config import (
    Choices,
    HistoryConfig,
    IngestConfig,
    RetrainConfig,
    SearchConfig,
    UnitsConfig,
)
from assets.keys import BARS, COMPANIONS, FEATURES, HISTORY_EVALUATION

DATA_TEAM = "team:data"
QUANT_TEAM = "team:quant"
OWNER_TAG = "tradewind/owner"
"""Tag that shows a job's owner; Dagster's own `owners` of jobs is beta and warns at each load."""
KIND_TAG = "tradewind/job"
"""Run tag that the queue's limits in `dagster.yaml` go by."""
ANY_MODEL = "tradewind.lightgbm.POOLED"

# The fork server imports the heavy packages once; each step is a fork of it, not a new start.
_processes: ExecutorDefinition = multiprocess_executor.configured(
    {
        "max_concurrent": 2,
        "start_method": {"forkserver": {"preload_modules": ["pipelines.preload"]}},
    }
)


def _form(op: str, choices: Choices | Mapping[str, Any]) -> dict[str, Any]:
    """Return the launchpad's first contents: every field of an op's form with its value."""
    values = choices.model_dump(mode="json") if isinstance(choices, Choices) else dict(choices)
    return {"ops": {op: {"config": values}}}


def _job(
    graph_of_ops: GraphDefinition,
    *,
    description: str,
    owner: str,
    config: dict[str, Any] | None = None,
    executor: ExecutorDefinition = in_process_executor,
) -> JobDefinition:
    return graph_of_ops.to_job(
        executor_def=executor,
        description=description,
        config=config,
        # In both: a launch over a code server carries the one, a sensor's or command's the other.
        tags={OWNER_TAG: owner, KIND_TAG: graph_of_ops.name},
        run_tags={KIND_TAG: graph_of_ops.name},
    )


ingest_job = define_asset_job(
    "ingest",
    selection=AssetSelection.assets(BARS, *COMPANIONS, FEATURES),
    executor_def=in_process_executor,
    description="Read new bars, funding, open interest and long/short ratio of a symbol (the "
    "partition) from the source and compute its features. Safe to repeat: what is stored is not "
    "read again, and no byte changes. An exchange out of reach is asked again, later and later.",
    config=_form("bars", IngestConfig()),
    tags={OWNER_TAG: DATA_TEAM, KIND_TAG: "ingest"},
    run_tags={KIND_TAG: "ingest"},
)


@graph
def store_upkeep() -> None:
    """Drop old months and compact the others."""
    store_ops.keep_store()


@graph
def drift() -> None:
    """Measure drift of the champions."""
    release_ops.measure_drift()


@graph
def evaluate_champions() -> None:
    """Evaluate the champions."""
    release_ops.measure_champions()


@graph
def search() -> None:
    """Search hyperparameters."""
    search_ops.search_hyperparameters()


@graph
def recalibrate() -> None:
    """Recalibrate the champions."""
    release_ops.recalibrate_champions()


@graph
def review_challengers() -> None:
    """Review the challengers."""
    release_ops.compare_challengers()


@graph
def outcomes() -> None:
    """Fill outcomes of predictions whose horizon has passed; measure who made them."""
    outcome_ops.measure_answers(outcome_ops.fill_outcomes())


@graph
def supervise() -> None:
    """Judge the live members of the ensemble."""
    supervise_ops.judge_members()


@graph
def promote() -> None:
    """Promote by hand."""
    release_ops.promote_version()


@graph
def rollback() -> None:
    """Roll back by hand."""
    release_ops.roll_back()


def _branch(unit: Any) -> None:
    prepared = ops.prepare_unit(unit)
    judged = ops.evaluate_unit(ops.fit_unit(prepared), ops.walk_forward_unit(prepared))
    ops.promote_unit(ops.drift_unit(judged))


@graph(description="One branch a unit: prepare, fit and walk forward, evaluate, drift, promote.")
def retrain() -> None:
    """Fan out over the units of the plan."""
    ops.plan_units().map(_branch)


store_upkeep_job = _job(
    store_upkeep,
    description="Drop partitions older than the settings retention.* keep, never what training "
    "reads, and rewrite the others in their shortest form. Readers and writers may go on.",
    owner=DATA_TEAM,
    config=_form("keep_store", store_ops.UpkeepConfig()),
)
drift_job = _job(
    drift,
    description="PSI of each champion's features and prediction, the last days against its "
    "calibration slice. A soft check on the asset graph; the sensor retrain_when_needed reads it.",
    owner=QUANT_TEAM,
    config=_form("measure_drift", UnitsConfig()),
)
evaluate_job = define_asset_job(
    "evaluate",
    selection=AssetSelection.assets(HISTORY_EVALUATION),
    executor_def=in_process_executor,
    description="Every retraining of the past again, over the whole history: families, ensemble "
    "and baselines judged on what followed each, after costs, with intervals and leak canaries; "
    "one HTML report, attached to the MLflow run. Takes hours; finished folds are kept.",
    config=_form("history_evaluation", HistoryConfig()),
    tags={OWNER_TAG: QUANT_TEAM, KIND_TAG: "evaluate"},
    run_tags={KIND_TAG: "evaluate"},
)
evaluate_champions_job = _job(
    evaluate_champions,
    description="Metrics of each champion on bars newer than everything it was made from, as "
    "observations of the evaluation assets, beside the base rate on the same bars.",
    owner=QUANT_TEAM,
    config=_form("measure_champions", UnitsConfig()),
)
search_job = _job(
    search,
    description="Look for better hyperparameters of one family: each trial is a walk-forward of "
    "its own and a run in MLflow. The best and the present settings then meet on days that no "
    "trial saw. Nothing is registered; a search that was stopped goes on.",
    owner=QUANT_TEAM,
    config=_form("search_hyperparameters", SearchConfig()),
)
recalibrate_job = _job(
    recalibrate,
    description="Refit each champion's calibrator on the answers of the last days and what came "
    "of them. Where that is clearly better it is a new version of the same forecaster, behind "
    "the same gates as a retrained one; too few realised labels are refused.",
    owner=QUANT_TEAM,
    config=_form("recalibrate_champions", UnitsConfig()),
)
review_job = _job(
    review_challengers,
    description="Compare each challenger with its champion on all bars new to both, paired and day "
    "by day. Clearly better, it becomes champion; clearly worse, it loses its alias; else both "
    "stay. All looks at a pair share one error rate (setting gates.promotion_alpha).",
    owner=QUANT_TEAM,
    config=_form("compare_challengers", UnitsConfig()),
)
outcomes_job = _job(
    outcomes,
    description="Fill in what became of logged predictions: the realised returns of those whose "
    "horizon has passed. Then measure every version that answered over rolling windows, as a "
    "table and a picture here and as metrics in MLflow. A repeat adds only what is new.",
    owner=QUANT_TEAM,
)
supervise_job = _job(
    supervise,
    description="Judge each champion that votes in the ensemble by its answers and what came of "
    "them: calibration, accuracy, bias, flips, errors, latency. It is warned, disabled or let "
    "back, with hysteresis; serving follows within seconds. A person's word stands.",
    owner=QUANT_TEAM,
)
promote_job = _job(
    promote,
    description="Point champion, challenger or canary at a version whose gates passed; they are "
    "read again from the version. Serving follows within seconds. Takes a reason.",
    owner=QUANT_TEAM,
    config=_form("promote_version", {"name": ANY_MODEL, "version": 1, "to": "champion", "why": ""}),
)
rollback_job = _job(
    rollback,
    description="Swap champion and previous of a registered model; serving follows within "
    "seconds. Takes a reason.",
    owner=QUANT_TEAM,
    config=_form("roll_back", {"name": ANY_MODEL, "why": ""}),
)
retrain_job = _job(
    retrain,
    description=(
        "Retrain, calibrate, gate and promote: one branch a family and symbol, or a pooled "
        "family, side by side as far as the pool `training` allows. A candidate that misses a "
        "gate is registered with the reasons and not promoted; the run still succeeds. Cancelled "
        "or failed, it continues from its checkpoints when it is run again or re-executed from "
        "failure."
    ),
    owner=QUANT_TEAM,
    config=_form("plan_units", RetrainConfig()),
    executor=_processes,
)
