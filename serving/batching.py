"""Concurrent requests for one model share a forward, with no wait added when it is idle.

Whoever gets the model's turn next runs everything that has gathered meanwhile: under load
batches grow by themselves, alone a request runs at once. (BentoML's own adaptive batching
serves only its POST methods, and fails a whole batch for one bad row.)
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Row = TypeVar("Row")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Job(Generic[Row, Answer]):
    rows: Sequence[Row]
    passes: int
    done: Future[list[Answer]] = field(default_factory=Future)


class ForwardBatcher(Generic[Row, Answer]):
    """Runs ``forward(rows, passes)`` over the rows of every request that waits for it.

    Parameters
    ----------
    forward
        Takes rows and the number of passes, returns one answer a row, in order.
    max_passes
        Bound on rows × passes of one forward; a single larger request still runs whole.
    """

    def __init__(
        self, forward: Callable[[Sequence[Row], int], list[Answer]], *, max_passes: int
    ) -> None:
        self._forward = forward
        self._max_passes = max_passes
        self._turn = threading.Lock()
        self._mutex = threading.Lock()
        self._waiting: deque[_Job[Row, Answer]] = deque()

    def run(self, rows: Sequence[Row], passes: int) -> list[Answer]:
        """Return one answer a row; raise what the forward raised for these rows alone."""
        job: _Job[Row, Answer] = _Job(rows, passes)
        with self._mutex:
            self._waiting.append(job)
        with self._turn:
            while not job.done.done():
                self._run_batch(self._take())
        return job.done.result()

    def _take(self) -> list[_Job[Row, Answer]]:
        """Take the oldest job and those of equal passes behind it, up to the bound."""
        with self._mutex:
            first = self._waiting.popleft()
            taken, kept = [first], deque[_Job[Row, Answer]]()
            budget = self._max_passes // first.passes - len(first.rows)
            for job in self._waiting:
                if job.passes == first.passes and len(job.rows) <= budget:
                    taken.append(job)
                    budget -= len(job.rows)
                else:
                    kept.append(job)
            self._waiting = kept
        return taken

    def _run_batch(self, jobs: Sequence[_Job[Row, Answer]]) -> None:
        rows = [row for job in jobs for row in job.rows]
        try:
            answers = self._forward(rows, jobs[0].passes)
        except Exception as error:  # noqa: BLE001 (carried to the callers, never swallowed)
            if len(jobs) == 1:
                jobs[0].done.set_exception(error)
            else:  # one bad row must not fail the requests it happened to share a batch with
                for job in jobs:
                    self._run_batch([job])
            return
        start = 0
        for job in jobs:
            job.done.set_result(answers[start : start + len(job.rows)])
            start += len(job.rows)
