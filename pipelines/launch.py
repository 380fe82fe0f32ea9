"""Launch a job from the command line on the same instance that the Dagster UI shows."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradewind.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance, EventLogEntry

PID_TAG = "tradewind/pid"
INSTANCE_FILE = Path(__file__).resolve().parent.parent / "dagster.yaml"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
POLL_S = 0.5


@dataclass(frozen=True)
class Finished:
    """How a run ended."""

    run_id: str
    success: bool
    errors: tuple[str, ...]


def dagster_home(settings: Settings) -> Path:
    """Return the instance's folder, made ready: `DAGSTER_HOME` for this process."""
    home = (settings.home / "dagster").absolute()
    home.mkdir(parents=True, exist_ok=True)
    target = home / "dagster.yaml"
    if not target.exists():
        shutil.copyfile(INSTANCE_FILE, target)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def open_instance(settings: Settings) -> DagsterInstance:
    """Open the instance, closing what a killed launcher left behind."""
    from dagster import DagsterInstance

    dagster_home(settings)
    instance = DagsterInstance.get()
    _close_orphans(instance)
    return instance


def launch(
    instance: DagsterInstance,
    job_attribute: str,
    *,
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    on_event: Callable[[EventLogEntry], None] | None = None,
) -> Finished:
    """Run a job of `pipelines.jobs` to its end, in step processes of its own.

    Parameters
    ----------
    job_attribute
        Name of the job object in `pipelines.jobs`.
    on_event
        Called with each event-log entry while the run goes on.
    """
    from dagster import build_reconstructable_job
    from dagster._core.execution.api import execute_run

    job = build_reconstructable_job("pipelines.jobs", job_attribute)
    run = instance.create_run_for_job(
        job_def=job.get_definition(),
        run_config={**(run_config or {}), **QUIET},
        tags={**(tags or {}), PID_TAG: str(os.getpid())},
    )
    stop = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(instance, run.run_id, on_event, stop), daemon=True
    )
    watcher.start()
    try:
        result = execute_run(job, run, instance, raise_on_error=False)
    finally:
        stop.set()
        watcher.join()
    return Finished(run.run_id, result.success, _step_errors(instance, run.run_id))


def _watch(
    instance: DagsterInstance,
    run_id: str,
    on_event: Callable[[EventLogEntry], None] | None,
    stop: threading.Event,
) -> None:
    cursor: str | None = None
    last_look = False
    while on_event is not None:
        page = instance.get_records_for_run(run_id, cursor=cursor)
        cursor = page.cursor
        for record in page.records:
            on_event(record.event_log_entry)
        if last_look:
            return
        last_look = stop.wait(POLL_S)


def _step_errors(instance: DagsterInstance, run_id: str) -> tuple[str, ...]:
    errors = []
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is not None and event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            root = error.cause or error
            errors.append(f"{event.step_key}: {root.message.strip()}")
    return tuple(errors)


def _close_orphans(instance: DagsterInstance) -> None:
    """Fail runs whose launcher died and free the pool slots they still hold."""
    from dagster import DagsterRunStatus, RunsFilter

    open_runs = instance.get_runs(
        filters=RunsFilter(
            statuses=[
                DagsterRunStatus.STARTED,
                DagsterRunStatus.STARTING,
                DagsterRunStatus.NOT_STARTED,
            ]
        )
    )
    for run in open_runs:
        pid = run.tags.get(PID_TAG)
        if pid is None or _alive(int(pid)):
            continue
        instance.report_run_failed(run, message="its launcher was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _alive(pid: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(pid))
