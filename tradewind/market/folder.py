"""Bars from a folder of Parquet or CSV files: ``{set}_{timeframe}/{SYMBOL}_{timeframe}.parquet``.

A series may be in pieces: ``BTCUSDT_1h.parquet`` and ``BTCUSDT_1h_2023.parquet``.
"""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from tradewind.errors import ErrorCode, TradewindError
from tradewind.market.schema import (
    BARS,
    FUNDING,
    LONG_SHORT_RATIO,
    OPEN_INTEREST,
    Columns,
    conform,
)
from tradewind.market.sets import (
    LONG_SHORT_RATIO_NAME,
    OPEN_INTEREST_NAME,
    bars_folder,
    companion_folder,
)
from tradewind.market.sources import SourceKind, unknown_symbol
from tradewind.settings import TIMEFRAME_MS

SUFFIXES = (".parquet", ".csv")
FUNDING_TIMEFRAME = "8h"


class FolderSource:
    """A directory of bars.

    Parameters
    ----------
    root
        Folder of sets.
    set_id
        Set to read.
    """

    kind: SourceKind = "folder"

    def __init__(self, root: Path, set_id: str) -> None:
        self.root = Path(root)
        self.set_id = set_id
        self.name = f"folder {self.root}, set {set_id}"
        self._frames: dict[Path, tuple[int, pl.DataFrame]] = {}

    async def fetch_bars(
        self, symbol: str, timeframe: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame:
        """Return bars that open in ``[since_ms, until_ms)``, as the files have them.

        Raises
        ------
        TradewindError
            ``no_bars`` without such a set, ``unknown_symbol``, ``corrupt_file``.
        """
        folder = self.check(timeframe)
        paths = _files(folder, symbol, timeframe)
        if not paths:
            raise unknown_symbol(symbol, _known(folder, timeframe), self.name)
        bars = pl.concat([self._read(path, BARS) for path in paths])
        return bars.filter((pl.col("ts") >= since_ms) & (pl.col("ts") < until_ms))

    async def fetch_funding(self, symbol: str, since_ms: int, until_ms: int) -> pl.DataFrame | None:
        """Return funding rates, or None where the set has no such companion."""
        return self._companion("funding", (FUNDING_TIMEFRAME,), FUNDING, symbol, since_ms, until_ms)

    async def fetch_open_interest(
        self, symbol: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame | None:
        """Return open interest of the finest companion such as ``binance_usdm_oi_4h``, or None."""
        return self._companion(
            OPEN_INTEREST_NAME, tuple(TIMEFRAME_MS), OPEN_INTEREST, symbol, since_ms, until_ms
        )

    async def fetch_long_short_ratio(
        self, symbol: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame | None:
        """Return ratios of the finest companion such as ``x_long_short_15m``, or None."""
        return self._companion(
            LONG_SHORT_RATIO_NAME, tuple(TIMEFRAME_MS), LONG_SHORT_RATIO, symbol, since_ms, until_ms
        )

    def _companion(
        self,
        kind: str,
        timeframes: tuple[str, ...],
        columns: Columns,
        symbol: str,
        since_ms: int,
        until_ms: int,
    ) -> pl.DataFrame | None:
        for timeframe in timeframes:
            folder = self.root / companion_folder(self.set_id, kind, timeframe)
            paths = _files(folder, symbol, timeframe) if folder.is_dir() else []
            if paths:
                rows = pl.concat([self._read(path, columns) for path in paths])
                return rows.filter(pl.col("ts").is_between(since_ms, until_ms))
        return None

    async def symbols(self) -> tuple[str, ...]:
        """Return the symbols of any timeframe of the set."""
        known: set[str] = set()
        for folder in self.root.glob(f"{self.set_id}_*"):
            known |= _known(folder, folder.name.removeprefix(f"{self.set_id}_"))
        return tuple(sorted(known))

    async def close(self) -> None:
        """Forget what was read."""
        self._frames.clear()

    def check(self, timeframe: str) -> Path:
        """Return the folder of the set's bars.

        Raises
        ------
        TradewindError
            ``data_unreadable`` (no such root), ``no_bars`` (no such set, or an empty one).
        """
        try:
            present = sorted(path.name for path in self.root.iterdir() if path.is_dir())
        except OSError as error:
            raise TradewindError(
                ErrorCode.DATA_UNREADABLE,
                f"TRADEWIND_DATA = {self.root} cannot be read ({error.strerror})",
                "Point it at a folder of sets such as binance_usdm_perp_15m, or unset it",
            ) from error
        folder = self.root / bars_folder(self.set_id, timeframe)
        if folder.name not in present or not _known(folder, timeframe):
            raise TradewindError(
                ErrorCode.NO_BARS,
                f"TRADEWIND_DATA = {self.root} has no bars in {folder.name}"
                f" (it has: {', '.join(present) or 'nothing'})",
                "Set TRADEWIND_MARKET__SET_ID and TRADEWIND_MARKET__TIMEFRAME to a set that is"
                f" there, or put files such as BTCUSDT_{timeframe}.parquet into it",
            )
        return folder

    def _read(self, path: Path, columns: Columns) -> pl.DataFrame:
        changed = path.stat().st_mtime_ns
        known = self._frames.get(path)
        if known is None or known[0] != changed:
            known = (changed, _read_file(path, columns))
            self._frames[path] = known
        return known[1]


def _files(folder: Path, symbol: str, timeframe: str) -> list[Path]:
    stem = f"{symbol}_{timeframe}"
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in SUFFIXES and (path.stem == stem or path.stem.startswith(f"{stem}_"))
    )


def _known(folder: Path, timeframe: str) -> set[str]:
    if not folder.is_dir():
        return set()
    stems = (path.stem.partition("_") for path in folder.iterdir() if path.suffix in SUFFIXES)
    return {
        symbol for symbol, _, rest in stems if rest == timeframe or rest.startswith(f"{timeframe}_")
    }


def _read_file(path: Path, columns: Columns) -> pl.DataFrame:
    try:
        content = io.BytesIO(path.read_bytes())
        frame = pl.read_parquet(content) if path.suffix == ".parquet" else pl.read_csv(content)
        return conform(frame, columns, str(path))
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        OSError,
        TradewindError,
    ) as error:
        reason = error.detail if isinstance(error, TradewindError) else type(error).__name__
        raise TradewindError(
            ErrorCode.CORRUPT_FILE,
            f"{path} cannot be read as {path.suffix[1:]} of bars ({reason})",
            f"Restore that file; it needs the columns {', '.join(columns)}",
        ) from error
