"""SQL over the store: DuckDB in memory, reading the Parquet files as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tradewind.market.schema import BARS, FUNDING, FUNDING_KIND, GAPS, QUARANTINE, Columns
from tradewind.market.store import BarStore
from tradewind.settings import TIMEFRAME_MS

if TYPE_CHECKING:
    import duckdb

SQL_TYPES = {"Int64": "BIGINT", "Float64": "DOUBLE", "String": "VARCHAR", "Boolean": "BOOLEAN"}


def connect(store: BarStore) -> duckdb.DuckDBPyConnection:
    """Return a connection with the views bars, funding, quarantine and gaps.

    Every view starts with ``symbol`` and ``timeframe``. The files are listed anew at every
    query, except that a table without any file yet stays empty until the next `connect`.
    """
    import duckdb

    connection = duckdb.connect()
    path = "string_split(filename, '/')"
    by_month = (f"{path}[-2]", f"{path}[-3]")
    by_series = (f"{path}[-2]", f"replace({path}[-1], '.parquet', '')")
    bars = [f"{timeframe}/*/*.parquet" for timeframe in TIMEFRAME_MS]
    funding = (f"{path}[-2]", f"replace({path}[-3], 'funding_', '')")
    for name, patterns, key, columns in (
        ("bars", bars, by_month, BARS),
        ("funding", [f"{FUNDING_KIND}/*/*.parquet"], funding, FUNDING),
        ("quarantine", ["quarantine/*/*.parquet"], by_series, QUARANTINE),
        ("gaps", ["gaps/*/*.parquet"], by_series, GAPS),
    ):
        present = [pattern for pattern in patterns if any(store.folder.glob(pattern))]
        connection.execute(_view(store, name, present, key, columns))
    return connection


def _view(
    store: BarStore, name: str, patterns: list[str], key: tuple[str, str], columns: Columns
) -> str:
    if not patterns:
        typed = ", ".join(
            f"CAST(NULL AS {SQL_TYPES[str(dtype)]}) AS {column}"
            for column, dtype in columns.items()
        )
        head = "CAST(NULL AS VARCHAR) AS symbol, CAST(NULL AS VARCHAR) AS timeframe"
        return f"CREATE VIEW {name} AS SELECT {head}, {typed} WHERE false"
    files = ", ".join(_quoted(f"{store.folder.absolute().as_posix()}/{p}") for p in patterns)
    selected = f"{key[0]} AS symbol, {key[1]} AS timeframe, {', '.join(columns)}"
    # Names and paths are ours and quoted; values never come from a caller.
    return (
        f"CREATE VIEW {name} AS SELECT {selected} "  # noqa: S608
        f"FROM read_parquet([{files}], filename = true)"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
