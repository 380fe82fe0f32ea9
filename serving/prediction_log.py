"""Every answer goes to the ledger, in batches, off the reply path.

A killed process loses at most the answers of its last flush interval. A ledger that is
down loses nothing until the bounded queue is full; then the newest are dropped and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol

from tradewind.errors import TradewindError
from tradewind.ledger.records import PredictionRecord

log = logging.getLogger("tradewind.serving")

ROWS_A_COMMIT = 200
"""So few that a commit takes some 20 ms: an order's intent waits for the same ledger."""
GIVE_WAY_S = 0.01
"""Pause between two commits, in which a waiting writer's turn comes."""


class PredictionSink(Protocol):
    """Where predictions are written: the ledger."""

    def record_predictions(self, records: Sequence[PredictionRecord]) -> int:
        """Write them in one transaction, each once."""
        ...


class PredictionLog:
    """A bounded queue; `flush` is called again and again, by one thread.

    Parameters
    ----------
    connect
        Opens the sink; called by the first flush, again after each failure.
    capacity
        Records kept while the sink is slow or down.
    on_depth, on_drop
        Told the depth after each change of it by a flush, and of records dropped.
    """

    def __init__(
        self,
        connect: Callable[[], PredictionSink],
        *,
        capacity: int,
        on_depth: Callable[[int], None],
        on_drop: Callable[[int], None],
    ) -> None:
        self._connect = connect
        self._capacity = capacity
        self._on_depth = on_depth
        self._on_drop = on_drop
        self._queue: deque[PredictionRecord] = deque()
        self._mutex = threading.Lock()
        self._sink: PredictionSink | None = None
        self._failing = False

    def put(self, records: Sequence[PredictionRecord]) -> None:
        """Queue records without waiting; drop and count those that find no room."""
        with self._mutex:
            room = max(0, self._capacity - len(self._queue))
            self._queue.extend(records[:room])
        if len(records) > room:
            self._on_drop(len(records) - room)

    def flush(self) -> None:
        """Write what is queued by now, in parts; on a ledger error keep it for the next time."""
        left = len(self._queue)
        while left > 0:
            with self._mutex:
                batch = tuple(islice(self._queue, min(left, ROWS_A_COMMIT)))
            if not self._write(batch):
                break
            with self._mutex:
                # Only this thread takes records out, so the first ones are still the batch.
                for _ in batch:
                    self._queue.popleft()
            left -= len(batch)
            if left > 0:
                time.sleep(GIVE_WAY_S)
        self._on_depth(len(self._queue))

    def _write(self, batch: Sequence[PredictionRecord]) -> bool:
        try:
            if self._sink is None:
                self._sink = self._connect()
            self._sink.record_predictions(batch)
        except TradewindError as error:
            if not self._failing:  # said once an outage, not once a second
                log.warning("%d predictions wait for the ledger: %s", len(batch), error)
            self._failing = True
            return False
        if self._failing:
            log.info("the ledger is back, %d predictions written", len(batch))
        self._failing = False
        return True
