"""Dagster's web server and daemon as real processes, and what a browser would ask of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.instance import dagster_home
from pipelines.servers import free_port
from tests.pipelines.conftest import ROOT, environment
from tradewind.settings import load_settings

ENDED = ("SUCCESS", "FAILURE", "CANCELED")
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "tradewind"}
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
AGAIN = """
mutation ($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
TERMINATE = """
mutation ($id: String!) {
  terminateRun(runId: $id, terminatePolicy: SAFE_TERMINATE) {
    __typename
    ... on TerminateRunFailure { message }
    ... on PythonError { message }
  }
}
"""
STATUS = """
query ($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }
"""
STEPS = """
query ($id: ID!) {
  runOrError(runId: $id) { ... on Run { stepStats { stepKey status startTime endTime } } }
}
"""
LOGS = """
query ($id: ID!) {
  logsForRun(runId: $id, limit: 1000) {
    ... on EventConnection {
      events {
        __typename
        ... on MessageEvent { message stepKey }
        ... on ExecutionStepFailureEvent { error { message cause { message } } }
      }
    }
  }
}
"""
SERVERS = """
query {
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } }
  workspaceOrError {
    ... on Workspace {
      locationEntries { name locationOrLoadError { __typename ... on PythonError { message } } }
    }
  }
}
"""


class Ui:
    """What a browser would ask."""

    def __init__(self, port: int, home: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.home = home

    def ask(self, query: str, **variables: Any) -> Any:
        """Return the data of a GraphQL answer."""
        body = {"query": query, "variables": variables}
        answer = httpx.post(f"{self.url}/graphql", json=body, timeout=60).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def until_ready(self, limit_s: float = 300) -> None:
        """Wait until the daemons are well and the code location has loaded."""

        def ready() -> bool:
            try:
                seen = self.ask(SERVERS)
            except httpx.TransportError:
                return False
            health = seen["instance"]["daemonHealth"]["allDaemonStatuses"]
            places = seen["workspaceOrError"]["locationEntries"]
            kinds = [(item["locationOrLoadError"] or {}).get("__typename") for item in places]
            well = all(item["healthy"] for item in health if item["required"])
            return bool(health) and well and kinds == ["RepositoryLocation"]

        until(ready, "servers ready", limit_s)

    def launch(self, job: str, config: dict[str, Any]) -> dict[str, Any]:
        """Launch a job as the launchpad does; returns the whole answer."""
        params = {
            "selector": {**REPOSITORY, "jobName": job},
            "runConfigData": config,
            "mode": "default",
        }
        answer: dict[str, Any] = self.ask(LAUNCH, params=params)["launchRun"]
        return answer

    def launched(self, job: str, config: dict[str, Any]) -> str:
        """Launch a job; returns the run's id."""
        done = self.launch(job, config)
        assert done["__typename"] == "LaunchRunSuccess", done
        return str(done["run"]["runId"])

    def retrain(self, **choices: Any) -> str:
        """Launch `retrain` with some fields of its form changed; returns the run's id."""
        return self.launched("retrain", {"ops": {"plan_units": {"config": choices}}})

    def again(self, run_id: str) -> str:
        """Re-execute a run from failure, as its page's button does; returns the new id."""
        params = {"parentRunId": run_id, "strategy": "FROM_FAILURE"}
        done = self.ask(AGAIN, params=params)["launchRunReexecution"]
        assert done["__typename"] == "LaunchRunSuccess", done
        return str(done["run"]["runId"])

    def terminate(self, run_id: str) -> None:
        """Press the run page's Terminate."""
        # A run that is just starting cannot be terminated yet, as the page says too.
        until(lambda: self.status(run_id) not in ("NOT_STARTED", "STARTING"), "its start", 120)
        done = self.ask(TERMINATE, id=run_id)["terminateRun"]
        assert done["__typename"] == "TerminateRunSuccess", done

    def status(self, run_id: str) -> str:
        """Return a run's status."""
        return str(self.ask(STATUS, id=run_id)["runOrError"]["status"])

    def tags(self, run_id: str) -> dict[str, str]:
        """Return a run's tags."""
        return {
            tag["key"]: tag["value"] for tag in self.ask(STATUS, id=run_id)["runOrError"]["tags"]
        }

    def steps(self, run_id: str) -> list[dict[str, Any]]:
        """Return a run's steps with status, start and end."""
        found: list[dict[str, Any]] = self.ask(STEPS, id=run_id)["runOrError"]["stepStats"]
        return found

    def logs(self, run_id: str) -> list[dict[str, Any]]:
        """Return a run's events."""
        found: list[dict[str, Any]] = self.ask(LOGS, id=run_id)["logsForRun"]["events"]
        return found

    def said(self, run_id: str, words: str) -> bool:
        """Tell whether a line of the run's log holds ``words``."""
        return any(words in (event.get("message") or "") for event in self.logs(run_id))

    def ended(self, run_id: str, limit_s: float = 480) -> str:
        """Wait for a run's end; returns its status."""
        until(lambda: self.status(run_id) in ENDED, f"the end of run {run_id}", limit_s)
        return self.status(run_id)


def until(found: Callable[[], bool], what: str, limit_s: float, pause_s: float = 0.5) -> None:
    """Wait until ``found`` answers true, or fail the test."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found():
            return
        time.sleep(pause_s)
    pytest.fail(f"{what}: not within {limit_s} s")


@contextmanager
def web_and_daemon(home: Path, logs: Path, **more: str) -> Iterator[Ui]:
    """Yield the pages of an instance under ``home``, as `dagster.yaml` sets it up."""
    instance = dagster_home(load_settings(home=home))
    variables = environment(home, DAGSTER_HOME=str(instance), **more)
    port = free_port()
    workspace = ("-w", str(ROOT / "workspace.yaml"))
    with ExitStack() as stack:
        for name, arguments in {
            "web": ("dagster_webserver", "-h", "127.0.0.1", "-p", str(port), *workspace),
            "daemon": ("dagster._daemon", "run", *workspace),
        }.items():
            stack.enter_context(_process(logs / f"{name}.log", variables, *arguments))
        found = Ui(port, home)
        found.until_ready()
        yield found


@contextmanager
def _process(log: Path, variables: dict[str, str], *arguments: str) -> Iterator[None]:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=variables,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
