"""Exits by time and by risk mode; price exits stand at the broker as stop and target."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tradewind.contracts import (
    Leg,
    OrderRequest,
    OrderType,
    Reason,
    client_order_id,
    decision_id,
)
from tradewind.settings import Settings
from tradewind.trading.numbers import round_up
from tradewind.trading.risk import RiskMode
from tradewind.trading.views import PositionView


@dataclass(frozen=True)
class Exit:
    """Why a position is left, wholly or in part, and the market order that does it."""

    reason: Reason
    order: OrderRequest


def bars_held(settings: Settings, position: PositionView, now_ms: int) -> int:
    """Return the closed bars since the bar of the entry decision."""
    step = settings.market.timeframe_ms
    return (now_ms // step * step - step - position.entry_bar_ts) // step


def _order(
    settings: Settings, position: PositionView, leg: Leg, quantity: Decimal, bar_ts: int, now: int
) -> OrderRequest:
    side = position.side.opposite
    entry_decision = decision_id(
        settings.engine.strategy, position.symbol, settings.market.timeframe, position.entry_bar_ts
    )
    return OrderRequest(
        client_id=client_order_id(position.symbol, bar_ts, side, leg),
        decision_id=entry_decision,
        symbol=position.symbol,
        side=side,
        type=OrderType.MARKET,
        leg=leg,
        quantity=quantity,
        reduce_only=True,
        created_ms=now,
    )


def manage_position(
    settings: Settings, position: PositionView, mode: RiskMode, now_ms: int
) -> tuple[Exit, ...]:
    """Return what must be closed of one position now: nothing, the half, or all.

    EMERGENCY_SHUTDOWN closes it; a position older than ``time_exit_horizons`` horizons is
    closed; DEFENSIVE_EXIT halves it. A close is keyed by the newest closed bar, the one
    halving of a position by its entry bar: asked again, the same client id comes back, which
    a broker refuses as a repeat.
    """
    if position.quantity == 0:
        return ()
    step = settings.market.timeframe_ms
    bar_ts = now_ms // step * step - step
    size = abs(position.quantity)
    held = bars_held(settings, position, now_ms)
    limit = settings.engine.time_exit_horizons * settings.training.horizon
    figures: dict[str, float | str] = {"bars_held": float(held), "limit_bars": float(limit)}
    if mode is RiskMode.EMERGENCY_SHUTDOWN:
        reason = Reason(step="exit", text="risk mode EMERGENCY_SHUTDOWN: close", figures=figures)
        return (Exit(reason, _order(settings, position, Leg.EXIT, size, bar_ts, now_ms)),)
    if held >= limit:
        text = f"time exit: held {held} bars of at most {limit:g}"
        reason = Reason(step="exit", text=text, figures=figures)
        return (Exit(reason, _order(settings, position, Leg.EXIT, size, bar_ts, now_ms)),)
    if mode is RiskMode.DEFENSIVE_EXIT:
        half = min(round_up(size / 2, settings.risk.quantity_step), size)
        reason = Reason(step="exit", text="risk mode DEFENSIVE_EXIT: halve", figures=figures)
        entry_bar = position.entry_bar_ts
        return (Exit(reason, _order(settings, position, Leg.REDUCE, half, entry_bar, now_ms)),)
    return ()
