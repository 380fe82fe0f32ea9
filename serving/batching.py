"""Concurrent requests for one model share a forward, with no wait added when it is idle.

Whoever gets the model's turn next runs everything that has gathered meanwhile: under load
batches grow by themselves, alone a request runs at once. Nothing waits for ever: a request whose
turn does not come in time is withdrawn and refused. (BentoML's own adaptive batching serves only
its POST methods, and fails a whole batch for one bad row.)
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tradewind.errors import ErrorCode, TradewindError

Row = TypeVar("Row")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Job(Generic[Row, Answer]):
    """One request; ``woken`` is set when its outcome is there, or when the turn is its own."""

    rows: Sequence[Row]
    passes: int
    woken: threading.Event = field(default_factory=threading.Event)
    answers: list[Answer] | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.answers is not None or self.error is not None


class ForwardBatcher(Generic[Row, Answer]):
    """Runs ``forward(rows, passes)`` over the rows of every request that waits for it.

    Parameters
    ----------
    forward
        Takes rows and the number of passes, returns one answer a row, in order.
    max_passes
        Bound on rows × passes of one forward; a single larger request still runs whole.
    max_wait_s
        How long a request may wait for its turn.
    """

    def __init__(
        self,
        forward: Callable[[Sequence[Row], int], list[Answer]],
        *,
        max_passes: int,
        max_wait_s: float,
    ) -> None:
        self._forward = forward
        self._max_passes = max_passes
        self._max_wait_s = max_wait_s
        self._mutex = threading.Lock()
        self._busy = False
        self._waiting: deque[_Job[Row, Answer]] = deque()

    def run(self, rows: Sequence[Row], passes: int) -> list[Answer]:
        """Return one answer a row; raise what the forward raised for these rows alone.

        Raises
        ------
        TradewindError
            ``overloaded`` if the turn did not come in time.
        """
        job: _Job[Row, Answer] = _Job(rows, passes)
        with self._mutex:
            self._waiting.append(job)
            alone, self._busy = not self._busy, True
        if not alone:
            self._wait(job)
        if not job.done:
            self._lead()
        if job.error is not None:
            raise job.error
        assert job.answers is not None
        return job.answers

    def _wait(self, job: _Job[Row, Answer]) -> None:
        """Wait until the job is done or leads; withdraw it if neither comes in time."""
        if job.woken.wait(self._max_wait_s):
            return
        with self._mutex:
            if not job.woken.is_set() and job in self._waiting:
                self._waiting.remove(job)
                raise TradewindError(
                    ErrorCode.OVERLOADED,
                    f"the model's turn did not come within serving.max_wait_s = "
                    f"{self._max_wait_s:g}",
                    "Ask again after the time in Retry-After, or for fewer passes",
                )
        job.woken.wait()  # it is being answered right now

    def _lead(self) -> None:
        """Run the oldest job, which is the caller's, with those that fit; pass the turn on."""
        try:
            self._run_batch(self._take())
        finally:
            with self._mutex:
                if self._waiting:
                    self._waiting[0].woken.set()
                else:
                    self._busy = False

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
                jobs[0].error = error
                jobs[0].woken.set()
            else:  # one bad row must not fail the requests it happened to share a batch with
                for job in jobs:
                    self._run_batch([job])
            return
        start = 0
        for job in jobs:
            job.answers = answers[start : start + len(job.rows)]
            job.woken.set()
            start += len(job.rows)
