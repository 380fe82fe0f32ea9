"""Figures, pictures, tables and links as Dagster metadata."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import MetadataValue, TableColumn, TableRecord, TableSchema

if TYPE_CHECKING:
    from assets.steps import Judgement

Raw = Any  # what Dagster's own RawMetadataValue covers; it is not exported
PICTURE_LIMIT = 300_000
JUDGED_METRICS = ("auc", "log_loss", "brier", "ece", "accuracy")
URL_SUFFIX = "_url"
PATH_SUFFIX = "_path"
SHOWN_DIGITS = 5


def figures(values: Mapping[str, Any]) -> dict[str, Raw]:
    """Return bare numbers and texts as metadata; absent values are left out."""
    shown: dict[str, Raw] = {}
    for name, value in values.items():
        if value is None:
            continue
        if name.endswith("_ms") and isinstance(value, int):
            shown[name.removesuffix("_ms")] = MetadataValue.timestamp(value / 1000)
        elif name.endswith(URL_SUFFIX):
            shown[name.removesuffix(URL_SUFFIX)] = MetadataValue.url(str(value))
        elif name.endswith(PATH_SUFFIX):
            shown[name.removesuffix(PATH_SUFFIX)] = MetadataValue.path(str(value))
        else:
            shown[name] = value
    return shown


def pictures(paths: Sequence[str | Path]) -> dict[str, Raw]:
    """Return small PNGs inline as Markdown, larger ones as paths."""
    shown: dict[str, Raw] = {}
    for path in map(Path, paths):
        if path.stat().st_size <= PICTURE_LIMIT:
            data = base64.b64encode(path.read_bytes()).decode()
            shown[path.stem] = MetadataValue.md(f"![{path.stem}](data:image/png;base64,{data})")
        else:
            shown[path.stem] = MetadataValue.path(path)
    return shown


def judgement(judged: Judgement) -> dict[str, Raw]:
    """Return all that is shown of a judged version: links first, tables, pictures, figures."""
    return {
        "version": f"{judged.name}/{judged.version}",
        "mlflow_run_id": judged.run_id,
        **figures({"mlflow_url": judged.run_url, "version_page_url": judged.version_url}),
        **comparison(judged.metrics),
        **verdicts(judged.gates),
        **pictures(judged.pictures),
        **figures(judged.metrics),
    }


def comparison(metrics: Mapping[str, float | None]) -> dict[str, Raw]:
    """Return each metric of the model beside its interval and the baselines on the same rows."""
    from tradewind.models.baselines import BASELINES

    low, high = "low", "high"
    names = [name for name in JUDGED_METRICS if metrics.get(name) is not None]
    columns = ("model", low, high, *BASELINES)
    records = [
        TableRecord(
            {
                "metric": name,
                "model": _number(metrics, name),
                low: _number(metrics, f"{name}_{low}"),
                high: _number(metrics, f"{name}_{high}"),
                **{other: _number(metrics, f"{name}_{other}") for other in BASELINES},
            }
        )
        for name in names
    ]
    schema = TableSchema(
        columns=[
            TableColumn("metric", type="string"),
            *(TableColumn(column, type="float") for column in columns),
        ]
    )
    return {"against_baselines": MetadataValue.table(records, schema=schema)} if records else {}


def beside_champion(values: Mapping[str, Any]) -> dict[str, Raw]:
    """Return each metric of challenger and champion on the same rows as one table, if any."""
    names = [name for name in JUDGED_METRICS if f"{name}_champion" in values]
    records = [
        TableRecord(
            {
                "metric": name,
                "challenger": _number(values, name),
                "champion": _number(values, f"{name}_champion"),
            }
        )
        for name in names
    ]
    schema = TableSchema(
        columns=[
            TableColumn("metric", type="string"),
            TableColumn("challenger", type="float"),
            TableColumn("champion", type="float"),
        ]
    )
    return (
        {"challenger_beside_champion": MetadataValue.table(records, schema=schema)}
        if records
        else {}
    )


def verdicts(gates: Sequence[Mapping[str, Any]]) -> dict[str, Raw]:
    """Return the gates as one table: what was measured, what was asked, and the text."""
    records = [
        TableRecord(
            {
                "gate": str(gate["name"]),
                "passed": "yes" if gate["passed"] else "no",
                "value": gate["value"],
                "limit": gate["limit"],
                "text": str(gate["text"]),
            }
        )
        for gate in gates
    ]
    schema = TableSchema(
        columns=[
            TableColumn("gate", type="string"),
            TableColumn("passed", type="string"),
            TableColumn("value", type="float"),
            TableColumn("limit", type="float"),
            TableColumn("text", type="string"),
        ]
    )
    return {"gates": MetadataValue.table(records, schema=schema)}


def drift_table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Raw]:
    """Return drift by column as one table: PSI, its own limits, and the verdict."""
    numbers = ("psi", "warn", "alert")
    records = [
        TableRecord(
            {
                "column": str(row["column"]),
                "status": str(row["status"]),
                **{name: round(float(row[name]), SHOWN_DIGITS) for name in numbers},
            }
        )
        for row in rows
    ]
    schema = TableSchema(
        columns=[
            TableColumn("column", type="string"),
            *(TableColumn(name, type="float") for name in numbers),
            TableColumn("status", type="string"),
        ]
    )
    return {"by_column": MetadataValue.table(records, schema=schema)} if records else {}


def _number(metrics: Mapping[str, float | None], name: str) -> float | None:
    value = metrics.get(name)
    return None if value is None else round(float(value), SHOWN_DIGITS)
