"""The log is bounded, loses nothing while the ledger is down, and writes each answer once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import Engine, event

from serving.prediction_log import ROWS_A_COMMIT, PredictionLog
from tests.support.predictions import prediction
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import open_ledger
from tradewind.ledger.database import ROWS_A_STATEMENT
from tradewind.ledger.records import PredictionRecord
from tradewind.settings import Settings


def record(number: int) -> PredictionRecord:
    return PredictionRecord(prediction(), "champion", 1.5, f"request-{number}")


class Sink:
    """Remembers what was written; can be down."""

    def __init__(self) -> None:
        self.down = False
        self.written: list[str] = []
        self.commits: list[int] = []
        self.down_after: int | None = None

    def record_predictions(self, records: Sequence[PredictionRecord]) -> int:
        if self.down or len(self.commits) == self.down_after:
            raise TradewindError(ErrorCode.LEDGER_UNAVAILABLE, "ledger is down", "Start it")
        self.written += [item.request_id for item in records]
        self.commits.append(len(records))
        return len(records)


class Seen:
    """What the log tells the metrics."""

    def __init__(self) -> None:
        self.depth = -1
        self.dropped = 0

    def on_depth(self, depth: int) -> None:
        self.depth = depth

    def on_drop(self, count: int) -> None:
        self.dropped += count


def make(sink: Sink, seen: Seen, *, capacity: int = 10) -> PredictionLog:
    return PredictionLog(
        lambda: sink,
        capacity=capacity,
        on_depth=seen.on_depth,
        on_drop=seen.on_drop,
    )


def test_nothing_is_lost_while_the_ledger_is_down() -> None:
    sink, seen = Sink(), Seen()
    log = make(sink, seen)
    sink.down = True
    log.put([record(1), record(2)])
    log.flush()
    assert (sink.written, seen.depth) == ([], 2)
    sink.down = False
    log.put([record(3)])
    log.flush()
    assert (sink.written, seen.depth) == (["request-1", "request-2", "request-3"], 0)


def test_a_full_queue_drops_the_newest_and_counts_them() -> None:
    sink, seen = Sink(), Seen()
    log = make(sink, seen, capacity=3)
    log.put([record(i) for i in range(5)])
    log.put([record(9)])
    log.flush()
    assert sink.written == ["request-0", "request-1", "request-2"]
    assert seen.dropped == 3


def test_what_an_outage_left_is_written_in_short_commits() -> None:
    sink, seen = Sink(), Seen()
    total = 2 * ROWS_A_COMMIT + 50
    log = make(sink, seen, capacity=total)
    log.put([record(i) for i in range(total)])
    sink.down_after = 1
    log.flush()
    assert seen.depth == total - ROWS_A_COMMIT
    sink.down_after = None
    log.flush()
    assert sink.commits == [ROWS_A_COMMIT, ROWS_A_COMMIT, 50]
    assert sink.written == [f"request-{i}" for i in range(total)]
    assert seen.depth == 0


def test_the_real_ledger_keeps_each_answer_once(make_settings: Callable[..., Settings]) -> None:
    ledger = open_ledger(make_settings())
    seen = Seen()
    log = PredictionLog(lambda: ledger, capacity=10, on_depth=seen.on_depth, on_drop=seen.on_drop)
    log.put([record(1), record(1), record(2)])
    log.flush()
    rows = ledger.predictions()
    ledger.close()
    assert sorted(rows["request_id"]) == ["request-1", "request-2"]
    assert rows["latency_ms"].to_list() == [1.5, 1.5]


def test_batches_of_all_sizes_need_few_statements(make_settings: Callable[..., Settings]) -> None:
    """Every SQL text stays prepared in the driver: one a batch size was memory that grew."""
    ledger = open_ledger(make_settings())
    texts: set[str] = set()

    def note(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT"):
            texts.add(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        sizes = range(1, 4 * ROWS_A_STATEMENT, 3)
        for size in sizes:
            ledger.record_predictions(
                [replace(record(i), request_id=f"{size}-{i}") for i in range(size)]
            )
        assert len(ledger.predictions()) == sum(sizes)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
        ledger.close()
    assert 0 < len(texts) <= ROWS_A_STATEMENT
