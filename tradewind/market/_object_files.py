"""The store's files in an object store, through fsspec.

What is guaranteed: an object is replaced whole (its PUT is atomic), and a folder has one
writer among all processes and machines, by a lock object that only one of them can create.
A place that cannot promise both is refused. A writer that died leaves its lock object; it
is removed once it is older than `LEASE_S`, far longer than any write takes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any

from tradewind.errors import ErrorCode, TradewindError
from tradewind.market._files import LOCK_NAME, PARQUET, State, held_too_long
from tradewind.masking import mask_passwords

ATOMIC_PUT = frozenset({"memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
"""Protocols whose PUT replaces an object whole; a place reached by another one is refused."""
LEASE_S = 600.0
POLL_S = (0.02, 0.2)


class ObjectFiles:
    """A prefix of an object store.

    Parameters
    ----------
    url
        Such as ``s3://bucket/prefix``; credentials come from the protocol's own environment.
        ``memory://`` lives in one process, for tests.
    lock_timeout_s
        How long a writer waits for another one of the same folder.

    Raises
    ------
    TradewindError
        ``bad_setting`` for a protocol that is unknown, not installed, or not atomic.
    """

    def __init__(self, url: str, lock_timeout_s: float) -> None:
        import fsspec

        self.url = url.rstrip("/")
        self._lock_timeout_s = lock_timeout_s
        protocol = url.split("://", 1)[0]
        if protocol not in ATOMIC_PUT:
            raise self._refused(
                f"{protocol} does not promise that a file is replaced whole",
                f"Use a folder, or one of {', '.join(sorted(ATOMIC_PUT))}",
            )
        try:
            # What another machine wrote must be seen: no listing is remembered.
            self.fs, self._base = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError, OSError) as error:
            raise self._refused(
                mask_passwords(str(error)), "Install the package it names, and check the URL"
            ) from error
        self._base = self._base.rstrip("/")
        self._exclusive = False

    def place(self, key: str) -> str:
        """Return the object's URL, without a password."""
        return mask_passwords(f"{self.url}/{key}")

    def partitions(self, folder: str) -> list[str]:
        """Return the folder's Parquet objects, sorted."""
        names = (
            entry["name"].rsplit("/", 1)[-1]
            for entry in self._list(folder)
            if entry["type"] == "file"
        )
        return [
            f"{folder}/{name}"
            for name in sorted(names)
            if name.endswith(PARQUET) and not name.startswith(".")
        ]

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder, sorted."""
        return sorted(
            entry["name"].rstrip("/").rsplit("/", 1)[-1]
            for entry in self._list(folder)
            if entry["type"] == "directory"
        )

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        with self._told(key):
            content: bytes = self.fs.cat_file(self._path(key))
        return content

    def exists(self, key: str) -> bool:
        """Return whether there is such an object."""
        with self._told(key):
            return bool(self.fs.isfile(self._path(key)))

    def state(self, key: str) -> State:
        """Return fsspec's unique key of the object's present content."""
        with self._told(key):
            return (str(self.fs.ukey(self._path(key))),)

    def folder_state(self, folder: str) -> int | None:
        """Return None: object stores have no folders, so nothing tells of all changes at once."""
        return None

    def write(self, key: str, content: bytes) -> None:
        """Replace an object by one PUT."""
        with self._told(key):
            self.fs.pipe_file(self._path(key), content)

    def remove(self, key: str) -> None:
        """Remove an object; none is no error."""
        with self._told(key), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self._path(key))

    @contextlib.contextmanager
    def writer(self, folder: str) -> Iterator[None]:
        """Hold the folder by creating its lock object, which only one writer can."""
        self._check_exclusive()
        lock = f"{folder}/{LOCK_NAME}"
        owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
        deadline = time.monotonic() + self._lock_timeout_s
        while not self._create(lock, owner):
            self._break_dead(lock)
            if time.monotonic() >= deadline:
                raise held_too_long(self.place(folder), self._lock_timeout_s)
            time.sleep(random.uniform(*POLL_S))
        try:
            yield
        finally:
            if self._holder(lock).get("owner") == owner:
                self.remove(lock)

    def _create(self, lock: str, owner: str) -> bool:
        """Create the lock object unless it is there."""
        content = json.dumps({"owner": owner, "since": time.time()}).encode()
        with self._told(lock):
            try:
                self.fs.pipe_file(self._path(lock), content, mode="create")
            except FileExistsError:
                return False
        return True

    def _holder(self, lock: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.read(lock))
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def _break_dead(self, lock: str) -> None:
        """Remove the lock of a writer that has been silent for longer than any write takes."""
        since = self._holder(lock).get("since")
        if isinstance(since, float) and time.time() - since > LEASE_S:
            self.remove(lock)

    def _check_exclusive(self) -> None:
        """Refuse a place that would let two writers create the same lock object."""
        if self._exclusive:
            return
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            if not self._create(probe, "probe") or self._create(probe, "probe"):
                raise self._refused(
                    "it lets two writers create one object, so that none can hold a lock",
                    "Update the package of that protocol, or use a folder",
                )
        finally:
            self.remove(probe)
        self._exclusive = True

    def _list(self, folder: str) -> list[dict[str, Any]]:
        with self._told(folder):
            try:
                found: list[dict[str, Any]] = self.fs.ls(self._path(folder), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return found

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}"

    def _refused(self, why: str, remedy: str) -> TradewindError:
        return TradewindError(
            ErrorCode.BAD_SETTING,
            f"setting store_url = {mask_passwords(self.url)!r} cannot hold the store: {why}",
            remedy,
        )

    @contextlib.contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """Name the place in errors of the network; what is simply absent stays as it is."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, NotADirectoryError):
            raise
        except OSError as error:
            raise TradewindError(
                ErrorCode.DATA_UNREADABLE,
                mask_passwords(f"{self.place(key)} cannot be reached ({error})"),
                "Check TRADEWIND_STORE_URL, its credentials and the network",
            ) from error
