"""Where the store's files lie, behind one interface: a folder, or an object store by its URL.

A key is a path below the store's root with slashes, such as
``binance_usdm_perp/15m/BTCUSDT/2025-01.parquet``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import disk_errors, write_bytes

PARQUET = ".parquet"
LOCK_NAME = ".lock"
State = tuple[int | str, ...]


class StoreFiles(Protocol):
    """What the store asks of a place: whole files, replaced atomically, one writer a folder."""

    def place(self, key: str) -> str:
        """Return where a key is, for people."""
        ...

    def partitions(self, folder: str) -> list[str]:
        """Return the keys of the folder's Parquet files, sorted; none is no error."""
        ...

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder, sorted."""
        ...

    def read(self, key: str) -> bytes:
        """Return a whole file.

        Raises
        ------
        FileNotFoundError
            When there is none.
        """
        ...

    def exists(self, key: str) -> bool:
        """Return whether there is such a file."""
        ...

    def state(self, key: str) -> State:
        """Return what changes whenever the file is replaced."""
        ...

    def folder_state(self, folder: str) -> int | None:
        """Return the time of the folder's newest change in ns; None: this place cannot tell."""
        ...

    def write(self, key: str, content: bytes) -> None:
        """Replace a file atomically: a reader sees the old content or the new."""
        ...

    def remove(self, key: str) -> None:
        """Remove a file; none is no error."""
        ...

    def writer(self, folder: str) -> AbstractContextManager[None]:
        """Hold a folder for one writer among all processes.

        Raises
        ------
        TradewindError
            ``already_running`` when another writer held it for the whole time-out.
        """
        ...


def held_too_long(place: str, timeout_s: float) -> TradewindError:
    """Return the error of a writer that waited in vain."""
    return TradewindError(
        ErrorCode.ALREADY_RUNNING,
        f"another process has been writing {place} for {timeout_s:g} s",
        "Wait for it to end, or stop it, then run the same command again",
    )


class LocalFiles:
    """A folder of this machine.

    Parameters
    ----------
    root
        Folder of all sets.
    lock_timeout_s
        How long a writer waits for another one of the same folder.
    """

    def __init__(self, root: Path, lock_timeout_s: float) -> None:
        self.root = Path(root)
        self._base = os.fspath(self.root)
        self._lock_timeout_s = lock_timeout_s

    def place(self, key: str) -> str:
        """Return the file's path."""
        return os.fspath(self.root / key)

    def partitions(self, folder: str) -> list[str]:
        """Return the folder's Parquet files; temporary files start with a dot."""
        return [
            f"{folder}/{name}" for name in sorted(self._names(folder)) if name.endswith(PARQUET)
        ]

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder, sorted."""
        return [
            name for name in sorted(self._names(folder)) if (self.root / folder / name).is_dir()
        ]

    def read(self, key: str) -> bytes:
        """Return a whole file."""
        with open(f"{self._base}/{key}", "rb") as stream:  # noqa: PTH123 - a Path costs as much
            return stream.read()

    def exists(self, key: str) -> bool:
        """Return whether there is such a file."""
        return (self.root / key).is_file()

    def state(self, key: str) -> State:
        """Return time, size and inode: a rename always brings another inode."""
        stat = os.stat(f"{self._base}/{key}")  # noqa: PTH116 - a Path costs as much again
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def folder_state(self, folder: str) -> int | None:
        """Return the folder's own time: replacing a file in it by a rename moves it."""
        try:
            return os.stat(f"{self._base}/{folder}").st_mtime_ns  # noqa: PTH116
        except FileNotFoundError:
            return None

    def write(self, key: str, content: bytes) -> None:
        """Replace a file: temporary file, fsync, rename."""
        write_bytes(self.root / key, content)

    def remove(self, key: str) -> None:
        """Remove a file; none is no error."""
        (self.root / key).unlink(missing_ok=True)

    @contextlib.contextmanager
    def writer(self, folder: str) -> Iterator[None]:
        """Hold the folder for one writer; the kernel frees the lock if the process dies."""
        path = self.root / folder
        lock = FileLock(path / LOCK_NAME, timeout=self._lock_timeout_s)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout as error:
                raise held_too_long(str(path), self._lock_timeout_s) from error
        try:
            for abandoned in path.glob(".*.tmp"):  # of a writer that was killed
                abandoned.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def _names(self, folder: str) -> list[str]:
        try:
            names = os.listdir(f"{self._base}/{folder}")  # noqa: PTH208 - a Path costs as much
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in names if not name.startswith(".")]


def open_files(root: Path | str, lock_timeout_s: float) -> StoreFiles:
    """Return the place that a path or URL names; ``file://`` is a folder like any other.

    Raises
    ------
    TradewindError
        ``bad_setting`` for a place that cannot replace files atomically.
    """
    text = str(root)
    if isinstance(root, Path) or "://" not in text:
        return LocalFiles(Path(root), lock_timeout_s)
    if text.startswith(("file://", "local://")):
        return LocalFiles(Path(text.split("://", 1)[1]), lock_timeout_s)
    from tradewind.market._object_files import ObjectFiles

    return ObjectFiles(text, lock_timeout_s)
