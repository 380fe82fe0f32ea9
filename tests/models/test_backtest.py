"""The after-cost backtest: costs always in, one trade a symbol, defined without trades."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.models.backtest import (
    NO_LOSS,
    Backtest,
    backtest,
    deflated_sharpe,
    drawdown,
    round_trip,
    sharpe,
)
from tradewind.models.base import FloatArray
from tradewind.settings import MS_PER_DAY, Settings

STEP = 900_000
HOLD_MS = 16 * STEP
COST = 0.0015


def _run(p: FloatArray, fwd_ret: FloatArray, *, symbols: int = 1, cost: float = COST) -> Backtest:
    bars = len(p) // symbols
    return backtest(
        np.repeat(np.arange(bars, dtype=np.int64), symbols) * STEP,
        np.tile(np.arange(symbols), bars),
        p,
        fwd_ret,
        threshold=0.55,
        horizon_ms=HOLD_MS,
        cost=cost,
    )


def test_the_round_trip_is_the_one_that_the_policy_expects(
    make_settings: Callable[..., Settings],
) -> None:
    # taker both ways, 3 bps slippage a side on a normal day, 4 of 8 hours of funding
    assert round_trip(make_settings()) == pytest.approx(2 * 0.0004 + 2 * 0.0003 + 0.00005)


def test_a_trade_holds_its_horizon_and_pays_the_round_trip() -> None:
    found = _run(np.full(64, 0.6), np.full(64, np.log(1.01)))
    assert found.trade_ts.tolist() == [0, HOLD_MS, 2 * HOLD_MS, 3 * HOLD_MS]
    assert found.trade_net == pytest.approx([0.01 - COST] * 4)
    assert found.metrics["trades"] == 4
    assert found.metrics["win_rate"] == 1
    assert found.metrics["profit_factor"] == NO_LOSS
    assert found.metrics["net_return"] == pytest.approx(4 * (0.01 - COST), abs=2e-4)


def test_a_short_earns_the_fall() -> None:
    found = _run(np.full(16, 0.4), np.full(16, np.log(0.98)))
    assert found.trade_net == pytest.approx([0.02 - COST])


def test_rows_that_are_not_allowed_do_not_enter() -> None:
    p, ret = np.full(32, 0.6), np.zeros(32)
    ts, symbol = np.arange(32) * STEP, np.zeros(32, dtype=np.int64)
    found = backtest(
        ts,
        symbol,
        p,
        ret,
        threshold=0.55,
        horizon_ms=HOLD_MS,
        cost=COST,
        allowed=np.arange(32) >= 20,
    )
    assert found.trade_ts.tolist() == [20 * STEP]


def test_without_trades_every_metric_is_zero() -> None:
    found = _run(np.full(200, 0.5), np.full(200, 0.01))
    assert set(found.metrics.values()) == {0.0}
    assert found.equity.tolist() == [1.0] * len(found.day)


def test_equity_and_drawdown_by_hand() -> None:
    rises = np.concatenate([np.full(96, 0.01), np.full(96, -0.02), np.zeros(96)])
    found = _run(np.full(288, 0.9), rises, cost=0.0)
    assert len(found.day) == 4
    assert found.metrics["profit_factor"] < 1
    assert found.metrics["max_drawdown"] == pytest.approx(drawdown(found.equity).max())
    assert drawdown(np.array([1.2, 0.9, 1.3])) == pytest.approx([0, 0.25, 0])
    assert drawdown(np.array([0.8])) == pytest.approx([0.2])


def test_holding_follows_the_market_and_pays_nothing() -> None:
    returns = np.full(96 * 3, np.log(1.01))
    found = _run(np.full(len(returns), 0.5), returns)
    assert found.held[-1] == pytest.approx(1.01**18)
    every_third = np.arange(len(returns)) % 3 == 0
    thinned = backtest(
        np.flatnonzero(every_third) * STEP,
        np.zeros(every_third.sum(), dtype=np.int64),
        np.full(every_third.sum(), 0.5),
        returns[every_third],
        threshold=0.55,
        horizon_ms=HOLD_MS,
        cost=COST,
    )
    assert thinned.held[-1] == pytest.approx(1.01**18)


def test_sharpe_counts_idle_days() -> None:
    busy, idle = np.array([0.01, 0.02, 0.01]), np.array([0.01, 0.02, 0.01, 0.0, 0.0, 0.0])
    assert sharpe(busy) > sharpe(idle) > 0
    assert sharpe(np.zeros(5)) == 0


def test_deflated_sharpe_falls_with_the_number_of_trials_and_is_a_coin_flip_without_skill() -> None:
    rng = np.random.default_rng(0)
    good = rng.normal(0.001, 0.01, 365)
    one, ten, many = (deflated_sharpe(good, trials) for trials in (1, 10, 1_000))
    assert one > ten > many
    blind = [deflated_sharpe(rng.normal(0, 0.01, 365), 1) for _ in range(300)]
    assert np.mean(blind) == pytest.approx(0.5, abs=0.06)
    best = [
        max(deflated_sharpe(rng.normal(0, 0.01, 365), 20) for _ in range(20)) for _ in range(40)
    ]
    assert np.median(best) == pytest.approx(0.5, abs=0.2)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    bars=st.integers(1, 300),
    symbols=st.integers(1, 3),
    spread=st.floats(0, 0.3),
)
def test_metrics_are_finite_trades_do_not_overlap_and_costs_never_help(
    seed: int, bars: int, symbols: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    n = bars * symbols
    p = np.clip(rng.normal(0.5, spread, n), 0.01, 0.99)
    returns = rng.normal(0, 0.01, n)
    found, free = _run(p, returns, symbols=symbols), _run(p, returns, symbols=symbols, cost=0.0)
    assert np.isfinite(list(found.metrics.values())).all()
    assert found.metrics["trades"] == free.metrics["trades"] <= symbols * -(-bars // 16)
    assert np.all(found.trade_net < free.trade_net)
    assert found.metrics["net_return"] <= free.metrics["net_return"]
    assert len(found.day) == len(found.equity) == len(found.held)
    assert found.day[0] % MS_PER_DAY == 0
