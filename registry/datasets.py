"""Which rows a run saw, as MLflow's dataset inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from registry.names import span_text
from registry.tracking import RunHandle

SOURCE_TYPE = "tradewind-store"
DIGEST_START = 20
"""Characters of the data's fingerprint in a digest; MLflow takes 36 in all."""
LABELS = (("y_up", "double"), ("fwd_ret", "double"))


@dataclass(frozen=True)
class DatasetSlice:
    """Rows that a run used in one role (``context``: train, test, walk_forward …).

    ``store`` is a relocatable name such as ``binance_usdm_perp/15m``; ``fingerprint`` covers
    every stored bar that the rows were made of. The span is open times in ms, both included.
    """

    context: str
    key: str
    store: str
    source: str
    fingerprint: str
    feature_version: str
    symbols: tuple[str, ...]
    columns: tuple[str, ...]
    rows: int
    start_ms: int
    end_ms: int

    @property
    def name(self) -> str:
        """Return the name shown in MLflow, of this role alone: a run has each name once."""
        return f"{self.store.replace('/', '-')}-{self.key}-{self.context}"

    @property
    def digest(self) -> str:
        """Return the start of the fingerprint, and a hash of which rows of it these are."""
        rows = f"{self.feature_version}|{self.start_ms}|{self.end_ms}|{self.rows}"
        own = hashlib.sha256(rows.encode()).hexdigest()[:8]
        return f"{self.fingerprint[:DIGEST_START]}.{own}"


def log_datasets(run: RunHandle, slices: Sequence[DatasetSlice]) -> None:
    """Log what a run read; the same slices again change nothing."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    inputs = [
        DatasetInput(
            Dataset(
                name=item.name,
                digest=item.digest,
                source_type=SOURCE_TYPE,
                source=_source(item),
                schema=_schema(item),
                profile=_profile(item),
            ),
            [InputTag(MLFLOW_DATASET_CONTEXT, item.context)],
        )
        for item in slices
    ]
    with run.tracking.translated():
        run.tracking.client.log_inputs(run.run_id, inputs)


def _source(item: DatasetSlice) -> str:
    return json.dumps(
        {
            "uri": f"store://{item.store}",
            "fingerprint": item.fingerprint,
            "bars_from": item.source,
        }
    )


def _schema(item: DatasetSlice) -> str:
    """Return the columns in the form that MLflow's page reads."""
    columns = [("ts", "long"), ("symbol", "string")]
    columns += [(name, "double") for name in item.columns]
    return json.dumps(
        {
            "mlflow_colspec": [
                {"name": name, "type": kind, "required": True} for name, kind in [*columns, *LABELS]
            ]
        }
    )


def _profile(item: DatasetSlice) -> str:
    return json.dumps(
        {
            "num_rows": item.rows,
            "symbols": " ".join(item.symbols),
            "span": span_text(item.start_ms, item.end_ms),
            "features": item.feature_version,
        }
    )
