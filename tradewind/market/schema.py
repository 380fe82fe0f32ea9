"""Columns and types of the store's tables, and how a frame is brought to them."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from polars.datatypes import DataType, DataTypeClass

from tradewind.errors import ErrorCode, TradewindError

Columns = Mapping[str, DataType | DataTypeClass]

VALUES = ("open", "high", "low", "close", "volume")
BARS: Columns = {"ts": pl.Int64, **dict.fromkeys(VALUES, pl.Float64)}
QUARANTINE: Columns = {**BARS, "reason": pl.String}
GAPS: Columns = {
    "from_ts": pl.Int64,
    "to_ts": pl.Int64,
    "bars": pl.Int64,
    "confirmed": pl.Boolean,
}
COMPANIONS: dict[str, Columns] = {
    "funding": {"ts": pl.Int64, "funding_rate": pl.Float64},
    "open_interest": {"ts": pl.Int64, "open_interest": pl.Float64},
    "long_short_ratio": {"ts": pl.Int64, "long_short_ratio": pl.Float64},
    "mark": {"ts": pl.Int64, **dict.fromkeys(VALUES[:4], pl.Float64)},
    "regime": {
        "ts": pl.Int64,
        "before": pl.String,
        "after": pl.String,
        "confidence": pl.Float64,
    },
}
FUNDING = COMPANIONS["funding"]
OPEN_INTEREST = COMPANIONS["open_interest"]
LONG_SHORT_RATIO = COMPANIONS["long_short_ratio"]
TRANSITIONS = COMPANIONS["regime"]
FUNDING_KIND = "funding_8h"
OPEN_INTEREST_KIND = "open_interest"
LONG_SHORT_RATIO_KIND = "long_short_ratio"


def empty(columns: Columns) -> pl.DataFrame:
    """Return a frame of no rows with exactly these columns."""
    return pl.DataFrame(schema=dict(columns))


def series_columns(kind: str) -> Columns:
    """Return the columns of a companion series: ``open_interest``, or one as ``funding_8h``.

    Raises
    ------
    TradewindError
        ``bad_input`` for a kind that the store does not keep.
    """
    base = kind if kind in COMPANIONS else kind.rpartition("_")[0]
    if base not in COMPANIONS:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"series kind = {kind!r} is unknown",
            f"Use one of {', '.join(COMPANIONS)}, with or without a timeframe as in funding_8h",
        )
    return COMPANIONS[base]


def conform(frame: pl.DataFrame, columns: Columns, what: str) -> pl.DataFrame:
    """Return ``frame`` with exactly these columns and types; a value that cannot be is null.

    Raises
    ------
    TradewindError
        ``bad_input`` naming the columns that are missing.
    """
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"{what} lacks the column(s) {', '.join(missing)}; it has {', '.join(frame.columns)}",
            f"Give it the columns {', '.join(columns)}",
        )
    return frame.select(pl.col(name).cast(dtype, strict=False) for name, dtype in columns.items())
