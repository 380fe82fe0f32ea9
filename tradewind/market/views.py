"""SQL over the store: DuckDB in memory, reading the Parquet files as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tradewind.market._files import LocalFiles
from tradewind.market._object_files import ObjectFiles
from tradewind.market.schema import (
    BARS,
    FUNDING,
    FUNDING_KIND,
    GAPS,
    LONG_SHORT_RATIO,
    LONG_SHORT_RATIO_KIND,
    OPEN_INTEREST,
    OPEN_INTEREST_KIND,
    QUARANTINE,
    Columns,
)
from tradewind.market.store import BarStore
from tradewind.settings import TIMEFRAME_MS

if TYPE_CHECKING:
    import duckdb

SQL_TYPES = {"Int64": "BIGINT", "Float64": "DOUBLE", "String": "VARCHAR", "Boolean": "BOOLEAN"}


def connect(store: BarStore) -> duckdb.DuckDBPyConnection:
    """Return a connection with a view of each table.

    They are bars, funding, open_interest, long_short_ratio, quarantine and gaps. Every view
    starts with ``symbol`` and ``timeframe`` (null where a series has none). The files are
    listed anew at every query, except that a table without any file yet stays empty until
    the next `connect`.
    """
    import duckdb

    connection = duckdb.connect()
    base = _base(store, connection)
    path = "string_split(filename, '/')"
    by_month = (f"{path}[-2]", f"{path}[-3]")
    by_series = (f"{path}[-2]", f"replace({path}[-1], '.parquet', '')")
    funding = (f"{path}[-2]", f"replace({path}[-3], 'funding_', '')")
    without = (f"{path}[-2]", "CAST(NULL AS VARCHAR)")
    for name, folders, key, columns in (
        ("bars", list(TIMEFRAME_MS), by_month, BARS),
        ("funding", [FUNDING_KIND], funding, FUNDING),
        ("open_interest", [OPEN_INTEREST_KIND], without, OPEN_INTEREST),
        ("long_short_ratio", [LONG_SHORT_RATIO_KIND], without, LONG_SHORT_RATIO),
        ("quarantine", ["quarantine"], by_series, QUARANTINE),
        ("gaps", ["gaps"], by_series, GAPS),
    ):
        present = [folder for folder in folders if store.symbols_of(folder)]
        patterns = [f"{base}/{folder}/*/*.parquet" for folder in present]
        connection.execute(_view(name, patterns, key, columns))
    return connection


def _base(store: BarStore, connection: duckdb.DuckDBPyConnection) -> str:
    """Return where DuckDB finds the set; an object store is read through fsspec."""
    files = store.files
    if isinstance(files, LocalFiles):
        return (files.root / store.set_id).absolute().as_posix()
    if isinstance(files, ObjectFiles):
        connection.register_filesystem(files.fs)
        return f"{files.url}/{store.set_id}"
    raise TypeError(f"no view of {type(files).__name__}")


def _view(name: str, patterns: list[str], key: tuple[str, str], columns: Columns) -> str:
    if not patterns:
        typed = ", ".join(
            f"CAST(NULL AS {SQL_TYPES[str(dtype)]}) AS {column}"
            for column, dtype in columns.items()
        )
        head = "CAST(NULL AS VARCHAR) AS symbol, CAST(NULL AS VARCHAR) AS timeframe"
        return f"CREATE VIEW {name} AS SELECT {head}, {typed} WHERE false"
    files = ", ".join(_quoted(pattern) for pattern in patterns)
    selected = f"{key[0]} AS symbol, {key[1]} AS timeframe, {', '.join(columns)}"
    # Names and paths are ours and quoted; values never come from a caller.
    return (
        f"CREATE VIEW {name} AS SELECT {selected} "  # noqa: S608
        f"FROM read_parquet([{files}], filename = true)"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
