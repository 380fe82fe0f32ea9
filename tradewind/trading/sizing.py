"""How much: size from confidence, the trading mathematician's base plan, and Kelly."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tradewind.contracts import Side
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import SizingSettings
from tradewind.trading.numbers import clip, dec


def _refuse(field: str, value: object, remedy: str) -> TradewindError:
    return TradewindError(ErrorCode.BAD_INPUT, f"{field} = {value}", remedy)


def size_from_confidence(
    settings: SizingSettings,
    *,
    confidence: float,
    volatility: float,
    volatility_target: float,
    regime_multiplier: float,
    epistemic_p: float,
    epistemic_p_limit: float,
    base: float | None = None,
    max_size: float | None = None,
) -> float:
    """Return ``base × confidence × regime × clip(target / volatility)``, at most ``max_size``.

    Zero where the prediction is too uncertain. A volatility of zero counts as the calmest
    market the clip knows. ``base`` and ``max_size`` default to the settings'.
    """
    if epistemic_p > epistemic_p_limit:
        return 0.0
    base = settings.base if base is None else base
    limit = base * settings.max_size_multiple if max_size is None else max_size
    low, high = settings.size_volatility_low, settings.size_volatility_high
    calm = high if volatility <= 0 else clip(volatility_target / volatility, low, high)
    return min(base * confidence * regime_multiplier * calm, limit)


@dataclass(frozen=True)
class BasePlan:
    """The mathematician's answer; ``*_pct`` are fractions of the price, money is Decimal."""

    margin_usd: Decimal
    notional_usd: Decimal
    quantity: Decimal
    leverage: Decimal
    sl_pct: Decimal
    tp_pct: Decimal
    sl_price: Decimal
    tp_price: Decimal
    expected_profit_usd: Decimal
    expected_value_usd: Decimal
    max_loss_usd: Decimal
    confidence_score: float


def mathematician(
    settings: SizingSettings,
    *,
    balance: Decimal,
    atr_pct: float,
    win_rate: float,
    price: float | Decimal,
    side: Side = Side.BUY,
    leverage: Decimal | None = None,
) -> BasePlan:
    """Size a trade so that its stop never costs more than the risk.

    Parameters
    ----------
    balance
        Account value, quote currency.
    atr_pct
        ATR of the risk timeframe over the price.
    win_rate
        Probability of reaching the target first, used for the expected value alone.

    Raises
    ------
    TradewindError
        ``bad_input`` for a balance, price, ATR or leverage that is not positive and finite.
    """
    level, atr = dec(price), dec(atr_pct)
    geared = settings.leverage if leverage is None else leverage
    for name, value in (
        ("price", level),
        ("atr_pct", atr),
        ("balance", balance),
        ("leverage", geared),
    ):
        if not value.is_finite() or value <= 0:
            raise _refuse(name, value, "Give a positive, finite number")
    sl = dec(settings.stop_atr) * atr
    tp = dec(settings.reward_risk) * sl
    by_risk = balance * dec(settings.risk_per_trade) / sl / geared
    margin = min(by_risk, balance * dec(settings.margin_cap))
    notional = margin * geared
    won, lost = notional * tp, notional * sl
    p = dec(win_rate)
    return BasePlan(
        margin_usd=margin,
        notional_usd=notional,
        quantity=notional / level,
        leverage=geared,
        sl_pct=sl,
        tp_pct=tp,
        sl_price=level * (1 - side.sign * sl),
        tp_price=level * (1 + side.sign * tp),
        expected_profit_usd=won,
        expected_value_usd=p * won - (1 - p) * lost,
        max_loss_usd=lost,
        confidence_score=win_rate,
    )


def kelly(p: float, b: float) -> float:
    """Return the full Kelly fraction ``(p·b − q) / b = p − q / b``; negative means no trade.

    Raises
    ------
    TradewindError
        ``bad_input`` where ``p`` is no probability or the odds ``b`` are not positive.
    """
    if not 0 <= p <= 1:
        raise _refuse("win probability", p, "Give a probability between 0 and 1")
    if not b > 0:
        raise _refuse("win/loss ratio", b, "Give positive odds")
    return p - (1 - p) / b  # this form holds for any odds, unbounded ones too
