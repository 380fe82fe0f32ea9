"""What every model has said, alone or as a member of the ensemble, and where it failed."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import polars as pl
from sqlalchemy import and_, select

from tradewind.ledger.database import Database
from tradewind.ledger.schema import outcomes, predictions

SAID = {
    "label": pl.String(),
    "symbol": pl.String(),
    "bar_ts": pl.Int64(),
    "p_up": pl.Float64(),
    "y_up": pl.Float64(),
    "latency_ms": pl.Float64(),
}
FAILED = {"family": pl.String(), "symbol": pl.String(), "bar_ts": pl.Int64()}


class Voices(NamedTuple):
    """What was said and what failed.

    ``said`` has label (``tradewind.family.key/version``), symbol, bar_ts, p_up (calibrated, as
    served), y_up (0 or 1; null while unknown) and latency_ms (of the member's forward; null
    where it was not measured). ``failed`` has family, symbol and bar_ts of every answer of the
    ensemble that a member failed. Both are sorted by bar_ts.
    """

    said: pl.DataFrame
    failed: pl.DataFrame


def voices(db: Database, *, horizon: int, timeframe_ms: int, since_ms: int, now_ms: int) -> Voices:
    """Return what the champions said of the bars from ``since_ms`` on, each bar once a version.

    The votes of disabled members count too: they are what lets them come back. An outcome
    counts once its last bar has closed by ``now_ms``, whatever a replay that was set back knows.
    """
    known = and_(
        outcomes.c.symbol == predictions.c.symbol,
        outcomes.c.bar_ts == predictions.c.bar_ts,
        outcomes.c.horizon == horizon,
        outcomes.c.bar_ts <= now_ms - (horizon + 1) * timeframe_ms,
    )
    query = (
        select(
            predictions.c.symbol,
            predictions.c.bar_ts,
            predictions.c.model_version,
            predictions.c.model_type,
            predictions.c.p_up,
            predictions.c.body,
            outcomes.c.y_up,
        )
        .outerjoin(outcomes, known)
        .where(predictions.c.role == "champion")
        .where(predictions.c.bar_ts >= since_ms, predictions.c.bar_ts <= now_ms)
        .order_by(predictions.c.bar_ts, predictions.c.symbol, predictions.c.id)
    )
    said: list[tuple[Any, ...]] = []
    failed: list[tuple[Any, ...]] = []
    with db.read() as connection:
        for row in connection.execute(query):
            where = (row.symbol, row.bar_ts)
            came = None if row.y_up is None else float(row.y_up)
            if row.model_type != "ensemble":
                said.append((row.model_version, *where, row.p_up, came, None))
                continue
            body = json.loads(row.body)
            for vote in body["votes"]:
                heard = (vote["model_version"], *where, vote["p_up"], came)
                said.append((*heard, vote.get("latency_ms")))
            failed.extend((family, *where) for family in body.get("failed_members", ()))
    return Voices(_once(said, SAID, "label"), _once(failed, FAILED, "family"))


def _once(rows: list[tuple[Any, ...]], schema: dict[str, Any], name: str) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.unique([name, "symbol", "bar_ts"], keep="first", maintain_order=True)
