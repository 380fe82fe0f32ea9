"""Where a trade ends: the adaptive stop and the one exit plan of an intent."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tradewind.contracts import Side
from tradewind.settings import SizingSettings
from tradewind.trading.numbers import clip, dec, round_down, round_up
from tradewind.trading.sizing import BasePlan


def adaptive_stop_pct(
    settings: SizingSettings, volatility: float, volatility_target: float
) -> Decimal:
    """Return the adaptive stop's distance as a fraction: wide in high volatility."""
    widen = clip(
        volatility / volatility_target, settings.stop_volatility_low, settings.stop_volatility_high
    )
    return dec(settings.base_stop_pct) * dec(widen)


def adaptive_stop(
    settings: SizingSettings,
    *,
    entry: float | Decimal,
    side: Side,
    volatility: float,
    volatility_target: float,
) -> Decimal:
    """Return ``entry × (1 ∓ base_stop_pct × clip(volatility / target))``, shorts mirrored."""
    pct = adaptive_stop_pct(settings, volatility, volatility_target)
    return dec(entry) * (1 - side.sign * pct)


@dataclass(frozen=True)
class ExitPlan:
    """Stop and target of an intent, on the exchange's price ticks."""

    stop_price: Decimal
    target_price: Decimal
    stop_pct: Decimal
    target_pct: Decimal
    tightened: bool


def exit_plan(
    settings: SizingSettings,
    plan: BasePlan,
    *,
    price: float | Decimal,
    side: Side,
    volatility: float,
    volatility_target: float,
    fees: Decimal,
    tick: Decimal,
) -> ExitPlan | None:
    """Return the mathematician's exits, net of fees, the adaptive stop only tightening.

    ``fees`` (round trip, a fraction) come off the stop's distance and onto the target's, so
    that the planned loss and gain hold after fees. The stop is rounded towards the price (it
    never costs more than planned), the target too. Returns None where no such stop or target
    can stand: nearer than the fees, beyond zero, or lost in one tick.
    """
    stop_pct = plan.sl_pct
    adaptive = adaptive_stop_pct(settings, volatility, volatility_target)
    tightened = settings.adaptive_stop and adaptive < stop_pct
    if tightened:
        stop_pct = adaptive
    stop_pct, target_pct = stop_pct - fees, plan.tp_pct + fees
    # A short's target lies at price × (1 − target_pct); longs are held to the same bound.
    if stop_pct <= 0 or max(stop_pct, target_pct) >= 1:
        return None
    level = dec(price)
    stop, target = level * (1 - side.sign * stop_pct), level * (1 + side.sign * target_pct)
    if side is Side.BUY:
        stop, target = round_up(stop, tick), round_down(target, tick)
    else:
        stop, target = round_down(stop, tick), round_up(target, tick)
    if not 0 < min(stop, target) < level < max(stop, target):
        return None
    if (stop < level) is not (side is Side.BUY):
        return None
    return ExitPlan(stop, target, stop_pct, target_pct, tightened)
