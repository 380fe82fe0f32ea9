"""The logs of the processes: their last lines, following one, and keeping them small."""

from __future__ import annotations

import codecs
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

TAIL_BYTES = 64 * 1024


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of a text file; none where it is not there."""
    return _tail(path, lines)[0].splitlines()


def _tail(path: Path, lines: int) -> tuple[str, int]:
    """Return the last lines as they stand, and where they end in the file."""
    if not path.exists():
        return "", 0
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
        content = stream.read()
        end = stream.tell()
    kept = b"".join(content.splitlines(keepends=True)[-lines:])
    return kept.decode("utf-8", "replace"), end


def follow(
    path: Path, lines: int, look_s: float, stop: threading.Event | None = None
) -> Iterator[str]:
    """Yield the last lines, then whatever is added, until ``stop`` is set.

    A file that was replaced, or cut because it had grown too large, is read from its beginning.
    """
    stopping = stop or threading.Event()
    text, position = _tail(path, lines)
    yield text
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    stream = path.open("rb")
    try:
        stream.seek(position)
        while not stopping.wait(look_s):
            yield decoder.decode(stream.read())
            try:
                now = path.stat()
            except FileNotFoundError:
                continue  # between the old file and the new one
            if not os.path.samestat(now, os.fstat(stream.fileno())):
                stream.close()
                stream = path.open("rb")
            elif now.st_size < stream.tell():
                stream.seek(0)
    finally:
        stream.close()


def keep_small(folder: Path, limit_bytes: int) -> None:
    """Cut every log above the limit, with one older part kept beside it (``.log.1``).

    It is copied and cut, not renamed: the process holds it open and goes on writing to the
    same file. Lines written between the two steps are lost.
    """
    for log in folder.glob("*.log"):
        if log.stat().st_size > limit_bytes:
            older = log.with_suffix(".log.1")
            older.unlink(missing_ok=True)
            shutil.copyfile(log, older)
            with log.open("r+b") as stream:
                stream.truncate(0)
