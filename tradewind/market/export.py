"""A symbol's rows in one file, for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tradewind.clock import Clock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import atomic_path
from tradewind.market.active import store_for
from tradewind.market.ingest import SERIES_KINDS
from tradewind.settings import Settings

FORMATS = (".parquet", ".csv")


@dataclass(frozen=True)
class Export:
    """What was written; times in ms, None without rows."""

    file: str
    rows: int
    first_ts: int | None
    last_ts: int | None


def export_rows(
    settings: Settings,
    clock: Clock,
    file: Path,
    *,
    symbol: str,
    kind: str = "bars",
    start_ms: int | None = None,
    until_ms: int | None = None,
) -> Export:
    """Write bars or a companion series of a symbol to ``file``, atomically.

    Parameters
    ----------
    file
        Its ending decides: ``.parquet`` (zstd) or ``.csv``.
    until_ms
        Rows known before this time; never later than the clock.

    Raises
    ------
    TradewindError
        ``bad_input`` for another ending or kind, ``no_bars``, ``corrupt_file``, ``disk_full``.
    """
    if file.suffix not in FORMATS:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"file = {str(file)!r} does not end in {' or '.join(FORMATS)}",
            "Name it such as BTCUSDT.parquet",
        )
    store, now_ms = store_for(settings), clock.now_ms()
    until = now_ms if until_ms is None else min(until_ms, now_ms)
    stored_kinds = {str(name): folder for name, folder in SERIES_KINDS.items()}
    if kind == "bars":
        timeframe = settings.market.timeframe
        rows = store.read_bars(symbol, timeframe, until_ms=until, start_ms=start_ms)
    elif kind in stored_kinds:
        rows = store.read_series(stored_kinds[kind], symbol, until_ms=until, start_ms=start_ms)
    else:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"kind = {kind!r} is not stored",
            f"Use one of bars, {', '.join(SERIES_KINDS)}",
        )
    with atomic_path(file) as temporary:
        if file.suffix == ".csv":
            rows.write_csv(temporary)
        else:
            rows.write_parquet(temporary, compression="zstd")
    ends = (int(rows["ts"][0]), int(rows["ts"][-1])) if rows.height else (None, None)
    return Export(str(file), rows.height, *ends)
