"""What serving said, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import polars as pl
from sqlalchemy import select

from tradewind.contracts import Outcome
from tradewind.ledger.database import Database
from tradewind.ledger.frames import frame, window
from tradewind.ledger.records import PredictionRecord, Role
from tradewind.ledger.schema import outcomes, predictions

COPIED = (
    "symbol",
    "model_type",
    "decision_id",
    "model_version",
    "served_by",
    "bar_ts",
    "p_up",
    "mu",
    "uncertainty",
    "epistemic",
    "aleatoric",
    "epistemic_p",
    "confidence",
    "conviction",
    "staleness_s",
)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _row(record: PredictionRecord, now: int) -> dict[str, Any]:
    prediction = record.prediction
    return {
        **{name: getattr(prediction, name) for name in COPIED},
        "request_id": record.request_id,
        "role": record.role,
        "signal": prediction.signal.value,
        "latency_ms": record.latency_ms,
        "created_ms": now,
        "body": prediction.model_dump_json(),
    }


class PredictionBook:
    """Predictions and outcomes."""

    db: Database

    def record_predictions(self, records: Sequence[PredictionRecord]) -> int:
        """Log predictions in one transaction; return how many were new."""
        if not records:
            return 0
        now = _wall_ms()
        with self.db.write() as connection:
            rows = [_row(record, now) for record in records]
            return self.db.insert_ignore(connection, predictions, rows)

    def predictions(
        self,
        *,
        symbol: str | None = None,
        role: Role | None = None,
        model_type: str | None = None,
        decision_id: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> pl.DataFrame:
        """Return logged predictions (without body), oldest bar first, by bar_ts window."""
        columns = [column for column in predictions.c if column.name not in ("id", "body")]
        query = select(*columns).order_by(predictions.c.bar_ts, predictions.c.id)
        query = window(
            query, predictions, "bar_ts", symbol=symbol, since_ms=since_ms, until_ms=until_ms
        )
        for name, value in (
            ("role", role),
            ("model_type", model_type),
            ("decision_id", decision_id),
        ):
            if value is not None:
                query = query.where(predictions.c[name] == value)
        with self.db.read() as connection:
            return frame(connection, query)

    def record_outcomes(self, found: Sequence[Outcome]) -> int:
        """Store realised returns; one already known stays. Return how many were new."""
        rows = [outcome.model_dump() for outcome in found]
        with self.db.write() as connection:
            return self.db.insert_ignore(connection, outcomes, rows)

    def outcomes(
        self,
        *,
        symbol: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> pl.DataFrame:
        """Return realised returns, oldest bar first."""
        query = select(outcomes).order_by(outcomes.c.bar_ts, outcomes.c.symbol)
        query = window(
            query, outcomes, "bar_ts", symbol=symbol, since_ms=since_ms, until_ms=until_ms
        )
        with self.db.read() as connection:
            return frame(connection, query)
