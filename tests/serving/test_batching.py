"""Concurrent requests share forwards; each gets its own rows' answers, in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batching import ForwardBatcher
from tests.support.server_process import wait_until
from tradewind.errors import ErrorCode, TradewindError


class Slow:
    """Doubles numbers, slowly, and remembers its batches."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[tuple[int, int]] = []

    def __call__(self, rows: Sequence[int], passes: int) -> list[int]:
        self.batches.append((len(rows), passes))
        time.sleep(self.seconds)
        if -1 in rows:
            raise ValueError("row -1")
        return [2 * row for row in rows]


def test_a_lone_request_runs_at_once() -> None:
    forward = Slow()
    batcher = ForwardBatcher(forward, max_passes=100, max_wait_s=30)
    assert batcher.run([1, 2, 3], 5) == [2, 4, 6]
    assert forward.batches == [(3, 5)]


def test_requests_that_wait_share_a_forward() -> None:
    forward = Slow(0.1)
    batcher = ForwardBatcher(forward, max_passes=10_000, max_wait_s=30)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: batcher.run([i, i + 100], 3), range(16)))
    assert answers == [[2 * i, 2 * (i + 100)] for i in range(16)]
    assert len(forward.batches) <= 4
    assert sum(rows for rows, _ in forward.batches) == 32


def test_a_batch_keeps_to_the_bound_on_passes() -> None:
    forward = Slow(0.05)
    batcher = ForwardBatcher(forward, max_passes=40, max_wait_s=30)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda i: batcher.run([i], 10), range(12)))
    assert max(rows * passes for rows, passes in forward.batches) <= 40


def test_different_numbers_of_passes_are_not_mixed() -> None:
    forward = Slow(0.05)
    batcher = ForwardBatcher(forward, max_passes=1000, max_wait_s=30)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: batcher.run([i], 1 + i % 2), range(8)))
    assert answers == [[2 * i] for i in range(8)]
    by_passes = {p: sum(n for n, q in forward.batches if q == p) for p in (1, 2)}
    assert by_passes == {1: 4, 2: 4}


def test_a_request_larger_than_the_bound_still_runs() -> None:
    batcher = ForwardBatcher(Slow(), max_passes=2, max_wait_s=30)
    assert batcher.run([1, 2, 3], 10) == [2, 4, 6]


def test_a_bad_row_fails_its_own_request_only() -> None:
    forward = Slow(0.1)
    batcher = ForwardBatcher(forward, max_passes=1000, max_wait_s=30)
    start = threading.Barrier(6)

    def ask(row: int) -> list[int] | str:
        start.wait()
        try:
            return batcher.run([row], 1)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, [1, 2, -1, 3, 4, 5]))
    assert answers == [[2], [4], "row -1", [6], [8], [10]]
    assert batcher.run([7], 1) == [14]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=12))
def test_every_request_gets_its_own_answers(shapes: list[tuple[int, int]]) -> None:
    batcher = ForwardBatcher(Slow(), max_passes=6, max_wait_s=30)
    rows = [[100 * i + j for j in range(count)] for i, (count, _) in enumerate(shapes)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda job: batcher.run(job[0], job[1][1]), zip(rows, shapes, strict=True))
        )
    assert answers == [[2 * row for row in own] for own in rows]


def test_an_error_of_the_forward_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="row -1"):
        ForwardBatcher(Slow(), max_passes=5, max_wait_s=30).run([-1], 1)


def test_a_finished_request_does_not_wait_for_the_next_forward() -> None:
    begun: list[list[int]] = []
    finish = threading.Semaphore(0)

    def forward(rows: Sequence[int], passes: int) -> list[int]:
        begun.append(list(rows))
        assert finish.acquire(timeout=30)
        return list(rows)

    batcher = ForwardBatcher(forward, max_passes=2, max_wait_s=30)

    def waiting(count: int) -> bool:
        return bool(begun) and len(batcher._waiting) == count

    def forwards(count: int) -> bool:
        return len(begun) == count

    with ThreadPoolExecutor(7) as pool:
        asked = []
        for row in range(7):
            asked.append(pool.submit(batcher.run, [row], 1))
            assert wait_until(partial(waiting, row), 30)
        # One alone, then pairs in the order of asking.
        for number, batch in enumerate([[0], [1, 2], [3, 4], [5, 6]]):
            assert wait_until(partial(forwards, number + 1), 30)
            assert begun[-1] == batch
            later = asked[batch[-1] + 1 :]
            finish.release()
            # The next forward does not end before all of this batch have their answers.
            assert [asked[row].result(30) for row in batch] == [[row] for row in batch]
            assert not any(other.done() for other in later)


def test_a_request_whose_turn_does_not_come_is_withdrawn() -> None:
    go = threading.Event()
    seen: list[list[int]] = []

    def forward(rows: Sequence[int], passes: int) -> list[int]:
        seen.append(list(rows))
        go.wait(10)
        return list(rows)

    batcher = ForwardBatcher(forward, max_passes=10, max_wait_s=0.05)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(batcher.run, [1], 1)
        while not seen:
            time.sleep(0.001)
        with pytest.raises(TradewindError, match="turn did not come") as refusal:
            batcher.run([2], 1)
        assert refusal.value.code is ErrorCode.OVERLOADED
        go.set()
        assert first.result() == [1]
    assert batcher.run([3], 1) == [3]
    assert seen == [[1], [3]], "what was withdrawn is not computed"


def test_the_turn_is_passed_on_after_a_failure() -> None:
    forward = Slow(0.05)
    batcher = ForwardBatcher(forward, max_passes=1, max_wait_s=30)

    def ask(row: int) -> list[int] | str:
        try:
            return batcher.run([row], 1)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [1, -1, 2, -1, 3, -1, 4, -1]))
    assert answers == [[2], "row -1", [4], "row -1", [6], "row -1", [8], "row -1"]
