"""The steps of a retraining in one process, and what a person then finds in MLflow."""

from __future__ import annotations

import json
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from assets import steps
from assets.steps.card import CARD_FILE, DESCRIPTION_LIMIT
from registry.tracking import NOTE_TAG, PARENT_TAG, Tracking
from tests.registry.test_server import serve
from tradewind.ledger import LedgerClock, open_ledger
from tradewind.ledger.clock import set_replay_clock
from tradewind.market.ingest import run_ingest, store_for
from tradewind.models.metric_table import known
from tradewind.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(600)]
PICTURES = {
    *("reliability", "roc", "risk_coverage", "error_by_uncertainty"),
    *("equity", "folds", "importance"),
}


class Killed(BaseException):
    """Stands for a signal: nothing in the code may catch it."""


@pytest.fixture
def settings(make_settings: Callable[..., Settings], data_root: Path) -> Settings:
    settings = make_settings(
        data=data_root,
        clock="replay",
        market={"symbols": ["BTCUSDT", "ETHUSDT"]},
        training={
            "days_back": 40,
            "walk_forward_folds": 2,
            "fold_days": 4,
            "bootstrap_samples": 100,
        },
        boosted={"max_rounds": 20},
        serving={"n_samples": 3},
        links={"dagster_url": "http://127.0.0.1:3000", "mlflow_url": "http://127.0.0.1:5000"},
    )
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, 4_000_000_000_000)
        run_ingest(settings, LedgerClock(ledger))
        last = store_for(settings).last_ts("BTCUSDT", settings.market.timeframe)
        assert last is not None
        set_replay_clock(ledger, last + settings.market.timeframe_ms)
    return settings


def plan(settings: Settings, dagster_run_id: str) -> steps.Plan:
    with open_ledger(settings) as ledger:
        return steps.plan_retrain(
            settings,
            LedgerClock(ledger),
            families=["lightgbm"],
            dagster_run_id=dagster_run_id,
            trigger="sensor",
            reason="PSI 0.31",
        )


def test_a_killed_retraining_resumes_into_one_readable_tree(
    settings: Settings, tmp_path: Path
) -> None:
    task = plan(settings, "dag-1").tasks[0]
    steps.prepare(settings, task)
    fitted = steps.fit(settings, task)

    def killed_after_the_first_fold(number: int, _: Mapping[str, float]) -> None:
        if number == 2:
            raise Killed

    with pytest.raises(Killed):
        steps.walk_forward(settings, task, killed_after_the_first_fold)

    second = plan(settings, "dag-2")
    task = second.tasks[0]
    steps.fit(settings, task)
    steps.walk_forward(settings, task)
    judged = steps.evaluate(settings, task)
    steps.measure_drift(settings, task)
    steps.promote(settings, task, judged)

    tracking = Tracking(settings)
    run = tracking.client.get_run(judged.run_id)
    folds = tracking.search(f"tags.`{PARENT_TAG}` = '{judged.run_id}'")
    assert sorted(fold.data.tags["fold"] for fold in folds) == ["1", "2"]
    assert run.data.tags[PARENT_TAG] == second.parent_run_id
    assert run.data.tags["dagster_run_id"] == "dag-1"
    assert run.data.tags["dagster_run_ids"] == "dag-1 dag-2"
    assert run.info.run_name == "lightgbm POOLED"
    assert run.data.tags["reason"] == "PSI 0.31"
    assert fitted["mlflow_url"] == judged.run_url
    assert judged.version_url is not None
    assert judged.version_url in run.data.tags[NOTE_TAG]
    assert "http://127.0.0.1:3000/runs/dag-2" in run.data.tags[NOTE_TAG]
    everything = [*tracking.search("attributes.status != 'NONE'")]
    assert {item.info.status for item in everything} == {"FINISHED"}
    logged = {name for item in everything for name in item.data.metrics}
    assert [name for name in logged if not known(name)] == []
    contexts = {item.tags[0].value for item in run.inputs.dataset_inputs}
    assert contexts == {"train", "validation", "calibration", "test", "walk_forward"}
    assert run.data.params["boosted.max_rounds"] == "20"
    _assert_parent(tracking, second.parent_run_id, judged)
    _assert_version(tracking, judged)
    _assert_nothing_absolute(settings, tracking, everything, tmp_path)

    points = len(tracking.client.get_metric_history(judged.run_id, "auc"))
    third = plan(settings, "dag-3")
    steps.fit(settings, third.tasks[0])
    steps.walk_forward(settings, third.tasks[0])
    assert steps.evaluate(settings, third.tasks[0]).version == judged.version
    again = tracking.client.get_run(judged.run_id)
    assert again.data.tags[PARENT_TAG] == second.parent_run_id, "finished work stays where it is"
    assert len(tracking.client.get_metric_history(judged.run_id, "auc")) == points == 1
    assert "1 of 1 units judged" in tracking.run_tags(third.parent_run_id)[NOTE_TAG]
    assert len(tracking.search(f"tags.`{PARENT_TAG}` = '{judged.run_id}'")) == 2

    # What the embedded default began, a server goes on with: pictures open over HTTP.
    database = Path(settings.mlflow_tracking_uri.removeprefix("sqlite:///"))
    with serve(database, tmp_path) as (url, _):
        query = urllib.parse.urlencode(
            {"path": "pictures/reliability.png", "run_uuid": judged.run_id}
        )
        with urllib.request.urlopen(f"{url}/get-artifact?{query}", timeout=30) as answer:
            assert answer.read(4) == b"\x89PNG"
        served = settings.model_copy(
            update={"registry": settings.registry.model_copy(update={"tracking_uri": url})}
        )
        assert steps.evaluate(served, third.tasks[0]).version == judged.version


def _assert_parent(tracking: Tracking, run_id: str, judged: steps.Judgement) -> None:
    run = tracking.client.get_run(run_id)
    assert run.info.run_name.endswith("· 1 unit")
    assert run.data.metrics["units_judged"] == 1
    assert run.data.tags["stage"] == "judged"
    assert f"{judged.name}/{judged.version}" in run.data.tags[NOTE_TAG]
    assert "3000/runs/dag-2" in run.data.tags[NOTE_TAG]


def _assert_version(tracking: Tracking, judged: steps.Judgement) -> None:
    version = tracking.client.get_model_version(judged.name, str(judged.version))
    assert version.run_id == judged.run_id
    assert len(version.description) <= DESCRIPTION_LIMIT
    card = tracking.client.download_artifacts(judged.run_id, CARD_FILE)
    text = Path(card).read_text(encoding="utf-8")
    for heading in ("Intended use", "Not intended", "## Data", "## Gates", "## Limitations"):
        assert heading in text
    assert str(judged.run_url) in text
    assert f"{judged.metrics['auc']:.4f}" in text
    assert version.tags["data_span"].endswith("UTC")
    model = tracking.client.get_registered_model(judged.name)
    assert "champion" in model.description
    pictures = tracking.client.list_artifacts(judged.run_id, "pictures")
    assert {Path(item.path).stem for item in pictures} == PICTURES


def _assert_nothing_absolute(
    settings: Settings, tracking: Tracking, runs: list[Any], tmp_path: Path
) -> None:
    """No path of this disk in parameters, tags or texts; MLflow's own bookkeeping aside."""
    shown: dict[str, str] = {}
    for run in runs:
        values = {**run.data.params, **run.data.tags}
        shown |= {f"{run.info.run_name} {name}": str(text) for name, text in values.items()}
        inputs = json.dumps(run.inputs.to_dictionary())
        shown[f"{run.info.run_name} inputs"] = inputs
    for path in settings.mlflow_artifacts.rglob("*"):
        if path.suffix in (".json", ".md", ".yaml", ".txt", "") and path.is_file():
            shown[str(path.relative_to(tmp_path))] = path.read_text(encoding="utf-8")
    for version in tracking.client.search_model_versions(""):
        shown |= {f"version {name}": text for name, text in version.tags.items()}
        shown["card"] = version.description
    assert len(shown) > 50
    roots = (str(tmp_path), str(settings.data), socket.gethostname() + ":")
    found = {name for name, text in shown.items() for root in roots if root in text}
    assert found == set()
