"""Hard cadences: bars at every close, drift daily; upkeep, calibration, a retraining weekly."""

from __future__ import annotations

from dagster import DefaultScheduleStatus, RunRequest, ScheduleDefinition, schedule
from dagster import ScheduleEvaluationContext as Context

from assets.partitions import symbols_partition
from pipelines.jobs import (
    drift_job,
    ingest_job,
    outcomes_job,
    recalibrate_job,
    retrain_job,
    review_job,
    store_upkeep_job,
    supervise_job,
)
from tradewind.settings import load_settings

AT_CLOSES = {
    "1m": "* * * * *",
    "5m": "*/5 * * * *",
    "15m": "*/15 * * * *",
    "1h": "0 * * * *",
    "4h": "0 */4 * * *",
    "8h": "0 */8 * * *",
    "1d": "0 0 * * *",
}
"""Cron of the closes of each timeframe; the run itself waits until the bar has settled."""

retrain_weekly = ScheduleDefinition(
    name="retrain_weekly",
    job=retrain_job,
    cron_schedule="0 0 * * 0",
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.STOPPED,
    description="Retrain every unit on Sunday at 00:00 UTC, with the launchpad's defaults.",
)

store_upkeep_weekly = ScheduleDefinition(
    name="store_upkeep_weekly",
    job=store_upkeep_job,
    cron_schedule="15 3 * * 6",
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.STOPPED,
    description="Drop what retention no longer keeps and compact the rest, Saturday 03:15 UTC.",
)

drift_daily = ScheduleDefinition(
    name="drift_daily",
    job=drift_job,
    cron_schedule="30 0 * * *",
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.STOPPED,
    description="Measure every champion's drift at 00:30 UTC; the sensor retrain_when_needed "
    "asks for a retraining on its alarm.",
)

recalibrate_weekly = ScheduleDefinition(
    name="recalibrate_weekly",
    job=recalibrate_job,
    cron_schedule="45 0 * * 3",
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.STOPPED,
    description="Refit the champions' calibrators on Wednesday at 00:45 UTC, half-way between two "
    "weekly retrainings: a new champion has three days of answers by then.",
)

review_weekly = ScheduleDefinition(
    name="review_weekly",
    job=review_job,
    cron_schedule="0 18 * * 6",
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.STOPPED,
    description="Compare the challengers with their champions on Saturday at 18:00 UTC, the last "
    "hours before the weekly retraining may bring another challenger: a week of bars is new by "
    "then.",
)

outcomes_hourly = ScheduleDefinition(
    name="outcomes_hourly",
    job=outcomes_job,
    cron_schedule="5 * * * *",
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.STOPPED,
    description="Fill in what became of logged predictions, five minutes past each hour.",
)


supervise_hourly = ScheduleDefinition(
    name="supervise_hourly",
    job=supervise_job,
    cron_schedule="10 * * * *",
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.STOPPED,
    description="Judge the live members of the ensemble, ten minutes past each hour: after the "
    "outcomes of outcomes_hourly, which has to be on for there to be any.",
)


@schedule(
    name="ingest_15m",
    job=ingest_job,
    cron_schedule=AT_CLOSES[load_settings().market.timeframe],
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.STOPPED,
    description="Read the bar that has just closed and compute its features: at every close of the "
    "setting market.timeframe (15m: every quarter of an hour), one run for each traded or "
    "reference symbol.",
)
def ingest_15m(context: Context) -> list[RunRequest]:
    """Ask for one ingestion a symbol; the run key makes a repeated tick harmless."""
    tick = context.scheduled_execution_time.isoformat()
    return [
        RunRequest(run_key=f"{tick}-{symbol}", partition_key=symbol)
        for symbol in symbols_partition.get_partition_keys()
    ]
