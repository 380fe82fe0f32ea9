"""Tables as Polars frames, for reports, jobs and Parquet."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import polars as pl
from sqlalchemy import BigInteger, Boolean, Connection, Float, Integer, Select, Table
from sqlalchemy.types import TypeEngine

from tradewind.ledger.types import DecimalText

EXACT = pl.Decimal(38, 12)


def _dtype(kind: TypeEngine[Any], exact: bool) -> pl.DataType:
    if isinstance(kind, DecimalText):
        return EXACT if exact else pl.Float64()
    if isinstance(kind, Boolean):
        return pl.Boolean()
    if isinstance(kind, Integer | BigInteger):
        return pl.Int64()
    return pl.Float64() if isinstance(kind, Float) else pl.String()


def _plain(value: Any, exact: bool) -> Any:
    return float(value) if isinstance(value, Decimal) and not exact else value


def frame(connection: Connection, query: Select[Any], *, exact: bool = False) -> pl.DataFrame:
    """Return the rows of a query; money is Float64, or Decimal(38, 12) where ``exact``."""
    schema = {column.name: _dtype(column.type, exact) for column in query.selected_columns}
    rows = [tuple(_plain(value, exact) for value in row) for row in connection.execute(query)]
    return pl.DataFrame(rows, schema=schema, orient="row")


def window(
    query: Select[Any],
    table: Table,
    time: str,
    *,
    symbol: str | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> Select[Any]:
    """Restrict a query to a symbol and to ``since_ms`` <= time < ``until_ms``."""
    if symbol is not None:
        query = query.where(table.c.symbol == symbol)
    if since_ms is not None:
        query = query.where(table.c[time] >= since_ms)
    if until_ms is not None:
        query = query.where(table.c[time] < until_ms)
    return query
