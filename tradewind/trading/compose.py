"""The one place where a size is composed: base plan, factors, caps, limits, rounding.

margin = mathematician's margin × min(1, size from confidence / greatest size) × symbol record
× the mode's share of risk; then the least of that, the Kelly cap and the room under the hard
limits, in that order. Every factor is in the story and has an off switch (1.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tradewind.contracts import Reason, RefusalCode, Side, confidence
from tradewind.settings import Settings
from tradewind.trading.numbers import dec, figure, round_down
from tradewind.trading.record import SymbolRecord, fractional_kelly, record_factor
from tradewind.trading.risk import RiskAssessment
from tradewind.trading.sizing import BasePlan, mathematician, size_from_confidence
from tradewind.trading.thresholds import RegimeView, side_probability, size_multiplier
from tradewind.trading.views import MarketView, PortfolioView


@dataclass(frozen=True)
class Composition:
    """A size with its story; ``quantity`` is on the exchange's step, 0 where refused."""

    plan: BasePlan
    quantity: Decimal
    notional: Decimal
    margin: Decimal
    leverage: Decimal
    steps: tuple[Reason, ...]

    @property
    def refusal(self) -> RefusalCode | None:
        """Return why there is no size, None where there is one."""
        return next((s.code for s in self.steps if s.code is not None), None)


def proposed_leverage(settings: Settings) -> Decimal:
    """Return the least of the leverages proposed and the cap."""
    return min(settings.sizing.leverage, settings.risk.leverage_cap)


def base_plan(
    settings: Settings,
    market: MarketView,
    portfolio: PortfolioView,
    record: SymbolRecord,
    *,
    side: Side,
    p_up: float,
) -> BasePlan:
    """Return the mathematician's plan; its win rate is the record's once there is one."""
    known = record.trades >= settings.sizing.record_min_trades
    return mathematician(
        settings.sizing,
        balance=portfolio.equity,
        atr_pct=market.risk_atr / market.price,
        win_rate=record.win_rate if known else side_probability(p_up, side),
        price=market.price,
        side=side,
        leverage=proposed_leverage(settings),
    )


def _confidence_step(
    settings: Settings, market: MarketView, regime: RegimeView, p_up: float, epistemic_p: float
) -> tuple[float, Reason]:
    sizing = settings.sizing
    size = size_from_confidence(
        sizing,
        confidence=confidence(p_up),
        volatility=market.volatility,
        volatility_target=settings.thresholds.volatility_target,
        regime_multiplier=size_multiplier(sizing, regime),
        epistemic_p=epistemic_p,
        epistemic_p_limit=settings.serving.epistemic_p_limit,
    )
    share = min(1.0, size / (sizing.base * sizing.max_size_multiple))
    factor = share if sizing.size_from_confidence else 1.0
    text = f"confidence {confidence(p_up):.4f} in {regime.value} gives size {size:.4f}"
    return factor, Reason(
        step="size from confidence",
        text=f"{text}: factor {factor:.4f}{_switch(sizing.size_from_confidence)}",
        figures={"size_from_confidence": size, "factor_confidence": factor},
    )


def _record_step(settings: Settings, record: SymbolRecord) -> tuple[float, Reason]:
    on = settings.sizing.symbol_record
    factor = record_factor(settings.sizing, record) if on else 1.0
    return factor, Reason(
        step="symbol record",
        text=f"{record.trades} closed trades, {record.win_rate:.0%} won: "
        f"factor {factor:.2f}{_switch(on)}",
        figures={"record_trades": float(record.trades), "factor_record": factor},
    )


def _mode_step(settings: Settings, assessment: RiskAssessment) -> tuple[float, Reason]:
    on = settings.sizing.mode_risk
    factor = assessment.max_risk if on else 1.0
    return factor, Reason(
        step="mode's risk",
        text=f"{assessment.mode.value} risks {factor:.0%} of the size{_switch(on)}",
        figures={"factor_mode": factor},
    )


def _switch(on: bool) -> str:
    return "" if on else " (switched off)"


def _kelly_step(
    settings: Settings, record: SymbolRecord, portfolio: PortfolioView, notional: Decimal
) -> tuple[Decimal, Reason]:
    fraction = fractional_kelly(settings.sizing, record) if settings.sizing.kelly else None
    if fraction is None:
        text = f"no Kelly cap: {record.trades} of {settings.sizing.kelly_min_trades} trades"
        if not settings.sizing.kelly:
            text = "no Kelly cap (switched off)"
        return notional, Reason(step="kelly", text=text)
    figures: dict[str, float | str] = {"kelly_fraction": fraction}
    if fraction <= 0:
        text = f"fractional Kelly {fraction:.3f} of the symbol's own record: no trade"
        code = RefusalCode.KELLY_NEGATIVE
        return Decimal(0), Reason(step="kelly", text=text, code=code, figures=figures)
    cap = dec(fraction) * portfolio.equity
    text = f"fractional Kelly {fraction:.3f} allows a notional of {cap:.2f}"
    return min(notional, cap), Reason(
        step="kelly", text=text, figures={**figures, "kelly_cap": figure(cap)}
    )


def _limits_step(
    settings: Settings,
    symbol: str,
    portfolio: PortfolioView,
    leverage: Decimal,
    notional: Decimal,
    *,
    canary: bool,
) -> tuple[Decimal, Reason]:
    risk, equity = settings.risk, portfolio.equity
    used_margin = portfolio.exposure / leverage
    free_margin = min(portfolio.cash, equity) - used_margin
    rooms = [
        (risk.max_order_notional, RefusalCode.ORDER_NOTIONAL, "order notional"),
        (
            dec(risk.symbol_exposure) * equity - portfolio.exposure_of(symbol),
            RefusalCode.EXPOSURE,
            "exposure of the symbol",
        ),
        (
            dec(risk.total_exposure) * equity - portfolio.exposure,
            RefusalCode.EXPOSURE,
            "total exposure",
        ),
        # The broker asks for the margin and the entry's fee at once.
        (
            free_margin / (1 / leverage + settings.costs.taker),
            RefusalCode.NO_MARGIN,
            "free margin",
        ),
    ]
    if canary:  # a version on trial: its cap is on its own decisions only
        cap = dec(risk.canary_exposure) * equity
        rooms.append((cap, RefusalCode.EXPOSURE, "canary exposure"))
    room, code, name = min(rooms, key=lambda r: r[0])
    figures: dict[str, float | str] = {"limit_notional": figure(room), "limit_name": name}
    if room <= 0:
        text = f"no room is left under the limit on {name} ({room:.2f})"
        return Decimal(0), Reason(step="limits", text=text, code=code, figures=figures)
    verb = "cuts the notional to" if room < notional else "leaves room up to"
    text = f"the nearest limit, {name}, {verb} {room:.2f}"
    return min(notional, room), Reason(step="limits", text=text, figures=figures)


def compose(
    settings: Settings,
    *,
    side: Side,
    p_up: float,
    epistemic_p: float,
    regime: RegimeView,
    market: MarketView,
    portfolio: PortfolioView,
    record: SymbolRecord,
    assessment: RiskAssessment,
    canary: bool = False,
) -> Composition:
    """Return the size of an entry; nothing after this changes a quantity.

    ``canary``: the forecast is a canary version's, which has a small cap of its own.
    """
    plan = base_plan(settings, market, portfolio, record, side=side, p_up=p_up)
    leverage, price = plan.leverage, dec(market.price)
    steps = [
        Reason(
            step="mathematician",
            text=f"risking {settings.sizing.risk_per_trade:.1%} of {portfolio.equity:.2f} with a "
            f"stop at {plan.sl_pct:.2%}: margin {plan.margin_usd:.2f} × {leverage} leverage",
            figures={
                "base_margin": figure(plan.margin_usd),
                "base_notional": figure(plan.notional_usd),
                "sl_pct": figure(plan.sl_pct),
                "tp_pct": figure(plan.tp_pct),
                "win_rate": plan.confidence_score,
                "max_loss": figure(plan.max_loss_usd),
                "expected_profit": figure(plan.expected_profit_usd),
                "expected_value": figure(plan.expected_value_usd),
                "leverage": figure(leverage),
            },
        )
    ]
    product = Decimal(1)
    for factor, reason in (
        _confidence_step(settings, market, regime, p_up, epistemic_p),
        _record_step(settings, record),
        _mode_step(settings, assessment),
    ):
        product *= dec(factor)
        steps.append(reason)
    # A good record may restore what other factors took, never exceed the risk of one trade.
    notional = plan.notional_usd * min(product, Decimal(1))
    notional, kelly_step = _kelly_step(settings, record, portfolio, notional)
    steps.append(kelly_step)
    if kelly_step.code is None:
        notional, limits = _limits_step(
            settings, market.symbol, portfolio, leverage, notional, canary=canary
        )
        steps.append(limits)
    refused = any(step.code is not None for step in steps)
    quantity = Decimal(0) if refused else round_down(notional / price, settings.risk.quantity_step)
    if not refused:
        steps.append(_quantity_step(settings, notional, quantity, price))
    return Composition(
        plan=plan,
        quantity=quantity,
        notional=quantity * price,
        margin=quantity * price / leverage,
        leverage=leverage,
        steps=tuple(steps),
    )


def _quantity_step(
    settings: Settings, wanted: Decimal, quantity: Decimal, price: Decimal
) -> Reason:
    notional, step = quantity * price, settings.risk.quantity_step
    code: RefusalCode | None = None
    text = f"quantity {quantity} at {price} is a notional of {notional:.2f}"
    if quantity <= 0:
        code = RefusalCode.SIZE_ZERO
        text = f"a notional of {wanted:.2f} is less than one step of {step} at {price}"
    elif notional < settings.risk.min_notional:
        code = RefusalCode.BELOW_MIN_NOTIONAL
        text = f"notional {notional:.2f} below the least of {settings.risk.min_notional}"
    figures: dict[str, float | str] = {
        "wanted_notional": figure(wanted),
        "quantity": figure(quantity),
        "notional": figure(notional),
    }
    return Reason(step="quantity", text=text, code=code, figures=figures)
