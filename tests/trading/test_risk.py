"""Modes, gate and hard limits."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.trading import PORTFOLIO, SYMBOL, holding, position
from tradewind.contracts import Leg, OrderRequest, OrderType, RefusalCode, Side
from tradewind.errors import TradewindError
from tradewind.settings import RiskSettings
from tradewind.trading.risk import (
    ExitMode,
    RiskMode,
    assess,
    check_hard_limits,
    drawdown,
    risk_gate,
    volatility_level,
)
from tradewind.trading.thresholds import RegimeView
from tradewind.trading.views import PortfolioView

RISK = RiskSettings()


def account(equity: str, **changes: Any) -> PortfolioView:
    return replace(PORTFOLIO, equity=Decimal(equity), **changes)


@pytest.mark.parametrize(
    ("equity", "mode"),
    [
        ("10000", RiskMode.NORMAL),
        ("9850.01", RiskMode.NORMAL),
        ("9850", RiskMode.DEFENSIVE),  # 50 % of 3 %
        ("9760", RiskMode.CRITICAL),  # 80 %
        ("9700", RiskMode.CRITICAL),  # the limit itself
        ("9699.99", RiskMode.NO_NEW_TRADES),
        ("9550", RiskMode.DEFENSIVE_EXIT),  # 150 %
        ("9400", RiskMode.EMERGENCY_SHUTDOWN),  # 200 %
        ("0", RiskMode.EMERGENCY_SHUTDOWN),
        ("-5", RiskMode.EMERGENCY_SHUTDOWN),
    ],
)
def test_mode_by_the_days_drawdown(equity: str, mode: RiskMode) -> None:
    assert assess(RISK, account(equity)).mode is mode


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({"losing_streak": 5}, RiskMode.NORMAL),
        ({"losing_streak": 6}, RiskMode.DEFENSIVE),
        ({"volatility_level": "high"}, RiskMode.DEFENSIVE),
        ({"volatility_level": "low"}, RiskMode.NORMAL),
        ({"kill_switch": True}, RiskMode.EMERGENCY_SHUTDOWN),
        ({"peak_equity": Decimal(12_500)}, RiskMode.NORMAL),
        ({"peak_equity": Decimal(12_501)}, RiskMode.NO_NEW_TRADES),
    ],
)
def test_mode_by_other_causes(changes: dict[str, Any], mode: RiskMode) -> None:
    assert assess(RISK, replace(PORTFOLIO, **changes)).mode is mode


def test_the_strictest_mode_wins_and_every_cause_is_told() -> None:
    state = assess(RISK, account("9600", losing_streak=7, volatility_level="high"))
    assert state.mode is RiskMode.NO_NEW_TRADES
    assert state.refusal is RefusalCode.DAILY_LOSS
    assert "7 losses in a row" in state.text
    assert "4.00%" in state.text


def test_no_new_trades_holds_until_the_next_utc_day() -> None:
    recovered = account("9990", day_low_equity=Decimal(9_650))
    assert assess(RISK, recovered).mode is RiskMode.NO_NEW_TRADES
    next_day = replace(recovered, day_open_equity=Decimal(9_990), day_low_equity=Decimal(9_990))
    assert assess(RISK, next_day).mode is RiskMode.NORMAL


def test_defensive_ends_with_its_cause() -> None:
    assert assess(RISK, account("9990", day_low_equity=Decimal(9_800))).mode is RiskMode.NORMAL


def test_what_each_mode_allows() -> None:
    normal, defensive, critical, stopped = (
        assess(RISK, account(e)) for e in ("10000", "9850", "9750", "9690")
    )
    assert (normal.min_conviction, normal.max_risk) == (0.20, 1.0)
    assert (defensive.min_conviction, defensive.max_risk) == (0.45, 0.50)
    assert (critical.min_conviction, critical.max_risk) == (0.70, 0.25)
    assert critical.allow_new_trades
    assert (stopped.allow_new_trades, stopped.max_risk) == (False, 0.0)


def test_critical_may_be_set_to_take_no_entries() -> None:
    strict = RiskSettings(critical_allows_entries=False)
    state = assess(strict, account("9750"))
    assert state.mode is RiskMode.CRITICAL
    gate = risk_gate(strict, state, conviction=1.0, open_positions=0)
    assert gate.code is RefusalCode.DAILY_LOSS


def test_exit_mode_follows_a_trend_in_normal_alone() -> None:
    assert assess(RISK, PORTFOLIO, RegimeView.TREND).exit_mode is ExitMode.TREND_FOLLOW
    assert assess(RISK, PORTFOLIO, RegimeView.NEUTRAL).exit_mode is ExitMode.DEFENSIVE_TRAIL
    calm = assess(RISK, account("9850"), RegimeView.TREND)
    assert calm.exit_mode is ExitMode.DEFENSIVE_TRAIL


@pytest.mark.parametrize(
    ("equity", "conviction", "open_positions", "code"),
    [
        ("10000", 0.20, 9, None),
        ("10000", 0.19, 0, RefusalCode.LOW_CONVICTION),
        ("9850", 0.44, 0, RefusalCode.LOW_CONVICTION),
        ("9850", 0.45, 0, None),
        ("9750", 0.69, 0, RefusalCode.LOW_CONVICTION),
        ("10000", 0.90, 10, RefusalCode.MAX_POSITIONS),
    ],
)
def test_gate(
    equity: str, conviction: float, open_positions: int, code: RefusalCode | None
) -> None:
    state = assess(RISK, account(equity))
    gate = risk_gate(RISK, state, conviction=conviction, open_positions=open_positions)
    assert gate.code is code


@given(st.decimals("-1e6", "1e6", places=2), st.decimals("-1e6", "1e6", places=2))
def test_less_equity_is_never_a_milder_mode(one: Decimal, other: Decimal) -> None:
    poor, rich = sorted((one, other))
    modes = [assess(RISK, replace(PORTFOLIO, equity=e)).mode.severity for e in (rich, poor)]
    assert modes == sorted(modes)


@given(st.decimals("-1e6", "1e6", places=2), st.decimals("-1e6", "1e6", places=2))
def test_drawdown_is_a_fraction(start: Decimal, now: Decimal) -> None:
    assert 0 <= drawdown(start, now) <= 1


def test_volatility_level_is_its_place_among_ninety_days() -> None:
    history = [i / 100 for i in range(100)]
    levels = [volatility_level(RISK, v, history) for v in (0.0, 0.24, 0.25, 0.89, 0.90, 5.0)]
    assert levels == ["low", "low", "normal", "normal", "high", "high"]
    assert volatility_level(RISK, 0.5, []) == "normal"


def test_an_account_that_is_no_number_is_refused() -> None:
    with pytest.raises(TradewindError, match="equity = NaN"):
        account("NaN")


def order(quantity: str = "0.01", **changes: Any) -> OrderRequest:
    values: dict[str, Any] = {
        "client_id": "tw-x",
        "decision_id": "d",
        "symbol": SYMBOL,
        "side": Side.BUY,
        "type": OrderType.MARKET,
        "leg": Leg.ENTRY,
        "quantity": Decimal(quantity),
        "leverage": Decimal(3),
        "created_ms": 0,
    }
    return OrderRequest(**{**values, **changes})


NINE = tuple(position(f"S{i}USDT", "0.01") for i in range(9))


@pytest.mark.parametrize(
    ("placed", "portfolio", "code"),
    [
        (order(), PORTFOLIO, None),
        (order(), replace(PORTFOLIO, kill_switch=True), RefusalCode.KILL_SWITCH),
        (order(), account("9699"), RefusalCode.DAILY_LOSS),
        (order(), holding(*NINE), None),
        (order(), holding(*NINE, position()), RefusalCode.MAX_POSITIONS),
        (order(leverage=Decimal("3.1")), PORTFOLIO, RefusalCode.LEVERAGE),
        (order("1.2"), PORTFOLIO, RefusalCode.ORDER_NOTIONAL),
        (order("0.05"), PORTFOLIO, None),  # 5,000 is one half of the equity
        (order("0.051"), PORTFOLIO, RefusalCode.EXPOSURE),
        (order(), holding(position(SYMBOL, "-45")), RefusalCode.EXPOSURE),
        (order("0.05"), holding(position("ETHUSDT", "101")), RefusalCode.EXPOSURE),
    ],
)
def test_hard_limits(
    placed: OrderRequest, portfolio: PortfolioView, code: RefusalCode | None
) -> None:
    broken = check_hard_limits(RISK, placed, 100_000, portfolio)
    assert (broken.code if broken else None) is code


def test_leaving_is_never_forbidden() -> None:
    portfolio = account("1", kill_switch=True)
    assert check_hard_limits(RISK, order("50", reduce_only=True), 100_000, portfolio) is None
