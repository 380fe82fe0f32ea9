"""A retraining launched from Dagster's own web server, with its daemon beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.launch import dagster_home
from pipelines.servers import free_port
from tests.pipelines.conftest import ROOT, TINY, environment
from tradewind.settings import load_settings

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(600)]
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
STATUS = """
query ($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }
"""
GRAPH = """
query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      latestMaterializationByPartition(partitions: ["POOLED"]) { runId }
      assetChecksOrError {
        ... on AssetChecks {
          checks { name executionForLatestMaterialization { runId status } }
        }
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


class Ui:
    """What a browser would ask."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, query: str, **variables: Any) -> Any:
        """Return the data of a GraphQL answer."""
        body = {"query": query, "variables": variables}
        answer = httpx.post(f"{self.url}/graphql", json=body, timeout=60).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def until_ready(self, limit_s: float = 180) -> None:
        """Wait until the daemons are well and the code location has loaded."""
        deadline = time.monotonic() + limit_s
        seen: Any = None
        while time.monotonic() < deadline:
            try:
                seen = self.ask(SERVERS)
            except httpx.TransportError:
                time.sleep(1)
                continue
            health = seen["instance"]["daemonHealth"]["allDaemonStatuses"]
            places = seen["workspaceOrError"]["locationEntries"]
            kinds = [(item["locationOrLoadError"] or {}).get("__typename") for item in places]
            well = all(item["healthy"] for item in health if item["required"])
            if health and well and kinds == ["RepositoryLocation"]:
                return
            time.sleep(1)
        pytest.fail(f"not ready within {limit_s} s: {seen}")

    def launched(self, job: str, config: dict[str, Any]) -> str:
        """Launch a job as the launchpad does; returns the run's id."""
        params = {
            "selector": {
                "repositoryName": "__repository__",
                "repositoryLocationName": "tradewind",
                "jobName": job,
            },
            "runConfigData": config,
            "mode": "default",
        }
        done = self.ask(LAUNCH, params=params)["launchRun"]
        assert done["__typename"] == "LaunchRunSuccess", done
        return str(done["run"]["runId"])

    def ended(self, run_id: str, limit_s: float = 300) -> str:
        """Wait for a run's end; returns its status."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            status = self.ask(STATUS, id=run_id)["runOrError"]["status"]
            if status in ("SUCCESS", "FAILURE", "CANCELED"):
                return str(status)
            time.sleep(1)
        pytest.fail(f"run {run_id} did not end within {limit_s} s")


@pytest.fixture
def ui(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ui]:
    """Web server and daemon on an instance under the home, as `dagster.yaml` sets it up."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    instance = dagster_home(load_settings(home=home))
    variables = environment(home, DAGSTER_HOME=str(instance), **TINY)
    port = free_port()
    workspace = ("-w", str(ROOT / "workspace.yaml"))
    with ExitStack() as stack:
        for name, arguments in {
            "web": ("dagster_webserver", "-h", "127.0.0.1", "-p", str(port), *workspace),
            "daemon": ("dagster._daemon", "run", *workspace),
        }.items():
            stack.enter_context(_process(tmp_path / f"{name}.log", variables, *arguments))
        found = Ui(port)
        found.until_ready()
        yield found


def test_a_retraining_from_the_launchpad(ui: Ui) -> None:
    config = {"ops": {"plan_units": {"config": {"families": ["lightgbm"], "days_back": 40}}}}
    run_id = ui.launched("retrain", config)
    assert ui.ended(run_id) == "SUCCESS"
    node = ui.ask(GRAPH, key={"path": ["lightgbm", "evaluation"]})["assetNodeOrError"]
    assert node["latestMaterializationByPartition"] == [{"runId": run_id}]
    seen = {
        check["name"]: check["executionForLatestMaterialization"]
        for check in node["assetChecksOrError"]["checks"]
    }
    assert {name for name, last in seen.items() if last and last["runId"] == run_id} == set(seen)
    assert seen["artefact"]["status"] == "SUCCEEDED"
    assert seen["smoke"]["status"] == "SUCCEEDED"

    # The same bad input fails again: a failed step is not launched a second time.
    wrong = {"ops": {"plan_units": {"config": {"symbols": ["DOGEUSDT"]}}}}
    failed = ui.launched("retrain", wrong)
    assert ui.ended(failed) == "FAILURE"
    tags = {tag["key"]: tag["value"] for tag in ui.ask(STATUS, id=failed)["runOrError"]["tags"]}
    assert tags.get("dagster/will_retry", "false") == "false", json.dumps(tags)
