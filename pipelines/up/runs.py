"""Dagster runs whose process is gone: nobody else would end them before `max_runtime`.

``python -m pipelines.up.runs --code-server PORT`` looks after the runs that a dead code server
had launched: those that died with it are closed at once, those that outlived it when they end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.up.state import marked
from tradewind.errors import TradewindError
from tradewind.settings import load_settings

LOOK_S = 2.0
UNSTARTED_S = 60.0
"""How long a run that was just launched may take to name its process."""
GONE = "its process is gone, and the code server that watched it had died"
Say = Callable[[str], object]


def launched_by(instance: Any, port: int) -> list[Any]:
    """Return the runs under way that the code server on a port launched."""
    from dagster import DagsterRunStatus, RunsFilter
    from dagster._core.storage.tags import GRPC_INFO_TAG

    begun = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    return [
        run
        for run in instance.get_runs(filters=RunsFilter(statuses=begun))
        if port and json.loads(run.tags.get(GRPC_INFO_TAG, "{}")).get("port") == port
    ]


def close(instance: Any, run: Any, why: str, say: Say) -> None:
    """Mark a run as failed and free the slots it holds."""
    say(f"run {run.run_id} ({run.job_name}) had not ended: marked as failed")
    instance.report_run_failed(run, message=why)
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def close_gone(
    instance: Any,
    port: int,
    home: Path,
    say: Say,
    *,
    look_s: float = LOOK_S,
    unstarted_s: float = UNSTARTED_S,
) -> None:
    """Close the runs of a dead code server as their processes end; return when none is left.

    Only runs that are under way now are looked at: later ones have a code server that watches.
    """
    left = {run.run_id for run in launched_by(instance, port)}
    deadline = time.monotonic() + unstarted_s
    while left:
        for run_id in sorted(left):
            run = instance.get_run_by_id(run_id)
            pid = process_of(instance, run_id)
            lives = time.monotonic() < deadline if pid is None else marked(pid, home)
            if run is None or run.is_finished:
                left.discard(run_id)
            elif not lives:
                # It may have ended properly between the two questions.
                run = instance.get_run_by_id(run_id)
                if run is not None and not run.is_finished:
                    close(instance, run, GONE, say)
                left.discard(run_id)
        if left:
            time.sleep(look_s)


def process_of(instance: Any, run_id: str) -> int | None:
    """Return the process that a run named as its own; None before it did."""
    from dagster import DagsterEventType

    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
        found = entry.dagster_event.engine_event_data.metadata.get("pid")
        if found is not None:
            return int(found.value)
    return None


def main() -> int:
    """Look after the runs of a code server that died."""
    from pipelines.launch import open_instance

    given = argparse.ArgumentParser()
    given.add_argument("--code-server", type=int, required=True)
    port = given.parse_args().code_server
    settings = load_settings()
    try:
        instance = open_instance(settings)
        close_gone(instance, port, settings.home, lambda text: sys.stdout.write(text + "\n"))
    except TradewindError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
