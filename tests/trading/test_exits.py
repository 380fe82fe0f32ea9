"""Exits by time and by mode."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from tests.support.trading import BAR_TS, NOW_MS, STEP_MS, position
from tradewind.contracts import Leg, OrderType, Side, decision_id
from tradewind.settings import Settings
from tradewind.trading.exits import bars_held, manage_position
from tradewind.trading.risk import RiskMode


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.mark.parametrize(("held", "closes"), [(0, False), (31, False), (32, True), (500, True)])
def test_time_exit_after_two_horizons(settings: Settings, held: int, closes: bool) -> None:
    now = NOW_MS + held * STEP_MS
    exits = manage_position(settings, position(), RiskMode.NORMAL, now)
    assert bars_held(settings, position(), now) == held
    assert bool(exits) is closes
    if closes:
        order = exits[0].order
        assert "time exit" in exits[0].reason.text
        assert (order.side, order.leg, order.type) == (Side.SELL, Leg.EXIT, OrderType.MARKET)
        assert order.reduce_only
        assert order.quantity == 1
        assert order.decision_id == decision_id("tradewind", "ETHUSDT", "15m", BAR_TS)


def test_a_short_is_bought_back_whole(settings: Settings) -> None:
    (closing,) = manage_position(
        settings, position(quantity="-2.5"), RiskMode.EMERGENCY_SHUTDOWN, NOW_MS
    )
    assert closing.order.side is Side.BUY
    assert closing.order.quantity == Decimal("2.5")


@pytest.mark.parametrize(
    ("quantity", "half"), [("1", "0.5"), ("0.00003", "0.00002"), ("0.00001", "0.00001")]
)
def test_defensive_exit_halves_once(settings: Settings, quantity: str, half: str) -> None:
    held = position(quantity=quantity)
    (first,) = manage_position(settings, held, RiskMode.DEFENSIVE_EXIT, NOW_MS)
    (again,) = manage_position(settings, held, RiskMode.DEFENSIVE_EXIT, NOW_MS + 3 * STEP_MS)
    assert first.order.quantity == Decimal(half)
    assert first.order.reduce_only
    assert first.order.client_id == again.order.client_id  # a repeat is refused, not doubled


def test_closing_and_halving_have_different_ids(settings: Settings) -> None:
    (halving,) = manage_position(settings, position(), RiskMode.DEFENSIVE_EXIT, NOW_MS)
    (closing,) = manage_position(settings, position(), RiskMode.EMERGENCY_SHUTDOWN, NOW_MS)
    assert halving.order.client_id != closing.order.client_id
    assert max(len(e.order.client_id) for e in (halving, closing)) <= 36


@pytest.mark.parametrize(
    "mode", [RiskMode.NORMAL, RiskMode.DEFENSIVE, RiskMode.CRITICAL, RiskMode.NO_NEW_TRADES]
)
def test_milder_modes_leave_positions_alone(settings: Settings, mode: RiskMode) -> None:
    assert manage_position(settings, position(), mode, NOW_MS) == ()


def test_a_closed_position_needs_nothing(settings: Settings) -> None:
    flat = position(quantity="0")
    assert manage_position(settings, flat, RiskMode.EMERGENCY_SHUTDOWN, NOW_MS) == ()
