"""What a data check found, as Dagster metadata: rows as a table, pictures inline."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dagster import MetadataValue, TableRecord

from tradewind.clock import utc_text

if TYPE_CHECKING:
    import polars as pl

DIGITS = 6


def found(rows: pl.DataFrame | None, plots: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the rows behind a verdict and its pictures; nothing where there is nothing."""
    shown: dict[str, Any] = {
        name: MetadataValue.md(
            f"![{name}](data:image/png;base64,{base64.b64encode(content).decode()})"
        )
        for name, content in plots.items()
    }
    if rows is not None and rows.height:
        records = [
            TableRecord({name: _cell(name, value) for name, value in row.items()})
            for row in rows.iter_rows(named=True)
        ]
        shown["rows"] = MetadataValue.table(records)
    return shown


def _cell(name: str, value: Any) -> str | int | float | bool | None:
    if value is not None and (name == "ts" or name.endswith("_ts")):
        return utc_text(value)
    if isinstance(value, float):
        # Dagster stores metadata as JSON, which knows neither NaN nor infinity.
        return round(value, DIGITS) if abs(value) < float("inf") else str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return str(value)
