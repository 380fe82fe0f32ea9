"""A sensor that asks for a retraining when a champion needs one, and says why."""

from __future__ import annotations

import json
import time
from typing import Any

from dagster import (
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRequest,
    RunsFilter,
    SensorResult,
    SkipReason,
    sensor,
)
from dagster import SensorEvaluationContext as Context

from assets.champions import champion_states
from assets.retrain_triggers import Ask, asks, look, remembered
from pipelines.jobs import retrain_job
from tradewind.settings import Settings, load_settings

REASON_TAG = "tradewind/reason"
OPEN_STATUSES = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
NOTHING_ASKED = '{"asked": {}, "last_s": 0}'
S_PER_HOUR = 3600
TAG_LIMIT = 250
"""Characters of a reason that a tag shows; the cursor and the log hold all of it."""


@sensor(
    name="retrain_when_needed",
    # By name: a sensor that holds its job is copied at each load, with a warning of its own.
    job_name=retrain_job.name,
    minimum_interval_seconds=load_settings().retrain_triggers.check_s,
    default_status=DefaultSensorStatus.STOPPED,
    description="Asks for a retraining of a champion on a drift alarm (measured by the job "
    "`drift`), an age over the limit, enough new closed trades since its training, or a live win "
    "rate under the limit. The reason is the run's tag `tradewind/reason`. The same reason for "
    "the same version asks once; not while a retraining is queued or running, nor within the "
    "pause after a request. The numbers are the settings `retrain_triggers`.",
)
def retrain_when_needed(context: Context) -> SensorResult:
    """Look at every champion; ask for what the rules find, or say what was looked at."""
    settings = load_settings()
    memory: dict[str, Any] = json.loads(context.cursor or NOTHING_ASKED)
    waiting = _waiting(context, settings, memory["last_s"])
    if waiting:
        return SensorResult(skip_reason=SkipReason(waiting))
    champions, now_ms = champion_states(settings, context.instance)
    if not champions:
        return SensorResult(skip_reason=SkipReason("no champion to look at: train one first"))
    findings = [look(champion, now_ms, settings.retrain_triggers) for champion in champions]
    looked_at = "; ".join(finding.looked_at for finding in findings)
    context.log.info("looked at %s", looked_at)
    new = asks(findings, memory["asked"])
    if not new:
        known = ", ".join(sorted(memory["asked"])) or "none"
        text = f"nothing new: {looked_at}. Asked before: {known}"
        return SensorResult(skip_reason=SkipReason(text))
    for ask in new:
        context.log.info("asking for a retraining: %s", ask.reason)
    standing = [champion.label for champion in champions]
    asked = remembered(memory["asked"], new, standing)
    reasons = [ask.reason for ask in new]
    cursor = json.dumps({"asked": asked, "last_s": time.time(), "reasons": reasons})
    return SensorResult(run_requests=[_request(ask) for ask in new], cursor=cursor)


def _waiting(context: Context, settings: Settings, last_s: float) -> str | None:
    """Return why nothing is asked now, whatever the champions look like."""
    running = context.instance.get_runs(
        filters=RunsFilter(job_name=retrain_job.name, statuses=OPEN_STATUSES)
    )
    if running:
        first = running[0]
        return f"retrain run {first.run_id} is {first.status.value}: one at a time"
    pause_s = settings.retrain_triggers.pause_hours * S_PER_HOUR
    passed_s = time.time() - last_s
    if passed_s < pause_s:
        return f"{passed_s / S_PER_HOUR:.2f} of {pause_s / S_PER_HOUR:g} h since the last request"
    return None


def _request(ask: Ask) -> RunRequest:
    config = {"symbols": list(ask.symbols), "families": list(ask.families)}
    return RunRequest(
        run_key=ask.key,
        run_config={"ops": {"plan_units": {"config": config}}},
        tags={REASON_TAG: ask.reason[:TAG_LIMIT]},
    )
