"""Launch a job from the command line on the same instance that the Dagster UI shows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.instance import INSTANCE_FILE, dagster_home, open_storage
from tradewind.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance, EventLogEntry, JobDefinition
    from rich.console import Console

__all__ = [
    "Finished",
    "dagster_home",
    "ingest_symbols",
    "launch",
    "open_instance",
    "resolve_job",
]

LAUNCHER_TAG = "tradewind/launcher"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
POLL_S = 0.5
IN_OUR_LOCATION = {".dagster/repository": "__repository__@tradewind"}
"""Tag by which a job's page finds its runs; a run launched outside the pages has none."""


@dataclass(frozen=True)
class Finished:
    """How a run ended."""

    run_id: str
    success: bool
    errors: tuple[str, ...]


def open_instance(settings: Settings) -> DagsterInstance:
    """Open the instance, closing what a killed launcher left behind."""
    instance = open_storage(settings)
    _close_orphans(instance)
    return instance


def resolve_job(name: str) -> JobDefinition:
    """Return a job of the code location with its resources; step processes call this too."""
    from pipelines.definitions import defs

    return defs.resolve_job_def(name)


def launch(
    instance: DagsterInstance,
    job_name: str,
    *,
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    on_event: Callable[[EventLogEntry], None] | None = None,
) -> Finished:
    """Run a job to its end, in step processes of its own.

    Parameters
    ----------
    job_name
        A job of `pipelines.definitions` that has no partitions.
    on_event
        Called with each event-log entry while the run goes on.
    """
    from dagster import build_reconstructable_job
    from dagster._core.execution.api import execute_run
    from dagster._core.storage.tags import MAX_RETRIES_TAG
    from dagster._core.utils import make_new_run_id

    # One thread a process: two steps on two cores would otherwise spin against each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    job = build_reconstructable_job(
        "pipelines.launch", "resolve_job", (job_name,), {}, str(INSTANCE_FILE.parent)
    )
    run_id = make_new_run_id()
    run = instance.create_run_for_job(
        job_def=job.get_definition(),
        run_id=run_id,
        run_config={**(run_config or {}), **QUIET},
        # Whoever called runs the command again; a daemon beside it should not.
        tags={
            **IN_OUR_LOCATION,
            **(tags or {}),
            LAUNCHER_TAG: _launcher(run_id, os.getpid()),
            MAX_RETRIES_TAG: "0",
        },
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


def ingest_symbols(settings: Settings, instance: DagsterInstance, console: Console) -> None:
    """Run the job `ingest` for each symbol in this process, with a bar of progress.

    Raises
    ------
    TradewindError
        Of the first symbol that fails.
    """
    from pipelines.progress import progress_bar

    job = resolve_job("ingest")
    symbols = settings.market.all_symbols
    with progress_bar(console) as bar:
        task = bar.add_task("ingest", total=len(symbols), note="")
        for symbol in symbols:
            bar.update(task, note=symbol)
            job.execute_in_process(
                instance=instance,
                partition_key=symbol,
                run_config=QUIET,
                tags=IN_OUR_LOCATION,
                raise_on_error=True,
            )
            bar.advance(task)


def _watch(
    instance: DagsterInstance,
    run_id: str,
    on_event: Callable[[EventLogEntry], None] | None,
    stop: threading.Event,
) -> None:
    if on_event is None:
        return
    cursor: str | None = None
    while True:
        last_look = stop.wait(POLL_S)
        more = True
        while more:
            page = instance.get_records_for_run(run_id, cursor=cursor)
            cursor, more = page.cursor, page.has_more
            for record in page.records:
                on_event(record.event_log_entry)
        if last_look:
            return


def _step_errors(instance: DagsterInstance, run_id: str) -> tuple[str, ...]:
    errors = []
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is not None and event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            root = error.cause or error
            # "package.Class: what happened": a person needs the second half.
            expected = root.cls_name == "TradewindError"
            text = root.message.split(": ", 1)[1] if expected else root.message
            errors.append(f"{event.step_key}: {text.strip()}")
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
                DagsterRunStatus.CANCELING,
            ]
        )
    )
    for run in open_runs:
        token = run.tags.get(LAUNCHER_TAG, "")
        # A run executed again from the UI inherits the tags of the first, not its launcher.
        if not token.startswith(f"{run.run_id}@") or _alive(token):
            continue
        instance.report_run_failed(run, message="its launcher was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _launcher(run_id: str, pid: int) -> str:
    """Return who launched a run; the start time, as a pid may be another process's by now."""
    import psutil

    from tradewind.ledger.lease import host_identity

    started = f"{psutil.Process(pid).create_time():.2f}"
    return f"{run_id}@{pid}@{started}@{host_identity()}"


def _alive(token: str) -> bool:
    """Tell whether a launcher lives; one on another host cannot be asked, and is left alone."""
    import psutil

    from tradewind.ledger.lease import host_identity

    run_id, pid, _, host = (*token.split("@", 3), host_identity())[:4]
    if host != host_identity():
        return True
    try:
        return _launcher(run_id, int(pid)) == token
    except psutil.NoSuchProcess:
        return False
