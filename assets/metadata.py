"""Figures and pictures as Dagster metadata."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster import MetadataValue

Raw = Any  # what Dagster's own RawMetadataValue covers; it is not exported
PICTURE_LIMIT = 300_000


def figures(values: Mapping[str, Any]) -> dict[str, Raw]:
    """Return bare numbers and texts as metadata; absent values are left out."""
    shown: dict[str, Raw] = {}
    for name, value in values.items():
        if value is None:
            continue
        if name.endswith("_ms") and isinstance(value, int):
            shown[name.removesuffix("_ms")] = MetadataValue.timestamp(value / 1000)
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
