"""The Parquet store of one set: partitioned by series and month, atomic, one writer a series.

Layout below ``root``::

    {set_id}/{timeframe}/{symbol}/{YYYY-MM}.parquet     bars
    {set_id}/funding_8h/{symbol}/{YYYY-MM}.parquet      companion series
    {set_id}/quarantine/{symbol}/{timeframe}.parquet    bars that were refused, and why
    {set_id}/gaps/{symbol}/{timeframe}.parquet          bars that the source does not have
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl
from filelock import FileLock, Timeout

from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import disk_errors
from tradewind.market._partition import (
    WriteReport,
    merge_rows,
    month_of,
    read_parquet,
    write_parquet,
)
from tradewind.market.schema import (
    BARS,
    FUNDING_KIND,
    GAPS,
    QUARANTINE,
    Columns,
    conform,
    empty,
    series_columns,
)
from tradewind.settings import TIMEFRAME_MS

__all__ = ["BarStore", "WriteReport"]
LOCK_TIMEOUT_S = 30.0


class BarStore:
    """Bars, companion series, quarantine and gaps of one set.

    Many processes may read while others write; writers of one series wait for each other.

    Parameters
    ----------
    root
        Folder of all sets.
    set_id
        ``{exchange}_{market}``, such as ``binance_usdm_perp``.
    lock_timeout_s
        How long a writer waits for another one of the same series.
    """

    def __init__(self, root: Path, set_id: str, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
        self.root = Path(root)
        self.set_id = _name(set_id, "set_id")
        self._lock_timeout_s = lock_timeout_s
        self._digests: dict[Path, tuple[tuple[int, ...], str]] = {}

    @property
    def folder(self) -> Path:
        """Folder of this set."""
        return self.root / self.set_id

    # -- bars ---------------------------------------------------------------------------

    def write_bars(self, symbol: str, timeframe: str, frame: pl.DataFrame) -> WriteReport:
        """Store bars; one with a known ``ts`` replaces the stored one.

        Bars may come unsorted and twice (the last given wins). A partition whose rows do
        not change is not rewritten.

        Raises
        ------
        TradewindError
            ``bad_input`` (columns, a missing ``ts``, one off the grid), ``disk_full``,
            ``corrupt_file``, ``already_running`` when another writer holds the series.
        """
        rows = _rows(frame, BARS, f"bars of {symbol} {timeframe}")
        off_grid = rows.filter(pl.col("ts") % _step(timeframe) != 0)["ts"]
        if not off_grid.is_empty():
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"bar ts = {off_grid[0]} of {symbol} is not on the {timeframe} grid",
                "Pass bars through tradewind.market.quality.split_bad before storing them",
            )
        return self._write(self._series(timeframe, symbol), rows, BARS)

    def read_bars(
        self,
        symbol: str,
        timeframe: str,
        *,
        until_ms: int,
        start_ms: int | None = None,
        last: int | None = None,
    ) -> pl.DataFrame:
        """Return bars that have CLOSED at ``until_ms``, sorted by ``ts``.

        Parameters
        ----------
        until_ms
            Market time; a bar closing later is never returned (no look-ahead).
        start_ms
            Earliest open time.
        last
            At most this many, the newest.

        Returns
        -------
        DataFrame
            ts (Int64), open, high, low, close, volume (Float64); may be empty.

        Raises
        ------
        TradewindError
            ``no_bars`` when the symbol was never stored, ``corrupt_file``.
        """
        until_open = until_ms - _step(timeframe)
        paths = self._paths_of_bars(symbol, timeframe)
        return _read_range(paths, BARS, start_ms, until_open, last)

    def last_ts(self, symbol: str, timeframe: str) -> int | None:
        """Return the open time of the newest stored bar."""
        return self._end(symbol, timeframe, newest=True)

    def first_ts(self, symbol: str, timeframe: str) -> int | None:
        """Return the open time of the oldest stored bar."""
        return self._end(symbol, timeframe, newest=False)

    def timestamps(self, symbol: str, timeframe: str) -> pl.Series:
        """Return every stored open time, sorted; empty when there is none."""
        paths = _partitions(self._series(timeframe, symbol))
        return _read_range(paths, BARS, None, None, None)["ts"]

    def symbols(self, timeframe: str) -> tuple[str, ...]:
        """Return the symbols that have bars of this timeframe, sorted."""
        _step(timeframe)
        folder = self.folder / timeframe
        if not folder.is_dir():
            return ()
        return tuple(sorted(path.name for path in folder.iterdir() if _partitions(path)))

    def change_token(self, symbol: str, timeframe: str) -> int:
        """Return a number that changes whenever the series does; costs a few ``stat`` calls."""
        digest = hashlib.blake2b(digest_size=7)
        for path in _partitions(self._series(timeframe, symbol)):
            digest.update(f"{path.name}{_state(path)}".encode())
        return int.from_bytes(digest.digest())

    def fingerprint(self, symbols: Sequence[str], timeframe: str, *, until_ms: int) -> str:
        """Return the SHA-256 of exactly what is known at ``until_ms``: bars, then funding.

        It depends on values only, never on how a file encodes them.

        Raises
        ------
        TradewindError
            ``no_bars``, ``corrupt_file``.
        """
        until_open = until_ms - _step(timeframe)
        combined = hashlib.sha256(f"{self.set_id}/{timeframe}\n".encode())
        for symbol in sorted(set(symbols)):
            for path in self._paths_of_bars(symbol, timeframe):
                if path.stem > month_of(until_open):
                    break
                digest = self._digest(path, until_open)
                if digest:
                    combined.update(f"{symbol}/{path.stem}:{digest}\n".encode())
            funding = self.read_series(FUNDING_KIND, symbol, until_ms=until_ms)
            if funding.height:
                combined.update(f"{symbol}/{FUNDING_KIND}:{_content_hash(funding)}\n".encode())
        return combined.hexdigest()

    # -- companions ---------------------------------------------------------------------

    def write_series(self, kind: str, symbol: str, frame: pl.DataFrame) -> WriteReport:
        """Store rows of a companion series such as ``funding_8h``; as `write_bars`."""
        columns = series_columns(kind)
        rows = _rows(frame, columns, f"{kind} of {symbol}")
        return self._write(self._series(kind, symbol), rows, columns)

    def read_series(
        self, kind: str, symbol: str, *, until_ms: int, start_ms: int | None = None
    ) -> pl.DataFrame:
        """Return rows known at ``until_ms`` (``ts <= until_ms``), sorted; none is no error."""
        paths = _partitions(self._series(kind, symbol))
        return _read_range(paths, series_columns(kind), start_ms, until_ms, None)

    # -- quarantine and gaps ------------------------------------------------------------

    def add_quarantine(self, symbol: str, timeframe: str, bad: pl.DataFrame) -> int:
        """Keep refused bars (with ``reason``); return how many were not known yet."""
        rows = conform(bad, QUARANTINE, f"quarantine of {symbol}")
        path = self._series("quarantine", symbol) / f"{timeframe}.parquet"
        if rows.is_empty():
            return 0
        with self._writer(path.parent):
            old = read_parquet(path, QUARANTINE) if path.exists() else empty(QUARANTINE)
            merged = pl.concat([old, rows]).unique().sort(list(QUARANTINE))
            new = merged.height - old.height
            if new:
                write_parquet(path, merged)
        return new

    def replace_gaps(self, symbol: str, timeframe: str, gaps: pl.DataFrame) -> None:
        """Keep ``gaps`` as the whole truth about the holes of one series."""
        rows = conform(gaps, GAPS, f"gaps of {symbol}").sort("from_ts")
        path = self._series("gaps", symbol) / f"{timeframe}.parquet"
        if rows.is_empty() and not path.exists():
            return
        with self._writer(path.parent):
            if not path.exists() or not read_parquet(path, GAPS).equals(rows):
                write_parquet(path, rows)

    def quarantined(self, symbol: str | None = None) -> pl.DataFrame:
        """Return refused bars: symbol, timeframe, the bar as it came, reason."""
        return self._table("quarantine", QUARANTINE, symbol)

    def gaps(self, symbol: str | None = None) -> pl.DataFrame:
        """Return holes: symbol, timeframe, from_ts, to_ts, bars, confirmed.

        ``confirmed`` says that the source, asked for exactly these bars, answered with none.
        """
        return self._table("gaps", GAPS, symbol)

    # -- inside -------------------------------------------------------------------------

    def _series(self, kind: str, symbol: str) -> Path:
        return self.folder / kind / _name(symbol, "symbol")

    def _paths_of_bars(self, symbol: str, timeframe: str) -> list[Path]:
        paths = _partitions(self._series(timeframe, symbol))
        if not paths:
            raise TradewindError(
                ErrorCode.NO_BARS,
                f"no {timeframe} bars of symbol {symbol} in set {self.set_id} at {self.root}",
                "Run `tradewind ingest` with that symbol, or ask for one that is stored",
            )
        return paths

    def _end(self, symbol: str, timeframe: str, *, newest: bool) -> int | None:
        paths = _partitions(self._series(timeframe, symbol))
        for path in reversed(paths) if newest else paths:
            ts = read_parquet(path, BARS)["ts"]
            if not ts.is_empty():
                return int(ts[-1 if newest else 0])
        return None

    def _write(self, folder: Path, rows: pl.DataFrame, columns: Columns) -> WriteReport:
        report = WriteReport()
        if rows.is_empty():
            return report
        month = pl.from_epoch("ts", time_unit="ms").dt.strftime("%Y-%m").alias("month")
        parts = rows.with_columns(month).partition_by("month", maintain_order=True)
        with self._writer(folder):
            for part in parts:
                path = folder / f"{part['month'][0]}.parquet"
                report += merge_rows(path, part.drop("month"), columns)
        return report

    @contextlib.contextmanager
    def _writer(self, folder: Path) -> Iterator[None]:
        """Hold the series for one writer; the kernel frees the lock if the process dies."""
        lock = FileLock(folder / ".lock", timeout=self._lock_timeout_s)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout as error:
                raise TradewindError(
                    ErrorCode.ALREADY_RUNNING,
                    f"another process has been writing {folder} for {self._lock_timeout_s:g} s",
                    "Wait for it to end, or stop it, then run the same command again",
                ) from error
        try:
            for abandoned in folder.glob(".*.tmp"):  # of a writer that was killed
                abandoned.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def _digest(self, path: Path, until_open: int) -> str:
        """Hash the rows up to ``until_open``; whole partitions are remembered."""
        state = _state(path)
        known = self._digests.get(path)
        whole = path.stem < month_of(until_open)
        if whole and known is not None and known[0] == state:
            return known[1]
        rows = read_parquet(path, BARS).filter(pl.col("ts") <= until_open)
        digest = _content_hash(rows) if rows.height else ""
        if whole:
            self._digests[path] = (state, digest)
        return digest

    def _table(self, kind: str, columns: Columns, symbol: str | None) -> pl.DataFrame:
        pattern = f"{_name(symbol, 'symbol') if symbol else '*'}/*.parquet"
        frames = [
            read_parquet(path, columns).select(
                pl.lit(path.parent.name).alias("symbol"),
                pl.lit(path.stem).alias("timeframe"),
                pl.all(),
            )
            for path in sorted((self.folder / kind).glob(pattern))
        ]
        head: Columns = {"symbol": pl.String, "timeframe": pl.String, **columns}
        return pl.concat([empty(head), *frames])


def _name(value: str, field: str) -> str:
    """Refuse what could leave the store's folder: names become folders."""
    if value.replace("_", "").isalnum() and value.isascii():
        return value
    code = ErrorCode.UNKNOWN_SYMBOL if field == "symbol" else ErrorCode.BAD_INPUT
    raise TradewindError(
        code,
        f"{field} = {value!r} is not a name of letters and digits",
        "Write a symbol as the exchange's id, such as BTCUSDT",
    )


def _step(timeframe: str) -> int:
    if timeframe not in TIMEFRAME_MS:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"timeframe = {timeframe!r} is unknown",
            f"Use one of {', '.join(TIMEFRAME_MS)}",
        )
    return TIMEFRAME_MS[timeframe]


def _rows(frame: pl.DataFrame, columns: Columns, what: str) -> pl.DataFrame:
    rows = conform(frame, columns, what)
    if rows["ts"].null_count():
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"{what}: {rows['ts'].null_count()} row(s) have no ts",
            "Pass bars through tradewind.market.quality.split_bad before storing them",
        )
    return rows.unique("ts", keep="last", maintain_order=True).sort("ts")


def _partitions(folder: Path) -> list[Path]:
    """Return the month files, oldest first; temporary files do not end in .parquet."""
    return sorted(folder.glob("*.parquet"))


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is replaced: a rename always brings another inode."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read_range(
    paths: Sequence[Path],
    columns: Columns,
    start_ts: int | None,
    until_ts: int | None,
    last: int | None,
) -> pl.DataFrame:
    """Read newest partitions first, and no more of them than the range or ``last`` needs."""
    keep: list[Callable[[str], bool]] = []
    wanted = pl.lit(value=True)
    if start_ts is not None:
        keep.append(lambda month: month >= month_of(start_ts))
        wanted &= pl.col("ts") >= start_ts
    if until_ts is not None:
        keep.append(lambda month: month <= month_of(until_ts))
        wanted &= pl.col("ts") <= until_ts
    frames: list[pl.DataFrame] = []
    missing = last
    for path in reversed([p for p in paths if all(test(p.stem) for test in keep)]):
        if missing is not None and missing <= 0:
            break
        rows = read_parquet(path, columns).filter(wanted)
        frames.append(rows)
        missing = None if missing is None else missing - rows.height
    found = pl.concat([empty(columns), *reversed(frames)], rechunk=True)
    return found if last is None else found.tail(last)


def _content_hash(rows: pl.DataFrame) -> str:
    digest = hashlib.sha256()
    for column in rows.get_columns():
        values = column.to_numpy()
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
