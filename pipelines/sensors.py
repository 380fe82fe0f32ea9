"""A sensor that asks for a retraining when a champion needs one, and says why."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRequest,
    RunsFilter,
    SensorResult,
    SkipReason,
    sensor,
)
from dagster import SensorEvaluationContext as Context
from dagster._core.storage.tags import ROOT_RUN_ID_TAG, RUN_KEY_TAG

from assets.champions import champion_states
from assets.retrain_limits import S_PER_HOUR, WEEK_S, Outcome, Request, held_back
from assets.retrain_triggers import (
    KEY_START,
    Ask,
    Finding,
    asks,
    look,
    names_asked,
    remembered,
    still_asked,
)
from pipelines.jobs import retrain_job
from tradewind.settings import Settings, load_settings

REASON_TAG = "tradewind/reason"
OPEN_STATUSES = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
NOTHING_ASKED = '{"asked": {}, "last_s": 0}'
LOOKED_BACK_S = 4 * WEEK_S
"""Requests of longer ago count neither against the week nor as failures in a row."""
LAUNCH_LIMIT_S = 3600
"""A run that was created longer ago and is not launched yet never will be."""
TAG_LIMIT = 250
"""Characters of a reason that a tag shows; the cursor and the log hold all of it."""


@sensor(
    name="retrain_when_needed",
    # By name: a sensor that holds its job is copied at each load, with a warning of its own.
    job_name=retrain_job.name,
    minimum_interval_seconds=load_settings().retrain_triggers.check_s,
    default_status=DefaultSensorStatus.STOPPED,
    description="Asks for a retraining of a champion on a drift alarm (measured by the job "
    "`drift`), an age over the limit, enough new closed trades since its training, a live win "
    "rate under the limit, or when the model supervisor asks (job `supervise`). "
    "The reason is the run's tag `tradewind/reason`. The same reason for "
    "the same version asks once, and again after a run that did not end in SUCCESS; not "
    "while a retraining is queued or running, nor within the "
    "pause after a request, nor for a champion that was asked for too often in seven days or "
    "whose retrainings fail (each failure doubles the wait). The numbers are the settings "
    "`retrain_triggers` and `registry.max_model_age_days`. A launch by hand is never held back.",
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
    limits, max_age_days = settings.retrain_triggers, settings.registry.max_model_age_days
    findings = [look(item, now_ms, limits, max_age_days=max_age_days) for item in champions]
    looked_at = "; ".join(finding.looked_at for finding in findings)
    context.log.info("looked at %s", looked_at)
    before = still_asked(_fulfilled(context.instance, memory["asked"]), champions)
    sent = _sent(memory, time.time())
    free, held = _free(findings, _requests(context.instance, sent), settings)
    new = [_numbered(context.instance, ask) for ask in asks(free, before)]
    # Only what would be asked now is held back by anything.
    told = [held[name] for name in _names(asks(findings, before)) if name in held]
    for text in told:
        context.log.info("held back: %s", text)
    if not new:
        known = ", ".join(sorted(before)) or "none"
        start = f"held back: {'; '.join(told)}. " if told else "nothing new: "
        # What is over is forgotten: the same alarm asks anew when it comes back.
        cursor = json.dumps({**memory, "asked": before, "sent": sent})
        text = f"{start}{looked_at}. Asked before: {known}"
        return SensorResult(skip_reason=SkipReason(text), cursor=cursor)
    for ask in new:
        context.log.info("asking for a retraining: %s", ask.reason)
    now_s = time.time()
    cursor = json.dumps(
        {
            "asked": remembered(before, new, [champion.label for champion in champions]),
            "last_s": now_s,
            "reasons": [ask.reason for ask in new],
            "sent": {**sent, **{ask.key: now_s for ask in new}},
        }
    )
    return SensorResult(run_requests=[_request(ask) for ask in new], cursor=cursor)


def _sent(memory: Mapping[str, Any], now_s: float) -> dict[str, float]:
    """Return when each request that the cursor knows was made; old ones are forgotten."""
    known: Mapping[str, float] = memory.get("sent", {})
    return {key: at_s for key, at_s in known.items() if now_s - at_s < LOOKED_BACK_S}


def _requests(instance: DagsterInstance, sent: Mapping[str, float]) -> list[Request]:
    """Return what the sensor asked for, as the cursor and Dagster's runs know it.

    A cursor that was reset has forgotten and the runs have not; a request whose run was never
    created is in the cursor alone.
    """
    since = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=LOOKED_BACK_S)
    records = instance.get_run_records(RunsFilter(job_name=retrain_job.name, created_after=since))
    at_s, ended = dict(sent), dict.fromkeys(sent, Outcome.OTHER)
    for record in records:
        # A run that repeats a failed one carries its key and is the same request.
        key = record.dagster_run.tags.get(RUN_KEY_TAG, "")
        if key.startswith(KEY_START):
            at_s.setdefault(key, record.create_timestamp.timestamp())
            if _succeeded(instance, key):
                ended[key] = Outcome.SUCCEEDED
            elif record.dagster_run.status is DagsterRunStatus.FAILURE:
                ended[key] = Outcome.FAILED
    return [
        Request(key, moment, names_asked(key), ended.get(key, Outcome.OTHER))
        for key, moment in at_s.items()
    ]


def _free(
    findings: Sequence[Finding], requests: Sequence[Request], settings: Settings
) -> tuple[list[Finding], dict[str, str]]:
    """Return the findings that may be asked for now, and by name why others may not."""
    now_s, limits = time.time(), settings.retrain_triggers
    why = {
        name: held_back(name, requests, now_s, limits)
        for name in (finding.champion.unit.name for finding in findings)
    }
    held = {name: text for name, text in why.items() if text is not None}
    return [item for item in findings if item.champion.unit.name not in held], held


def _names(requests: Sequence[Ask]) -> list[str]:
    return [label.rpartition("/")[0] for ask in requests for label in ask.why]


def _waiting(context: Context, settings: Settings, last_s: float) -> str | None:
    """Return why nothing is asked now, whatever the champions look like."""
    job = retrain_job.name
    launchable = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=LAUNCH_LIMIT_S)
    created = RunsFilter(
        job_name=job, statuses=[DagsterRunStatus.NOT_STARTED], created_after=launchable
    )
    running = [
        *context.instance.get_runs(filters=RunsFilter(job_name=job, statuses=OPEN_STATUSES)),
        *context.instance.get_runs(filters=created),
    ]
    if running:
        first = running[0]
        return f"retrain run {first.run_id} is {first.status.value}: one at a time"
    pause_s = settings.retrain_triggers.pause_hours * S_PER_HOUR
    passed_s = time.time() - last_s
    if passed_s < pause_s:
        return f"{passed_s / S_PER_HOUR:.2f} of {pause_s / S_PER_HOUR:g} h since the last request"
    return None


def _fulfilled(
    instance: DagsterInstance, asked: Mapping[str, Mapping[str, str] | list[str]]
) -> dict[str, dict[str, str]]:
    """Return what was asked and done: what failed, was cancelled or never ran is asked anew.

    Called when no retraining is open and the pause is over. A cursor of before the keys were
    kept holds lists of reasons; nothing tells what became of them.
    """
    found = {}
    for label, keys in asked.items():
        known = keys if isinstance(keys, Mapping) else {}
        done = {name: key for name, key in known.items() if _succeeded(instance, key)}
        if done:
            found[label] = done
    return found


def _succeeded(instance: DagsterInstance, key: str) -> bool:
    """Tell whether the run of this key, or one that repeats it, ended in SUCCESS."""
    runs = instance.get_runs(filters=RunsFilter(tags={RUN_KEY_TAG: key}))
    if any(run.status is DagsterRunStatus.SUCCESS for run in runs):
        return True
    again = RunsFilter(
        tags={ROOT_RUN_ID_TAG: [run.run_id for run in runs]}, statuses=[DagsterRunStatus.SUCCESS]
    )
    return bool(runs) and bool(instance.get_runs(filters=again, limit=1))


def _numbered(instance: DagsterInstance, ask: Ask) -> Ask:
    """Return the request with the first attempt no run has: a used key launches nothing."""
    while instance.get_runs(filters=RunsFilter(tags={RUN_KEY_TAG: ask.key}), limit=1):
        ask = dataclasses.replace(ask, attempt=ask.attempt + 1)
    return ask


def _request(ask: Ask) -> RunRequest:
    config = {"symbols": list(ask.symbols), "families": list(ask.families)}
    return RunRequest(
        run_key=ask.key,
        run_config={"ops": {"plan_units": {"config": config}}},
        tags={REASON_TAG: ask.reason[:TAG_LIMIT]},
    )
