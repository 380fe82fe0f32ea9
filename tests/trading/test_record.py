"""A symbol's record, its factor, and Kelly from it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.errors import TradewindError
from tradewind.settings import MS_PER_DAY, RiskSettings, SizingSettings
from tradewind.trading.record import (
    MS_PER_HOUR,
    ClosedTrade,
    SymbolRecord,
    fractional_kelly,
    record_factor,
    symbol_record,
)

SIZING, RISK = SizingSettings(), RiskSettings()
NOW = 1_735_689_600_000


def trades(*results: float) -> list[ClosedTrade]:
    """Return trades closed an hour apart, the last one hour ago."""
    start = NOW - len(results) * MS_PER_HOUR
    return [
        ClosedTrade(start + i * MS_PER_HOUR, Decimal(str(r)) * 10, r) for i, r in enumerate(results)
    ]


def summary(*results: float) -> SymbolRecord:
    return symbol_record(SIZING, RISK, trades(*results), NOW)


def test_summary() -> None:
    record = summary(2.0, -1.0, 1.0, -0.5, -0.5)
    assert (record.trades, record.wins, record.streak) == (5, 2, -2)
    assert record.win_rate == pytest.approx(0.4)
    assert record.mean_r == pytest.approx(0.2)
    assert record.avg_win_r == pytest.approx(1.5)
    assert record.avg_loss_r == pytest.approx(2 / 3)
    assert record.disabled_until_ms == 0


def test_order_given_does_not_matter() -> None:
    given_trades = trades(2.0, -1.0, 1.0, 1.0)
    shuffled = [given_trades[i] for i in (2, 0, 3, 1)]
    assert symbol_record(SIZING, RISK, shuffled, NOW) == summary(2.0, -1.0, 1.0, 1.0)


def test_ten_losses_in_a_row_disable_for_a_set_time() -> None:
    assert summary(*[-1.0] * 9).disabled_until_ms == 0
    record = summary(*[-1.0] * 10)
    last = NOW - MS_PER_HOUR
    assert record.disabled_until_ms == last + 24 * MS_PER_HOUR


def test_old_losses_leave_the_record() -> None:
    old = trades(*[-1.0] * 30)
    assert symbol_record(SIZING, RISK, old, NOW + 91 * MS_PER_DAY) == SymbolRecord()


@pytest.mark.parametrize(
    ("wins", "count", "factor"),
    [
        (0, 19, 1.0),
        (6, 20, 0.5),
        (7, 20, 1.0),  # 35 % itself
        (11, 20, 1.0),  # 55 % itself
        (12, 20, 1.25),
    ],
)
def test_factor(wins: int, count: int, factor: float) -> None:
    assert record_factor(SIZING, SymbolRecord(trades=count, wins=wins)) == factor


def test_kelly_waits_for_enough_trades() -> None:
    good = {"avg_win_r": 2.0, "avg_loss_r": 1.0}
    assert fractional_kelly(SIZING, SymbolRecord(trades=19, wins=19, **good)) is None
    half = fractional_kelly(SIZING, SymbolRecord(trades=20, wins=12, **good))
    assert half == pytest.approx(0.20)


def test_kelly_without_wins_or_without_losses() -> None:
    assert fractional_kelly(SIZING, SymbolRecord(trades=20, avg_loss_r=1.0)) == -1.0
    all_won = SymbolRecord(trades=20, wins=20, avg_win_r=1.0)
    assert fractional_kelly(SIZING, all_won) == pytest.approx(0.5)


@given(st.lists(st.floats(-5, 5), max_size=40))
def test_a_record_of_any_trades_is_consistent(results: list[float]) -> None:
    record = summary(*results)
    assert 0 <= record.wins <= record.trades == len(results)
    assert abs(record.streak) <= record.trades
    assert record.avg_win_r >= 0
    assert record.avg_loss_r >= 0
    fraction = fractional_kelly(SIZING, record)
    assert fraction is None or fraction <= SIZING.kelly_fraction


def test_a_record_that_is_no_number_is_refused() -> None:
    with pytest.raises(TradewindError, match="avg_win_r = nan"):
        SymbolRecord(trades=20, wins=10, avg_win_r=float("nan"))
