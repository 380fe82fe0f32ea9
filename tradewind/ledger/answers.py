"""What a registered model has said of the market, beside what came of it."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
from sqlalchemy import and_, or_, select

from tradewind.ledger.predictions import PredictionBook
from tradewind.ledger.schema import outcomes, predictions

REALISED = {
    "symbol": pl.String(),
    "bar_ts": pl.Int64(),
    "version": pl.Int64(),
    "p_up": pl.Float64(),
    "y_up": pl.Float64(),
}

SPOKEN = {
    "label": pl.String(),
    "alias": pl.String(),
    "symbol": pl.String(),
    "bar_ts": pl.Int64(),
    "p_up": pl.Float64(),
    "mu_low": pl.Float64(),
    "mu_high": pl.Float64(),
    "epistemic_p": pl.Float64(),
    "fwd_ret": pl.Float64(),
    "y_up": pl.Float64(),
    "members": pl.List(pl.String()),
}


def realised_answers(
    ledger: PredictionBook,
    name: str,
    *,
    horizon: int,
    timeframe_ms: int,
    since_ms: int,
    now_ms: int,
) -> pl.DataFrame:
    """Return each champion answer of a registered model whose outcome is known by now.

    The model may have answered alone or as a member of the ensemble; a bar counts once for
    each version that spoke of it.

    Parameters
    ----------
    name
        ``tradewind.{family}.{key}``; all its versions count.
    horizon
        Bars behind an outcome.
    since_ms
        The first bar's open.
    now_ms
        An outcome counts once its last bar has closed by then: ``bar_ts`` + (``horizon`` + 1)
        bars ≤ ``now_ms``. What the ledger knows beyond (a replay set back) is not looked at.

    Returns
    -------
    pl.DataFrame
        symbol, bar_ts, version, p_up (calibrated, as served) and y_up (0 or 1), sorted by
        (bar_ts, symbol) and then by the order of speaking.
    """
    known = and_(
        outcomes.c.symbol == predictions.c.symbol,
        outcomes.c.bar_ts == predictions.c.bar_ts,
        outcomes.c.horizon == horizon,
    )
    query = (
        select(
            predictions.c.symbol,
            predictions.c.bar_ts,
            predictions.c.model_version,
            predictions.c.p_up,
            predictions.c.body,
            outcomes.c.y_up,
        )
        .join(outcomes, known)
        .where(predictions.c.bar_ts >= since_ms)
        .where(predictions.c.bar_ts <= now_ms - (horizon + 1) * timeframe_ms)
        .where(predictions.c.role == "champion")
        .where(
            or_(
                predictions.c.model_version.startswith(f"{name}/", autoescape=True),
                predictions.c.body.contains(f'"{name}/', autoescape=True),
            )
        )
        .order_by(predictions.c.bar_ts, predictions.c.symbol, predictions.c.id)
    )
    with ledger.db.read() as connection:
        rows = [_said(row, name) for row in connection.execute(query)]
    frame = pl.DataFrame(rows, schema=REALISED, orient="row")
    return frame.unique(["symbol", "bar_ts", "version"], keep="first", maintain_order=True)


def spoken_answers(
    ledger: PredictionBook, *, horizon: int, timeframe_ms: int, since_ms: int, now_ms: int
) -> pl.DataFrame:
    """Return every answer, and every vote behind one, whose outcome is known by now.

    The arguments are those of `realised_answers`, and so is when an outcome counts.

    Returns
    -------
    pl.DataFrame
        ``label`` (``name/version``, or the ensemble's own), ``alias`` (as whom it answered, of
        a vote as whom its ensemble did), symbol, bar_ts, p_up, ``mu_low``, ``mu_high`` and
        ``epistemic_p`` (null for a vote, which does not log them), fwd_ret, y_up (0 or 1), and
        ``members``: the versions that an answer is made of. Sorted by (bar_ts, symbol); a bar
        counts once for each label and alias, the first answer.
    """
    known = and_(
        outcomes.c.symbol == predictions.c.symbol,
        outcomes.c.bar_ts == predictions.c.bar_ts,
        outcomes.c.horizon == horizon,
    )
    told = (predictions.c.bar_ts, predictions.c.symbol, predictions.c.model_version)
    query = (
        select(
            *told,
            predictions.c.served_by,
            predictions.c.p_up,
            predictions.c.epistemic_p,
            predictions.c.body,
            outcomes.c.fwd_ret,
            outcomes.c.y_up,
        )
        .join(outcomes, known)
        .where(predictions.c.bar_ts >= since_ms)
        .where(predictions.c.bar_ts <= now_ms - (horizon + 1) * timeframe_ms)
        .order_by(predictions.c.bar_ts, predictions.c.symbol, predictions.c.id)
    )
    with ledger.db.read() as connection:
        rows = [part for row in connection.execute(query) for part in _parts(row)]
    frame = pl.DataFrame(rows, schema=SPOKEN, orient="row")
    return frame.unique(["label", "alias", "symbol", "bar_ts"], keep="first", maintain_order=True)


def _parts(row: Any) -> list[tuple[Any, ...]]:
    """Return an answer and the votes behind it as rows of `SPOKEN`."""
    body = json.loads(row.body)
    votes = body["votes"]
    came, alias = (row.fwd_ret, float(row.y_up)), row.served_by
    members = [vote["model_version"] for vote in votes] or [row.model_version]
    interval = (body.get("mu_low"), body.get("mu_high"), row.epistemic_p)
    place = (alias, row.symbol, row.bar_ts)
    found = [(row.model_version, *place, row.p_up, *interval, *came, members)]
    for vote in votes:
        label = vote["model_version"]
        found.append((label, *place, vote["p_up"], None, None, None, *came, [label]))
    return found


def _said(row: Any, name: str) -> tuple[str, int, int, float, float]:
    """Return what the model itself said in an answer, be it a vote of the ensemble."""
    label, p_up = row.model_version, row.p_up
    if not label.startswith(f"{name}/"):
        votes = json.loads(row.body)["votes"]
        own = next(vote for vote in votes if vote["model_version"].startswith(f"{name}/"))
        label, p_up = own["model_version"], own["p_up"]
    return row.symbol, row.bar_ts, int(label.rpartition("/")[2]), p_up, float(row.y_up)
