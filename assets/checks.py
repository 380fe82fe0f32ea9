"""Asset checks: what they look at, with their figures."""

# No postponed annotations here: Dagster reads the type of `context` as it stands.

import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    OpExecutionContext,
    PartitionsDefinition,
    multi_asset_check,
)

from assets.found import found
from assets.keys import BARS, FEATURES, family_key
from assets.metadata import figures
from assets.partitions import symbols_partition
from assets.platform import Platform
from assets.steps import Drift, Judgement
from assets.workspace import UnitTask

GATE_NAMES = (
    "skill",
    "ece",
    "champion",
    "uncertainty",
    "finite",
    "artefact",
    "smoke",
)
HARD_BAR_CHECKS = ("schema", "unique", "monotone", "ohlc", "values")
BAR_CHECKS = (*HARD_BAR_CHECKS, "gaps", "staleness", "zero_volume", "outliers", "alignment")
FEATURE_CHECKS = ("finite", "look_ahead")
CHECK_TEXTS = {
    "schema": "Every partition has the columns and types of the store.",
    "unique": "No bar is stored twice.",
    "monotone": "Open times rise from bar to bar.",
    "ohlc": "High is the greatest and low the least of a bar's prices.",
    "values": "Prices are positive and finite, volumes not negative.",
    "gaps": "Share of the span's bars that is missing (setting quality.max_gap_share).",
    "staleness": "Seconds since the newest stored bar should have been followed by another.",
    "zero_volume": "Share of bars without a trade (setting quality.max_zero_volume_share).",
    "outliers": "Share of returns with a robust z over 20 (setting quality.max_outlier_share); "
    "flagged, never removed.",
    "alignment": "Bars open on the timeframe's grid, and with those of the reference symbols.",
    "look_ahead": "The same features come out when the bars after them are hidden.",
    "skill": "Accuracy over the minimum, or log-loss better than the base rate's with confidence.",
    "ece": "Expected calibration error out of sample is at most the limit.",
    "champion": "Not worse than the champion on the same rows, with confidence.",
    "uncertainty": "The error grows with the stated uncertainty.",
    "artefact": "The saved files give the same answer in a clean process.",
    "smoke": "Serving loads the version and answers.",
    "psi": "PSI of features and prediction, recent bars against the calibration slice.",
    "concept": "Log-loss of what was answered, against what the answers themselves expect.",
}
FINITE = {
    "features": "No feature is null or infinite after its warm-up.",
    "evaluation": "Every prediction is a finite number.",
}
PARTITIONED_CHECKS = "Specifying a partitions_def on an AssetCheckSpec is currently in preview"


def check_specs(
    names: Sequence[str],
    asset: AssetKey,
    partitions: PartitionsDefinition[str],
    *,
    blocking: Collection[str],
) -> list[AssetCheckSpec]:
    """Return one spec a name, partitioned like the asset."""
    with warnings.catch_warnings():
        # Partitioned checks are a preview; without them a check shows one symbol's result only.
        warnings.filterwarnings("ignore", message=PARTITIONED_CHECKS)
        return [
            AssetCheckSpec(
                name,
                asset=asset,
                description=CHECK_TEXTS.get(name) or FINITE[asset.path[-1]],
                blocking=name in blocking,
                partitions_def=partitions,
            )
            for name in names
        ]


def gate_evaluations(task: UnitTask, judged: Judgement) -> Iterator[AssetCheckEvaluation]:
    """Yield the gates as evaluations on the asset graph."""
    for gate in judged.gates:
        yield AssetCheckEvaluation(
            asset_key=family_key(task.family, "evaluation"),
            check_name=str(gate["name"]),
            passed=bool(gate["passed"]),
            severity=AssetCheckSeverity.ERROR,
            description=str(gate["text"]),
            metadata=figures(_gate_figures(gate)),
            blocking=True,
            partition=task.key,
        )


def gate_results(judged: Judgement) -> Iterator[AssetCheckResult]:
    """Yield the gates as results of the evaluation asset's own checks."""
    for gate in judged.gates:
        yield AssetCheckResult(
            check_name=str(gate["name"]),
            passed=bool(gate["passed"]),
            severity=AssetCheckSeverity.ERROR,
            description=str(gate["text"]),
            metadata=figures(_gate_figures(gate)),
        )


def drift_evaluation(task: UnitTask, drift: Drift) -> AssetCheckEvaluation:
    """Return drift as a soft evaluation on the asset graph."""
    return AssetCheckEvaluation(
        asset_key=family_key(task.family, "drift"),
        check_name="psi",
        passed=drift.status == "fine",
        severity=AssetCheckSeverity.WARN,
        description=_drift_text(drift),
        metadata=figures(drift.figures),
        partition=task.key,
    )


def drift_result(drift: Drift) -> AssetCheckResult:
    """Return drift as a soft result."""
    return AssetCheckResult(
        check_name="psi",
        passed=drift.status == "fine",
        severity=AssetCheckSeverity.WARN,
        description=_drift_text(drift),
        metadata=figures(drift.figures),
    )


def concept_result() -> AssetCheckResult:
    """Return the soft check of outcomes as it stands for a version that has not answered yet."""
    return AssetCheckResult(
        check_name="concept",
        passed=True,
        severity=AssetCheckSeverity.WARN,
        description="a new version has no answers to judge by: the job `drift` looks at them",
    )


@multi_asset_check(
    name="bar_checks",
    specs=check_specs(BAR_CHECKS, BARS, symbols_partition, blocking=HARD_BAR_CHECKS),
    description="Every stored bar of the symbol, looked at as it is.",
)
def bar_checks(
    context: AssetCheckExecutionContext, platform: Platform
) -> Iterator[AssetCheckResult]:
    """Look at every stored bar of the symbol."""
    from assets.steps.quality import bar_verdicts

    symbol = context.partition_key
    for verdict in bar_verdicts(platform.settings, platform.clock(), symbol):
        hard = verdict.name in HARD_BAR_CHECKS
        yield AssetCheckResult(
            asset_key=BARS,
            check_name=verdict.name,
            passed=verdict.passed,
            severity=AssetCheckSeverity.ERROR if hard else AssetCheckSeverity.WARN,
            metadata={
                **figures({"symbol": symbol, **verdict.figures}),
                **found(verdict.rows, verdict.plots),
            },
        )


@multi_asset_check(
    name="feature_checks",
    specs=check_specs(FEATURE_CHECKS, FEATURES, symbols_partition, blocking=FEATURE_CHECKS),
    description="Nulls and infinities, and features that know the future.",
)
def feature_checks(
    context: AssetCheckExecutionContext, platform: Platform
) -> Iterator[AssetCheckResult]:
    """Look for nulls and infinities, and for features that know the future."""
    from assets.steps.quality import feature_verdicts

    symbol = context.partition_key
    for verdict in feature_verdicts(platform.settings, platform.clock(), symbol):
        yield AssetCheckResult(
            asset_key=FEATURES,
            check_name=verdict.name,
            passed=verdict.passed,
            metadata=figures({"symbol": symbol, **verdict.figures}),
        )


def report_check(context: OpExecutionContext, evaluation: AssetCheckEvaluation) -> None:
    """Show a check's result on the asset graph from an op that is no asset.

    Dagster stores such an event like any other; only the annotation of `log_event` is
    narrower than what it takes.
    """
    context.log_event(evaluation)  # type: ignore[arg-type]


def _gate_figures(gate: dict[str, Any]) -> dict[str, Any]:
    return {"value": gate["value"], "limit": gate["limit"]}


def _drift_text(drift: Drift) -> str:
    return f"{drift.status}: worst {drift.worst_feature} with PSI {drift.worst_psi:.3f}"
