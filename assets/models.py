"""Assets of a model family: training set → model → evaluation → drift → promotion.

The same steps as the retrain job, one at a time, for a person who works on the graph.
"""

# No postponed annotations here: Dagster reads the type of `context` as it stands.

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    AssetIn,
    AssetsDefinition,
    AutomationCondition,
    FreshnessPolicy,
    MaterializeResult,
    Output,
    asset,
)

from assets import metadata, steps
from assets.checks import GATE_NAMES, check_specs, concept_result, drift_result, gate_results
from assets.config import TrainingConfig
from assets.keys import FEATURES, family_key
from assets.partitions import units_partition
from assets.platform import Platform
from assets.units import Unit
from assets.workspace import UnitTask
from tradewind.settings import load_settings

Task = dict[str, Any]
OWNERS = ["team:quant"]
TREES = {"lightgbm": "lightgbm", "xgboost": "xgboost"}
"""Families that are not networks, by the kind that the graph shows."""
WARN_SHARE = 0.875
"""Share of the greatest model age at which the graph warns: a weekly retraining is then late."""


def model_freshness() -> FreshnessPolicy:
    """Return how long a model's assets stay fresh: until the model itself is too old."""
    oldest = timedelta(days=load_settings().registry.max_model_age_days)
    return FreshnessPolicy.time_window(fail_window=oldest, warn_window=oldest * WARN_SHARE)


def family_assets(family: str) -> list[AssetsDefinition]:
    """Return the chain of assets of one family."""
    evaluation_key = family_key(family, "evaluation")
    fresh = model_freshness()

    @asset(
        key=family_key(family, "training_set"),
        deps=[FEATURES],
        kinds={"polars"},
        description="Labelled, warm rows with their deep windows.",
        partitions_def=units_partition,
        group_name=family,
        owners=OWNERS,
        code_version="2",
        freshness_policy=fresh,
    )
    def training_set(
        context: AssetExecutionContext, platform: Platform, config: TrainingConfig
    ) -> Output[Task]:
        plan = steps.plan_retrain(
            platform.settings,
            platform.clock(),
            units=[Unit(family, context.partition_key)],
            days_back=config.days_back,
            epochs=config.epochs,
            seed=config.seed,
            dagster_run_id=context.run_id,
            allow_failed_gates=config.allow_failed_gates,
        )
        task = plan.tasks[0]
        shown = steps.prepare(platform.settings, task)
        return Output(task.model_dump(), metadata=metadata.figures(shown))

    @asset(
        key=family_key(family, "model"),
        ins={"unit": AssetIn(family_key(family, "training_set"))},
        kinds={TREES.get(family, "pytorch"), "mlflow"},
        pool="training",
        description="Fitted weights; a killed fit continues from its checkpoint.",
        partitions_def=units_partition,
        group_name=family,
        owners=OWNERS,
        code_version="2",
        freshness_policy=fresh,
    )
    def model(context: AssetExecutionContext, platform: Platform, unit: Task) -> Output[Task]:
        task = UnitTask(**unit)
        shown = steps.fit(
            platform.settings,
            task,
            lambda epoch, values: context.log.info("epoch %d %s", epoch, dict(values)),
            lambda run_id, url: context.log.info("MLflow run %s %s", run_id, url or ""),
        )
        return Output(unit, metadata=metadata.figures(shown))

    @asset(
        key=evaluation_key,
        ins={"unit": AssetIn(family_key(family, "model"))},
        kinds={"mlflow"},
        pool="training",
        check_specs=check_specs(GATE_NAMES, evaluation_key, units_partition, blocking=GATE_NAMES),
        description="Calibrated, evaluated out of sample, gated and registered version.",
        partitions_def=units_partition,
        group_name=family,
        owners=OWNERS,
        code_version="2",
        freshness_policy=fresh,
    )
    def evaluation(
        context: AssetExecutionContext, platform: Platform, unit: Task
    ) -> Iterator[Output[Task] | AssetCheckResult]:
        task = UnitTask(**unit)
        steps.walk_forward(platform.settings, task)
        judged = steps.evaluate(platform.settings, task)
        yield Output(
            {"task": unit, "judged": judged.to_dict()},
            metadata=metadata.judgement(judged),
        )
        yield from gate_results(judged)

    @asset(
        key=family_key(family, "drift"),
        ins={"judged": AssetIn(evaluation_key)},
        kinds={"evidently"},
        check_specs=check_specs(
            ("psi", "concept"), family_key(family, "drift"), units_partition, blocking=()
        ),
        description="PSI of features and prediction: recent bars against the calibration slice.",
        partitions_def=units_partition,
        group_name=family,
        owners=OWNERS,
        code_version="2",
        freshness_policy=fresh,
    )
    def drift(
        context: AssetExecutionContext, platform: Platform, judged: Task
    ) -> Iterator[Output[Task] | AssetCheckResult]:
        found = steps.measure_drift(platform.settings, UnitTask(**judged["task"]))
        yield Output(judged, metadata=metadata.figures(found.figures))
        yield drift_result(found)
        yield concept_result()

    @asset(
        key=family_key(family, "promotion"),
        ins={"judged": AssetIn(family_key(family, "drift"))},
        kinds={"mlflow"},
        automation_condition=(
            AutomationCondition.eager() & AutomationCondition.all_deps_blocking_checks_passed()
        ).with_label("follow_passed_gates"),
        description="The alias that the version has earned, moved and recorded.",
        partitions_def=units_partition,
        group_name=family,
        owners=OWNERS,
        code_version="2",
    )
    def promotion(
        context: AssetExecutionContext, platform: Platform, judged: Task
    ) -> MaterializeResult[None]:
        release = steps.promote(
            platform.settings, UnitTask(**judged["task"]), steps.Judgement(**judged["judged"])
        )
        context.log.info("%s", release.text)
        return MaterializeResult(
            metadata=metadata.figures(
                {
                    "version": f"{release.name}/{release.version}",
                    "version_page_url": judged["judged"].get("version_url"),
                    "alias": release.alias or "none",
                    "text": release.text,
                }
            )
        )

    return [training_set, model, evaluation, drift, promotion]
