"""One Parquet file: read it whole or say that it is corrupt, merge rows into it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_bytes
from tradewind.market.schema import Columns, empty

COMPRESSION_LEVEL = 3


@dataclass(frozen=True)
class WriteReport:
    """What a write changed: rows that are new, rows that differ, files rewritten."""

    added: int = 0
    replaced: int = 0
    partitions: int = 0

    def __add__(self, other: WriteReport) -> WriteReport:
        """Return the sum of two reports."""
        return WriteReport(
            self.added + other.added,
            self.replaced + other.replaced,
            self.partitions + other.partitions,
        )


def month_of(ts_ms: int) -> str:
    """Return the partition of a time, such as ``2025-01``."""
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m")


def read_parquet(path: Path, columns: Columns) -> pl.DataFrame:
    """Return the file's rows.

    Raises
    ------
    TradewindError
        ``corrupt_file`` when it is no Parquet of these columns.
    """
    content = path.read_bytes()
    try:
        frame = pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _corrupt(path, "is not readable Parquet") from error
    if dict(frame.schema) != dict(columns):
        raise _corrupt(path, f"has the columns {dict(frame.schema)}")
    return frame


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Write ``frame`` atomically; the same rows always give the same bytes.

    The bytes are made in memory first, so that a full disk shows as an error of the
    system's own write and the file that was there stays.
    """
    buffer = io.BytesIO()
    frame.rechunk().write_parquet(
        buffer, compression="zstd", compression_level=COMPRESSION_LEVEL, statistics=True
    )
    write_bytes(path, buffer.getvalue())


def merge_rows(path: Path, rows: pl.DataFrame, columns: Columns) -> WriteReport:
    """Bring rows with unique ``ts`` into the file; a row with a known ``ts`` replaces.

    A file whose rows would not change is left alone, to the byte.
    """
    old = read_parquet(path, columns) if path.exists() else empty(columns)
    merged = (
        pl.concat([old, rows])
        .unique("ts", keep="last", maintain_order=True)
        .sort("ts")
        .select(list(columns))
    )
    if merged.equals(old):
        return WriteReport()
    added = merged.height - old.height
    unchanged = merged.join(old, on=list(columns), how="semi", nulls_equal=True).height
    write_parquet(path, merged)
    return WriteReport(added, merged.height - added - unchanged, 1)


def _corrupt(path: Path, problem: str) -> TradewindError:
    return TradewindError(
        ErrorCode.CORRUPT_FILE,
        f"{path} {problem}",
        "Delete or restore that file, then run `tradewind ingest`: it fetches what is missing",
    )
