"""What `up` says: on the console while there is one, and in its own log."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

NO_READER = frozenset({errno.EIO, errno.EPIPE, errno.EBADF, errno.ENXIO})


@dataclass
class Say:
    """Says a line on the console, with the time, and keeps it in `up`'s own log.

    It never fails: a closed terminal or pipe, or a full disk, must not keep `up` from watching
    its processes, nor from stopping them.
    """

    log: Path
    console: Console | None

    def __call__(self, text: str) -> None:
        """Say one line."""
        now = datetime.now(UTC)
        self.show(f"{now:%H:%M:%S} {text}")
        self._keep(f"{now:%Y-%m-%dT%H:%M:%SZ} {text}\n")

    def show(self, content: Any) -> None:
        """Print on the console alone; one that nobody reads any more is let go."""
        if self.console is None:
            return
        try:
            self.console.print(content, highlight=False, soft_wrap=True, markup=False)
        except SystemExit:  # how rich answers a closed pipe
            self._let_go()
        except OSError as error:
            if error.errno in NO_READER:
                self._let_go()

    def _let_go(self) -> None:
        own = self.console is not None and self.console.file is sys.stdout
        self.console = None
        self._keep("the console is closed: what follows stands only here\n")
        if own:
            # What is still buffered would fail once more when the interpreter ends.
            with contextlib.suppress(OSError), Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())

    def _keep(self, line: str) -> None:
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError as error:
            self.show(f"({self.log} cannot be written: {error.strerror})")
