"""The check finds what is wrong, and export keeps every digit."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from tests.support.booking import STEP, answer, fill, open_position
from tests.support.synthetic import START_MS
from tradewind.ledger import BrokerBook, EquityPoint, Ledger

D = Decimal


@pytest.fixture
def traded(fresh_ledger: Callable[[], Ledger]) -> Ledger:
    """A ledger with one closed trade and one open position."""
    ledger = fresh_ledger()
    _, stop, _ = open_position(ledger)
    ledger.book(answer(stop), [fill(stop, "95", fee="0.04")])
    open_position(ledger, "ETHUSDT", bar=1)
    return ledger


def damage(ledger: Ledger, statement: str) -> list[str]:
    """Change a row behind the ledger's back; return the lines of the check that fail."""
    connection = ledger.db.engine.raw_connection()
    connection.cursor().execute("PRAGMA foreign_keys=OFF")
    connection.cursor().execute(statement)
    connection.commit()
    connection.close()
    found = ledger.check()
    assert found.ok is not any(line.startswith("✗") for line in found.lines)
    return [line for line in found.lines if line.startswith("✗")]


def test_sound_books_pass(traded: Ledger) -> None:
    found = traded.check()
    assert found.ok, found.lines
    assert all(line.startswith("✓") for line in found.lines)


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("DELETE FROM fills WHERE leg = 'stop'", "positions = Σ fills"),
        ("UPDATE fills SET quantity = '0.5' WHERE symbol = 'ETHUSDT'", "filled quantity"),
        ("UPDATE account SET cash = '1'", "cash = initial cash + Σ flows"),
        ("UPDATE flows SET amount = '7' WHERE kind = 'pnl'", "cash = initial cash + Σ flows"),
        ("UPDATE fills SET fee = '1' WHERE leg = 'stop'", "fees paid"),
        ("UPDATE trades SET pnl = '0'", "results of trades"),
        ("UPDATE positions SET quantity = '2'", "positions = Σ fills"),
        ("DELETE FROM orders WHERE symbol = 'ETHUSDT'", "fills without an order"),
        ("DELETE FROM intents WHERE leg = 'target'", "orders without an intent"),
        ("DELETE FROM decisions WHERE symbol = 'ETHUSDT'", "intents without a decision"),
        ("UPDATE intents SET status = 'sending' WHERE leg = 'target'", "without an end"),
        ("UPDATE orders SET broker_id = 'same'", "booked twice"),
    ],
)
def test_a_damaged_book_is_found(traded: Ledger, statement: str, finding: str) -> None:
    assert any(finding in line for line in damage(traded, statement))


def test_the_brokers_book_is_compared(traded: Ledger) -> None:
    cash = traded.cash()
    ids = tuple(sorted({*traded.orders()["client_id"]}))
    assert traded.check(BrokerBook(cash, {"ETHUSDT": D(1)}, ids)).ok
    for other in (
        BrokerBook(cash + 1, {"ETHUSDT": D(1)}, ids),
        BrokerBook(cash, {"ETHUSDT": D(2)}, ids),
        BrokerBook(cash, {}, ids),
        BrokerBook(cash, {"ETHUSDT": D(1), "SOLUSDT": D(1)}, ids),
        BrokerBook(cash, {"ETHUSDT": D(1)}, (*ids, ids[0])),
        BrokerBook(cash, {"ETHUSDT": D(1)}, (*ids, "unbooked")),
    ):
        assert not traded.check(other).ok


def test_export_keeps_every_digit(traded: Ledger, tmp_path: Path) -> None:
    traded.record_equity(EquityPoint(START_MS, D("1.000000000001"), D(1), D(0), 0, D(0)))
    files = traded.export_parquet(tmp_path / "out")
    assert {path.stem for path in files} >= {"fills", "trades", "equity", "decisions", "clock"}
    equity = pl.read_parquet(tmp_path / "out" / "equity.parquet")
    assert equity["equity"].to_list() == [D("1.000000000001")]
    fills = pl.read_parquet(tmp_path / "out" / "fills.parquet")
    assert sorted(fills["price"]) == [D(95), D(100), D(100)]
    assert traded.export_parquet(tmp_path / "out") == files


def test_equity_history_knows_day_and_peak(ledger: Ledger) -> None:
    assert ledger.equity_history(START_MS, START_MS) is None
    day = 86_400_000
    marks = {-2: "9", 0: "10000", 3: "120", 96: "900", 97: "1000", 98: "880.5"}
    for place, value in marks.items():
        money = D(value)
        ledger.record_equity(EquityPoint(START_MS + place * STEP, money, money, D(0), 0, D(0)))
    first = ledger.equity_history(START_MS, START_MS + 4 * STEP)
    assert first is not None
    assert (first.day_open, first.day_low, first.peak) == (D(10_000), D(120), D(10_000))
    second = ledger.equity_history(START_MS + day, START_MS + 98 * STEP)
    assert second is not None
    assert (second.day_open, second.day_low, second.peak) == (D(900), D(900), D(10_000))
    third = ledger.equity_history(START_MS + day, START_MS + 99 * STEP)
    assert third is not None
    assert third.day_low == D("880.5")
    assert ledger.equity_curve(since_ms=START_MS + 97 * STEP)["equity"].to_list() == [1000, 880.5]


def test_the_peak_counts_from_its_last_reset(ledger: Ledger) -> None:
    for place, value in ((0, "1000"), (1, "700"), (2, "800")):
        money = D(value)
        ledger.record_equity(EquityPoint(START_MS + place * STEP, money, money, D(0), 0, D(0)))
    end = START_MS + 3 * STEP
    peaks = []
    for since in (None, START_MS + STEP, START_MS + 2 * STEP + 1):
        found = ledger.equity_history(START_MS, end, since)
        assert found is not None
        peaks.append(found.peak)
    assert peaks == [D(1000), D(800), None]
    assert ledger.peak_since(end) is None
    ledger.reset_peak(START_MS + STEP, who="ann", why="after the review")
    assert ledger.peak_since(end) == START_MS + STEP
    assert ledger.peak_since(START_MS) is None, "a replay that was set back"
    (reset,) = ledger.interventions("peak_reset")
    assert (reset.who, reset.why, reset.market_ms) == ("ann", "after the review", START_MS + STEP)


def test_equity_at_a_moment_is_the_last_mark_before_it(ledger: Ledger) -> None:
    assert ledger.equity_at(START_MS) is None
    ledger.record_equity(EquityPoint(START_MS, D(7), D(7), D(0), 0, D(0)))
    assert ledger.equity_at(START_MS - 1) is None
    assert ledger.equity_at(START_MS) == ledger.equity_at(START_MS + STEP) == D(7)


def test_a_mark_is_replaced_by_the_last_word_for_its_moment(ledger: Ledger) -> None:
    for value in ("1", "2"):
        ledger.record_equity(EquityPoint(START_MS, D(value), D(value), D(0), 0, D(0)))
    assert ledger.equity_curve()["equity"].to_list() == [2]


def test_money_must_be_an_exact_number(ledger: Ledger) -> None:
    for bad in (1.5, D("NaN")):
        point = EquityPoint(START_MS, bad, D(1), D(0), 0, D(0))  # type: ignore[arg-type]
        with pytest.raises(Exception, match="finite Decimals"):
            ledger.record_equity(point)
