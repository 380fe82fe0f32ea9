"""What Dagster loads: composition only."""

from __future__ import annotations

from dagster import Definitions, in_process_executor

from assets import checks
from assets.history import history_evaluation
from assets.market import bars, features
from assets.models import family_assets
from assets.platform import Platform
from pipelines import jobs, schedules, sensors
from pipelines.resources import JsonIOManager
from tradewind.settings import load_settings

families = load_settings().training.families

defs = Definitions(
    assets=[
        bars,
        features,
        *(part for family in families for part in family_assets(family)),
        history_evaluation,
    ],
    asset_checks=[checks.bar_checks, checks.feature_checks],
    jobs=[
        jobs.ingest_job,
        jobs.store_upkeep_job,
        jobs.retrain_job,
        jobs.search_job,
        jobs.evaluate_job,
        jobs.evaluate_champions_job,
        jobs.drift_job,
        jobs.outcomes_job,
        jobs.recalibrate_job,
        jobs.review_job,
        jobs.supervise_job,
        jobs.promote_job,
        jobs.rollback_job,
    ],
    schedules=[
        schedules.ingest_15m,
        schedules.store_upkeep_weekly,
        schedules.outcomes_hourly,
        schedules.drift_daily,
        schedules.recalibrate_weekly,
        schedules.review_weekly,
        schedules.supervise_hourly,
        schedules.retrain_weekly,
    ],
    sensors=[sensors.retrain_when_needed],
    resources={"platform": Platform(), "io_manager": JsonIOManager()},
    # Of runs launched from an asset's page: their steps follow one another, and a process for
    # each would import everything again.
    executor=in_process_executor,
)
