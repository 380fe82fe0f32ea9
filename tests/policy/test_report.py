"""The figures of a run, against figures made by hand."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from policy.report import max_drawdown, paper_report, sharpe_of
from tests.support.booking import answer, fill, open_position
from tests.support.synthetic import START_MS
from tests.support.trading_day import STEP, SYMBOLS, trading_settings
from tradewind.ledger import EquityPoint, Ledger
from tradewind.market.store import BarStore
from tradewind.settings import Settings

D = Decimal
DAY = 86_400_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return trading_settings(tmp_path)


@pytest.fixture
def store(settings: Settings) -> BarStore:
    """BTC doubles, ETH halves, SOL stands still, over ten bars."""
    store = BarStore(settings.store_root, settings.market.set_id)
    for symbol, end in zip(SYMBOLS, (200.0, 50.0, 100.0), strict=True):
        closes = np.linspace(100, end, 10)
        frame = pl.DataFrame({"ts": [START_MS + i * STEP for i in range(10)], "close": closes})
        opens = pl.col("close").shift(1).fill_null(100.0)
        bars = frame.with_columns(open=opens, volume=1.0).with_columns(
            high=pl.max_horizontal("open", "close"), low=pl.min_horizontal("open", "close")
        )
        store.write_bars(symbol, "15m", bars)
    return store


def test_a_run_in_figures(settings: Settings, store: BarStore, tmp_path: Path) -> None:
    with Ledger(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        _, stop, _ = open_position(ledger, quantity="10")
        ledger.book(answer(stop), [fill(stop, "95", fee="0.04", ts=START_MS + 3 * STEP)])
        _, _, target = open_position(ledger, "ETHUSDT", quantity="10", bar=1)
        ledger.book(answer(target), [fill(target, "110", fee="0.04", ts=START_MS + 5 * STEP)])
        for place, value in ((1, "10000"), (2, "9949.92"), (5, "10049.84")):
            money = D(value)
            point = EquityPoint(START_MS + place * STEP, money, money, D(0), 0, D(0))
            ledger.record_equity(point)
        found = paper_report(settings, ledger, store, START_MS, START_MS + 10 * STEP)
    assert (found["decisions"], found["entries"], found["orders"], found["fills"]) == (2, 2, 6, 4)
    assert (found["trades"], found["win_rate"]) == (2, 0.5)
    assert found["net_pnl"] == pytest.approx(49.84)
    assert found["trades_net_pnl"] == pytest.approx(49.84)
    assert found["fees_paid"] == pytest.approx(0.16)
    assert found["profit_factor"] == pytest.approx(99.92 / 50.08)
    assert found["max_drawdown"] == pytest.approx(50.08 / 10_000)
    assert found["exits"] == {"stop": 1, "target": 1}
    assert found["sharpe_from"] == "bars"
    hold = found["buy_and_hold"]
    # Equal parts: +100 %, −50 %, 0 % make +16.67 %; taker 4 bps and slippage 3 bps, once.
    assert hold["return"] == pytest.approx(1 / 6 - (0.0004 + 0.0003), abs=1e-5)
    assert hold["net_pnl"] == pytest.approx(10_000 * hold["return"])
    assert found["no_trade"]["net_pnl"] == 0


def test_a_run_without_anything_has_no_figures_to_invent(
    settings: Settings, tmp_path: Path
) -> None:
    empty = BarStore(tmp_path / "none", settings.market.set_id)
    with Ledger(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.open_account(D(10_000), START_MS)
        found = paper_report(settings, ledger, empty, START_MS, START_MS + DAY)
    for name in ("win_rate", "profit_factor", "sharpe", "mean_r", "buy_and_hold"):
        assert found[name] is None, name
    assert (found["net_pnl"], found["max_drawdown"], found["trades"]) == (0, 0, 0)


def test_the_deepest_fall_is_from_the_peak_before_it() -> None:
    assert max_drawdown([100, 120, 90, 130, 104]) == 0.25
    assert max_drawdown([1, 2, 3]) == 0
    assert max_drawdown([5]) == 0


def test_sharpe_is_annual_from_days_once_there_are_ten() -> None:
    returns = np.array([0.01, -0.005, 0.02, 0.0, 0.01, -0.01, 0.015, 0.005, 0.0, 0.01, 0.002])
    marks = 100 * np.cumprod(np.append(1.0, 1 + returns))
    ts = START_MS + DAY * np.arange(1, len(returns) + 1)
    sharpe, basis = sharpe_of(ts, marks, 900_000)
    assert basis == "days"
    assert sharpe == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(365))
    assert sharpe_of(ts[:3], marks[:4], 900_000)[1] == "bars"
    assert sharpe_of(ts[:3], np.full(4, 100.0), 900_000)[0] is None


def test_marks_within_a_day_count_once() -> None:
    ts = START_MS + (DAY // 2) * np.arange(1, 25)
    marks = 100 + np.arange(25.0)
    daily = marks[::2]
    returns = np.diff(daily) / daily[:-1]
    assert sharpe_of(ts, marks, 900_000)[0] == pytest.approx(
        returns.mean() / returns.std(ddof=1) * math.sqrt(365)
    )


def test_a_later_stretch_starts_from_the_equity_it_found(
    settings: Settings, store: BarStore, tmp_path: Path
) -> None:
    with Ledger(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.open_account(D(10_000), START_MS)
        for place, value in ((0, "10000"), (2, "8000"), (5, "8400"), (9, "8200")):
            money = D(value)
            point = EquityPoint(START_MS + place * STEP, money, money, D(0), 0, D(0))
            ledger.record_equity(point)
        found = paper_report(settings, ledger, store, START_MS + 3 * STEP, START_MS + 10 * STEP)
        at_a_mark = paper_report(settings, ledger, store, START_MS + 5 * STEP, START_MS + 10 * STEP)
    assert (found["initial_equity"], found["net_pnl"]) == (8000, 200)
    assert found["max_drawdown"] == pytest.approx(200 / 8400)
    assert found["buy_and_hold"]["net_pnl"] == pytest.approx(8000 * found["buy_and_hold"]["return"])
    assert (at_a_mark["initial_equity"], at_a_mark["net_pnl"]) == (8400, -200)


def test_leaving_costs_neither_the_account_nor_holding(
    settings: Settings, store: BarStore, tmp_path: Path
) -> None:
    """A market that stands still takes from both what entering costs, and no more."""
    with Ledger(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        open_position(ledger, "SOLUSDT", quantity="10", fee="0.4")
        worth = ledger.cash()
        ledger.record_equity(EquityPoint(START_MS + STEP, worth, worth, D(0), 1, D(1000)))
        alone = settings.model_copy(
            update={"market": settings.market.model_copy(update={"symbols": ["SOLUSDT"]})}
        )
        found = paper_report(alone, ledger, store, START_MS, START_MS + 10 * STEP)
    assert found["net_pnl"] == pytest.approx(-0.4)
    assert found["buy_and_hold"]["return"] == pytest.approx(-(0.0004 + 0.0003), abs=1e-5)
    assert found["buy_and_hold"]["costs"] == pytest.approx(7.1)  # and 1 bp per 100,000
