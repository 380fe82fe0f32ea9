"""Stages of long work: a progress bar each, and what each cost in time and memory."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from tradewind.files import write_json


def progress_bar(console: Console) -> Progress:
    """Return the house's progress bar; plain lines where there is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


@dataclass
class Stages:
    """Wall time and peak memory (this process and its children) of each stage."""

    console: Console
    file: Path | None = None
    figures: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Remember the stages that an earlier, killed run had finished."""
        if self.file is not None and self.file.exists():
            self.figures.update(json.loads(self.file.read_text(encoding="utf-8")))

    @contextmanager
    def stage(self, name: str, text: str) -> Iterator[None]:
        """Run one stage, announce it, and keep its figures."""
        self.console.print(f"[bold cyan]▶ {name}[/] {text}")
        started = time.monotonic()
        with PeakMemory() as memory:
            yield
        seconds = time.monotonic() - started
        self.figures[name] = {"seconds": round(seconds, 1), "peak_mib": round(memory.peak_mib)}
        if self.file is not None:
            write_json(self.file, self.figures)
        self.console.print(f"  {name} took {seconds:.1f} s, peak {memory.peak_mib:.0f} MiB")


class PeakMemory:
    """Samples the resident memory of this process tree four times a second."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        """Start sampling."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil

        me = psutil.Process()
        while True:
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:  # it ended between the listing and the look
                    continue
            self.peak_mib = max(self.peak_mib, total / 2**20)
            if self._stop.wait(0.25):
                return
