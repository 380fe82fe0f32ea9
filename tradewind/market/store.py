"""The Parquet store of one set: partitioned by series and month, atomic, one writer a series.

Layout below ``root``::

    {set_id}/{timeframe}/{symbol}/{YYYY-MM}.parquet     bars
    {set_id}/funding_8h/{symbol}/{YYYY-MM}.parquet      companion series, a folder a kind
    {set_id}/quarantine/{symbol}/{timeframe}.parquet    bars that were refused, and why
    {set_id}/gaps/{symbol}/{timeframe}.parquet          bars that the source does not have
    {set_id}/asked/{symbol}/{kind}.parquet              from when on the source has been asked

``root`` is a folder, or an object store by its URL (`tradewind.market._files`).
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from tradewind.errors import ErrorCode, TradewindError
from tradewind.market._files import PARQUET, State, StoreFiles, open_files
from tradewind.market._partition import (
    PartitionMemory,
    WriteReport,
    encode,
    merge_rows,
    month_of,
    read_parquet,
    stem_of,
    stored,
    write_parquet,
)
from tradewind.market.schema import (
    BARS,
    FUNDING_KIND,
    GAPS,
    LONG_SHORT_RATIO_KIND,
    OPEN_INTEREST_KIND,
    QUARANTINE,
    Columns,
    conform,
    empty,
    series_columns,
)
from tradewind.settings import TIMEFRAME_MS

__all__ = ["BarStore", "COMPANION_KINDS", "WriteReport"]
LOCK_TIMEOUT_S = 30.0
COMPANION_KINDS = (FUNDING_KIND, OPEN_INTEREST_KIND, LONG_SHORT_RATIO_KIND)
"""Companion series that ingestion fills and fingerprints cover."""
ASKED: Columns = {"from_ts": pl.Int64}
SETTLED_NS = 2_000_000_000
"""A folder's time this old cannot hide a later change: the coarsest file times are 2 s."""


class BarStore:
    """Bars, companion series, quarantine and gaps of one set.

    Many processes may read while others write; writers of one series wait for each other.

    Parameters
    ----------
    root
        Folder of all sets, or the URL of an object store such as ``s3://bucket/prefix``.
    set_id
        ``{exchange}_{market}``, such as ``binance_usdm_perp``.
    lock_timeout_s
        How long a writer waits for another one of the same series.
    remembered
        Partitions kept in memory, for a process that reads the same ones again and again.
    """

    def __init__(
        self,
        root: Path | str,
        set_id: str,
        *,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        remembered: int = 0,
    ) -> None:
        self.files: StoreFiles = open_files(root, lock_timeout_s)
        self.set_id = _name(set_id, "set_id")
        self._digests: dict[str, tuple[State, str]] = {}
        self._tokens: dict[str, tuple[int, int]] = {}
        self._memory = PartitionMemory(self.files, remembered) if remembered else None

    @property
    def root(self) -> Path:
        """Folder of all sets, for a store in a folder."""
        return Path(self.files.place(""))

    @property
    def folder(self) -> Path:
        """Folder of this set, for a store in a folder."""
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
        keys = self._keys_of_bars(symbol, timeframe)
        return self._read_range(keys, BARS, start_ms, until_open, last)

    def last_ts(self, symbol: str, timeframe: str) -> int | None:
        """Return the open time of the newest stored bar."""
        return self._end(symbol, timeframe, newest=True)

    def first_ts(self, symbol: str, timeframe: str) -> int | None:
        """Return the open time of the oldest stored bar."""
        return self._end(symbol, timeframe, newest=False)

    def timestamps(self, symbol: str, timeframe: str) -> pl.Series:
        """Return every stored open time, sorted; empty when there is none."""
        keys = self.files.partitions(self._series(timeframe, symbol))
        return self._read_range(keys, BARS, None, None, None)["ts"]

    def symbols(self, timeframe: str) -> tuple[str, ...]:
        """Return the symbols that have bars of this timeframe, sorted."""
        _step(timeframe)
        return self.symbols_of(timeframe)

    def symbols_of(self, kind: str) -> tuple[str, ...]:
        """Return the symbols that have rows of a kind: a timeframe or a companion series."""
        folder = f"{self.set_id}/{_name(kind, 'kind')}"
        return tuple(
            name for name in self.files.folders(folder) if self.files.partitions(f"{folder}/{name}")
        )

    def changed_ns(self, symbol: str, timeframe: str) -> int | None:
        """Return when the series last changed, in ns; None: ask `change_token`."""
        return self.files.folder_state(self._series(timeframe, symbol))

    def change_token(self, symbol: str, timeframe: str) -> int:
        """Return a number that changes whenever the series does (a timeframe or a kind).

        It costs one ``stat`` while nothing changes, and one for each partition after that.
        """
        folder = self._series(timeframe, symbol)
        changed = self.files.folder_state(folder)
        known = self._tokens.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        digest = hashlib.blake2b(digest_size=7)
        for key in self.files.partitions(folder):
            with contextlib.suppress(FileNotFoundError):  # retention may have removed it since
                digest.update(f"{stem_of(key)}{PARQUET}{self.files.state(key)}".encode())
        token = int.from_bytes(digest.digest())
        if changed is not None and time.time_ns() - changed > SETTLED_NS:
            self._tokens[folder] = changed, token
        return token

    def fingerprint(self, symbols: Sequence[str], timeframe: str, *, until_ms: int) -> str:
        """Return the SHA-256 of exactly what is known at ``until_ms``: bars, then companions.

        It depends on values only, never on how a file encodes them.

        Raises
        ------
        TradewindError
            ``no_bars``, ``corrupt_file``.
        """
        until_open = until_ms - _step(timeframe)
        combined = hashlib.sha256(f"{self.set_id}/{timeframe}\n".encode())
        for symbol in sorted(set(symbols)):
            for key in self._keys_of_bars(symbol, timeframe):
                if stem_of(key) > month_of(until_open):
                    break
                digest = self._digest(key, until_open)
                if digest:
                    combined.update(f"{symbol}/{stem_of(key)}:{digest}\n".encode())
            for kind in COMPANION_KINDS:
                rows = self.read_series(kind, symbol, until_ms=until_ms)
                if rows.height:
                    combined.update(f"{symbol}/{kind}:{_content_hash(rows)}\n".encode())
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
        columns = series_columns(kind)
        keys = self.files.partitions(self._series(kind, symbol))
        return self._read_range(keys, columns, start_ms, until_ms, None)

    # -- what upkeep needs --------------------------------------------------------------

    def months(self, kind: str, symbol: str) -> tuple[str, ...]:
        """Return the months that a series has partitions of, oldest first."""
        return tuple(stem_of(key) for key in self.files.partitions(self._series(kind, symbol)))

    def drop_month(self, kind: str, symbol: str, month: str) -> None:
        """Remove one partition; a reader beside it reads the rest."""
        folder = self._series(kind, symbol)
        with self.files.writer(folder):
            self.files.remove(f"{folder}/{month}{PARQUET}")

    def compact_month(self, kind: str, symbol: str, month: str, *, dry_run: bool = False) -> int:
        """Rewrite a partition as this store writes it, if it is not; return the bytes saved.

        Raises
        ------
        TradewindError
            ``corrupt_file``.
        """
        folder = self._series(kind, symbol)
        key = f"{folder}/{month}{PARQUET}"
        columns = BARS if kind in TIMEFRAME_MS else series_columns(kind)
        if dry_run:
            return len(self.files.read(key)) - len(self._canonical(key, columns))
        with self.files.writer(folder):
            before, after = self.files.read(key), self._canonical(key, columns)
            if after != before:
                self.files.write(key, after)
        return len(before) - len(after)

    # -- quarantine and gaps ------------------------------------------------------------

    def add_quarantine(self, symbol: str, timeframe: str, bad: pl.DataFrame) -> int:
        """Keep refused bars (with ``reason``); return how many were not known yet."""
        rows = conform(bad, QUARANTINE, f"quarantine of {symbol}")
        folder = self._series("quarantine", symbol)
        key = f"{folder}/{timeframe}{PARQUET}"
        if rows.is_empty():
            return 0
        with self.files.writer(folder):
            old = stored(self.files, key, QUARANTINE)
            merged = pl.concat([old, rows]).unique().sort(list(QUARANTINE))
            new = merged.height - old.height
            if new:
                write_parquet(self.files, key, merged)
        return new

    def replace_gaps(self, symbol: str, timeframe: str, gaps: pl.DataFrame) -> None:
        """Keep ``gaps`` as the whole truth about the holes of one series."""
        rows = conform(gaps, GAPS, f"gaps of {symbol}").sort("from_ts")
        folder = self._series("gaps", symbol)
        key = f"{folder}/{timeframe}{PARQUET}"
        if rows.is_empty() and not self.files.exists(key):
            return
        with self.files.writer(folder):
            if not self.files.exists(key) or not stored(self.files, key, GAPS).equals(rows):
                write_parquet(self.files, key, rows)

    def asked_from(self, symbol: str, kind: str) -> int | None:
        """Return the earliest time that the source has been asked for rows of a kind."""
        rows = stored(self.files, f"{self._series('asked', symbol)}/{kind}{PARQUET}", ASKED)
        return int(rows["from_ts"][0]) if rows.height else None

    def note_asked(self, symbol: str, kind: str, from_ms: int) -> None:
        """Remember that the source has been asked from ``from_ms`` on, unless earlier before."""
        folder = self._series("asked", symbol)
        with self.files.writer(folder):
            known = self.asked_from(symbol, kind)
            if known is None or from_ms < known:
                row = pl.DataFrame({"from_ts": [from_ms]}, schema=dict(ASKED))
                write_parquet(self.files, f"{folder}/{_name(kind, 'kind')}{PARQUET}", row)

    def quarantined(self, symbol: str | None = None) -> pl.DataFrame:
        """Return refused bars: symbol, timeframe, the bar as it came, reason."""
        return self._table("quarantine", QUARANTINE, symbol)

    def gaps(self, symbol: str | None = None) -> pl.DataFrame:
        """Return holes: symbol, timeframe, from_ts, to_ts, bars, confirmed.

        ``confirmed`` says that the source, asked for exactly these bars, answered with none.
        """
        return self._table("gaps", GAPS, symbol)

    # -- inside -------------------------------------------------------------------------

    def _series(self, kind: str, symbol: str) -> str:
        return f"{self.set_id}/{_name(kind, 'kind')}/{_name(symbol, 'symbol')}"

    def _keys_of_bars(self, symbol: str, timeframe: str) -> list[str]:
        keys = self.files.partitions(self._series(timeframe, symbol))
        if not keys:
            others = ", ".join(
                name for name in TIMEFRAME_MS if self.files.partitions(self._series(name, symbol))
            )
            hint = f" (there are {others} bars of it)" if others else ""
            raise TradewindError(
                ErrorCode.NO_BARS,
                f"no {timeframe} bars of symbol {symbol} in set {self.set_id}"
                f" at {self.files.place('')}{hint}",
                "Run `tradewind ingest` with that symbol, or ask for one that is stored",
            )
        return keys

    def _end(self, symbol: str, timeframe: str, *, newest: bool) -> int | None:
        keys = self.files.partitions(self._series(timeframe, symbol))
        for key in reversed(keys) if newest else keys:
            ts = stored(self.files, key, BARS)["ts"]
            if not ts.is_empty():
                return int(ts[-1 if newest else 0])
        return None

    def _write(self, folder: str, rows: pl.DataFrame, columns: Columns) -> WriteReport:
        report = WriteReport()
        if rows.is_empty():
            return report
        month = pl.from_epoch("ts", time_unit="ms").dt.strftime("%Y-%m").alias("month")
        parts = rows.with_columns(month).partition_by("month", maintain_order=True)
        with self.files.writer(folder):
            for part in parts:
                key = f"{folder}/{part['month'][0]}{PARQUET}"
                report += merge_rows(self.files, key, part.drop("month"), columns)
        return report

    def _canonical(self, key: str, columns: Columns) -> bytes:
        rows = read_parquet(self.files, key, columns)
        return encode(rows.unique("ts", keep="last", maintain_order=True).sort("ts"))

    def _digest(self, key: str, until_open: int) -> str:
        """Hash the rows up to ``until_open``, "" for none; whole partitions are remembered."""
        whole = stem_of(key) < month_of(until_open)
        try:
            state = self.files.state(key)
            known = self._digests.get(key)
            if whole and known is not None and known[0] == state:
                return known[1]
            rows = read_parquet(self.files, key, BARS).filter(pl.col("ts") <= until_open)
        except FileNotFoundError:  # retention has removed it since it was listed
            return ""
        digest = _content_hash(rows) if rows.height else ""
        if whole:
            self._digests[key] = (state, digest)
        return digest

    def _table(self, kind: str, columns: Columns, symbol: str | None) -> pl.DataFrame:
        folder = f"{self.set_id}/{kind}"
        names = [_name(symbol, "symbol")] if symbol else self.files.folders(folder)
        frames = [
            read_parquet(self.files, key, columns).select(
                pl.lit(name).alias("symbol"), pl.lit(stem_of(key)).alias("timeframe"), pl.all()
            )
            for name in names
            for key in self.files.partitions(f"{folder}/{name}")
        ]
        head: Columns = {"symbol": pl.String, "timeframe": pl.String, **columns}
        return pl.concat([empty(head), *frames])

    def _partition(self, key: str, columns: Columns) -> pl.DataFrame:
        if self._memory is None:
            return stored(self.files, key, columns)
        return self._memory.stored(key, columns)

    def _read_range(
        self,
        keys: Sequence[str],
        columns: Columns,
        start_ts: int | None,
        until_ts: int | None,
        last: int | None,
    ) -> pl.DataFrame:
        """Read newest partitions first, and no more of them than the range or ``last`` needs."""
        keep: list[Callable[[str], bool]] = []
        wanted = pl.lit(value=True)
        if start_ts is not None:
            first = month_of(start_ts)
            keep.append(lambda month: month >= first)
            wanted &= pl.col("ts") >= start_ts
        if until_ts is not None:
            newest = month_of(until_ts)
            keep.append(lambda month: month <= newest)
            wanted &= pl.col("ts") <= until_ts
        frames: list[pl.DataFrame] = []
        missing = last
        for key in reversed([k for k in keys if all(test(stem_of(k)) for test in keep)]):
            if missing is not None and missing <= 0:
                break
            # Retention may have removed it since it was listed.
            rows = self._partition(key, columns).filter(wanted)
            frames.append(rows)
            missing = None if missing is None else missing - rows.height
        found = pl.concat([empty(columns), *reversed(frames)], rechunk=True)
        return found if last is None else found.tail(last)


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


def _content_hash(rows: pl.DataFrame) -> str:
    digest = hashlib.sha256()
    for column in rows.get_columns():
        values = column.to_numpy()
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
