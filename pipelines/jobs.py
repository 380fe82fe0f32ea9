"""Jobs: ingest, retrain, evaluate, drift, promote."""

from __future__ import annotations

from typing import Any

from dagster import (
    AssetSelection,
    ExecutorDefinition,
    GraphDefinition,
    JobDefinition,
    define_asset_job,
    graph,
    in_process_executor,
    job,
    multiprocess_executor,
)

from assets import outcome_ops, release_ops
from assets import retrain_ops as ops

# The fork server imports the heavy packages once; each step is a fork of it, not a new start.
_processes: ExecutorDefinition = multiprocess_executor.configured(
    {
        "max_concurrent": 2,
        "start_method": {"forkserver": {"preload_modules": ["pipelines.preload"]}},
    }
)

ingest_job = define_asset_job(
    "ingest",
    selection=AssetSelection.assets("bars", "features"),
    executor_def=in_process_executor,
    description="Read new bars of a symbol and compute its features. Safe to repeat.",
    tags={"dagster/max_retries": "2", "dagster/retry_on_asset_or_op_failure": "true"},
)


@job(
    name="drift",
    executor_def=in_process_executor,
    description="PSI of each champion's features and predictions over the last days.",
)
def drift_job() -> None:
    """Measure drift of the champions."""
    release_ops.measure_drift()


@job(
    name="evaluate",
    executor_def=in_process_executor,
    description="Metrics of each champion on bars newer than everything it was made from.",
)
def evaluate_job() -> None:
    """Evaluate the champions."""
    release_ops.evaluate_champions()


@job(
    name="outcomes",
    executor_def=in_process_executor,
    description="Fill in what became of logged predictions: the realised H-bar returns.",
)
def outcomes_job() -> None:
    """Fill outcomes of predictions whose horizon has passed."""
    outcome_ops.fill_outcomes()


@job(
    name="promote",
    executor_def=in_process_executor,
    description="Point champion, challenger or canary at a version whose gates passed.",
)
def promote_job() -> None:
    """Promote by hand."""
    release_ops.promote_version()


@job(
    name="rollback",
    executor_def=in_process_executor,
    description="Swap champion and previous of a registered model.",
)
def rollback_job() -> None:
    """Roll back by hand."""
    release_ops.roll_back()


def _branch(unit: Any) -> None:
    prepared = ops.prepare_unit(unit)
    judged = ops.evaluate_unit(ops.fit_unit(prepared), ops.walk_forward_unit(prepared))
    ops.promote_unit(ops.drift_unit(judged))


@graph(description="One branch a unit: prepare, fit and walk forward, evaluate, drift, promote.")
def retrain_graph() -> None:
    """Fan out over the units of the plan."""
    ops.plan_units().map(_branch)


_graph: GraphDefinition = retrain_graph

retrain_job: JobDefinition = _graph.to_job(
    name="retrain",
    executor_def=_processes,
    description=(
        "Retrain, calibrate, gate and promote. A candidate that misses a gate is registered with "
        "the reasons and not promoted; the run still succeeds."
    ),
)
