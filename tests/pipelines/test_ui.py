"""A retraining launched from Dagster's own web server, with its daemon beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.conftest import TINY
from tests.support.dagster_ui import Ui, web_and_daemon

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(600)]
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


@pytest.fixture
def ui(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ui]:
    """Web server and daemon on an instance under the home, as `dagster.yaml` sets it up."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    with web_and_daemon(home, tmp_path, **TINY) as found:
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
    tags = ui.tags(failed)
    assert tags.get("dagster/will_retry", "false") == "false", json.dumps(tags)
