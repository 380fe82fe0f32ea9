"""An IO manager for the small JSON values that pass between steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dagster import ConfigurableIOManager, InputContext, OutputContext
from pydantic import Field

from tradewind.files import write_json
from tradewind.settings import load_settings


class JsonIOManager(ConfigurableIOManager):
    """Stores the JSON values that steps hand on (names, versions, folders): no pickle.

    Large data stays in the store and in work folders; what passes here is small.
    """

    home: str | None = Field(default=None, description="State folder; empty: the setting `home`")

    def _root(self) -> Path:
        return load_settings(**({"home": Path(self.home)} if self.home else {})).home

    def _path(self, context: OutputContext | InputContext) -> Path:
        base = self._root() / "dagster-values"
        if context.has_asset_key:
            parts = list(context.asset_key.path)
            if context.has_asset_partitions:
                parts.append(context.asset_partition_key)
            return base / "assets" / f"{'/'.join(parts)}.json"
        return base / "runs" / f"{'/'.join(context.get_identifier())}.json"

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        """Write one value atomically."""
        if obj is not None:
            write_json(self._path(context), obj)

    def load_input(self, context: InputContext) -> Any:
        """Read what the upstream step wrote."""
        if context.has_asset_key or context.upstream_output is None:
            path = self._path(context)
        else:
            path = self._path(context.upstream_output)
        return json.loads(path.read_text(encoding="utf-8"))
