"""What a launcher closes when it starts: its dead predecessors' runs, and no others."""

from __future__ import annotations

import os

import pytest
from dagster import DagsterInstance, DagsterRunStatus

from pipelines.launch import LAUNCHER_TAG, _close_orphans, _launcher, resolve_job

RUN = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"
DEAD = f"{RUN}@{os.getpid()}@1.00"  # this pid, but of a process that started long ago


@pytest.mark.parametrize(
    ("tags", "closed"),
    [
        pytest.param({LAUNCHER_TAG: DEAD}, True, id="its launcher is dead"),
        pytest.param({LAUNCHER_TAG: _launcher(RUN, os.getpid())}, False, id="it is alive"),
        pytest.param({LAUNCHER_TAG: f"{DEAD}@elsewhere"}, False, id="on another host"),
        pytest.param({}, False, id="launched by a daemon"),
        pytest.param({LAUNCHER_TAG: DEAD.replace(RUN, OTHER)}, False, id="an inherited tag"),
    ],
)
def test_only_runs_of_dead_launchers_are_closed(tags: dict[str, str], closed: bool) -> None:
    with DagsterInstance.ephemeral() as instance:
        instance.create_run_for_job(
            resolve_job("drift"), run_id=RUN, tags=tags, status=DagsterRunStatus.STARTED
        )
        _close_orphans(instance)
        run = instance.get_run_by_id(RUN)
        assert run is not None
        assert run.status is (DagsterRunStatus.FAILURE if closed else DagsterRunStatus.STARTED)
