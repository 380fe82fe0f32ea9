"""What runs and assets show: links, tables, pictures."""

from __future__ import annotations

import base64
from pathlib import Path

from dagster import MetadataValue, TableMetadataValue

from assets import metadata
from assets.steps import Judgement

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def test_a_url_is_a_link_and_an_unknown_one_is_left_out() -> None:
    shown = metadata.figures({"mlflow_url": "http://127.0.0.1:5000/#/x", "page_url": None})
    assert shown == {"mlflow": MetadataValue.url("http://127.0.0.1:5000/#/x")}


def test_small_pictures_are_shown_inline_and_large_ones_named(tmp_path: Path) -> None:
    small, large = tmp_path / "roc.png", tmp_path / "equity.png"
    small.write_bytes(PNG)
    large.write_bytes(PNG + bytes(metadata.PICTURE_LIMIT))
    shown = metadata.pictures([small, large])
    assert shown["roc"] == MetadataValue.md(
        f"![roc](data:image/png;base64,{base64.b64encode(PNG).decode()})"
    )
    assert shown["equity"] == MetadataValue.path(large)


def test_a_judged_version_shows_its_baselines_and_gates_side_by_side() -> None:
    judged = Judgement(
        name="tradewind.lightgbm.POOLED",
        version=2,
        run_id="abc",
        passed=False,
        gates=[{"name": "ece", "passed": False, "value": 0.06, "limit": 0.05, "text": "too much"}],
        metrics={
            "auc": 0.53,
            "auc_low": 0.5,
            "auc_high": 0.56,
            "auc_base_rate": 0.5,
            "wf_ece": None,
        },
        pictures=[],
        run_url="http://127.0.0.1:5000/#/run",
        version_url=None,
    )
    shown = metadata.judgement(judged)
    assert shown["version"] == "tradewind.lightgbm.POOLED/2"
    assert shown["mlflow"] == MetadataValue.url("http://127.0.0.1:5000/#/run")
    table = shown["against_baselines"]
    assert isinstance(table, TableMetadataValue)
    (row,) = [record.data for record in table.records]
    assert row == {
        "metric": "auc",
        "model": 0.53,
        "low": 0.5,
        "high": 0.56,
        "base_rate": 0.5,
        "momentum": None,
        "logistic": None,
    }
    gates = shown["gates"]
    assert isinstance(gates, TableMetadataValue)
    assert gates.records[0].data["passed"] == "no"
    assert shown["auc"] == 0.53
    assert "wf_ece" not in shown
