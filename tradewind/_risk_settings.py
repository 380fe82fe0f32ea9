"""The settings of sizes and of the limits that hold them."""

from __future__ import annotations

from decimal import Decimal

from pydantic import Field

from tradewind._settings_base import Fraction, Section, Timeframe


class SizingSettings(Section):
    """Base sizing (the mathematician), confidence scaling and Kelly."""

    risk_per_trade: Fraction = 0.02
    margin_cap: Fraction = 0.10
    reward_risk: float = Field(2.0, gt=0)
    stop_atr: float = Field(1.5, gt=0)
    base: float = Field(1.0, gt=0)
    max_size_multiple: float = Field(2.0, ge=1)
    regime_trend: float = 1.2
    regime_neutral: float = 1.0
    regime_meanrev: float = 0.7
    leverage: Decimal = Decimal(3)
    kelly_fraction: Fraction = 0.5
    kelly_min_trades: int = Field(20, ge=1)
    base_stop_pct: float = Field(0.03, gt=0)
    risk_atr_timeframe: Timeframe = "1d"
    size_from_confidence: bool = Field(True, description="off switch: factor 1.0")
    symbol_record: bool = Field(True, description="off switch: factor 1.0")
    adaptive_stop: bool = Field(True, description="off: the mathematician's stop alone")
    mode_risk: bool = Field(True, description="off switch of the risk mode's share: factor 1.0")
    kelly: bool = Field(True, description="off: no Kelly cap")
    size_volatility_low: float = Field(0.25, gt=0, description="least volatility multiplier")
    size_volatility_high: float = Field(2.0, gt=0, description="greatest volatility multiplier")
    stop_volatility_low: float = Field(0.5, gt=0, description="narrowest adaptive stop, multiple")
    stop_volatility_high: float = Field(2.0, gt=0, description="widest adaptive stop, multiple")
    record_min_trades: int = Field(20, ge=1, description="trades before a record changes a size")
    record_days: float = Field(90, gt=0, description="older trades no longer count")
    record_low: Fraction = Field(0.35, description="win rate below which the size is cut")
    record_low_factor: float = Field(0.5, ge=0, le=1)
    record_high: Fraction = Field(0.55, description="win rate above which the size is raised")
    record_high_factor: float = Field(1.25, ge=1)


class RiskSettings(Section):
    """Risk gate and hard limits."""

    normal_min_conviction: Fraction = 0.20
    defensive_min_conviction: Fraction = 0.45
    critical_min_conviction: Fraction = 0.70
    defensive_risk: Fraction = 0.50
    critical_risk: Fraction = 0.25
    daily_loss: Fraction = 0.03
    peak_drawdown: Fraction = 0.20
    max_positions: int = Field(10, ge=1)
    leverage_cap: Decimal = Decimal(3)
    max_order_notional: Decimal = Decimal(100_000)
    symbol_exposure: Fraction = Field(0.5, description="notional of one symbol over equity")
    canary_exposure: Fraction = Field(
        0.02, description="notional of one decision that a canary answered, over equity"
    )
    total_exposure: float = Field(1.5, gt=0, description="total notional over equity")
    max_orders_per_minute: int = Field(60, ge=1)
    min_notional: Decimal = Decimal(5)
    quantity_step: Decimal = Decimal("0.00001")
    price_tick: Decimal = Decimal("0.01")
    losing_streak: int = Field(5, ge=1, description="longer streaks make the gate DEFENSIVE")
    record_disable_streak: int = Field(10, ge=1)
    record_disable_hours: float = Field(24, gt=0, description="how long such a symbol is off")
    defensive_at: float = Field(0.5, gt=0, description="share of the daily loss: DEFENSIVE")
    critical_at: float = Field(0.8, gt=0, description="share of the daily loss: CRITICAL")
    no_new_trades_at: float = Field(1.0, gt=0, description="share above which entries stop")
    defensive_exit_at: float = Field(1.5, gt=0, description="share: every position halved")
    emergency_at: float = Field(2.0, gt=0, description="share: everything closed")
    critical_allows_entries: bool = Field(True, description="off: CRITICAL takes no new trades")
    volatility_days: float = Field(90, gt=0, description="history behind the volatility level")
    volatility_low_share: Fraction = Field(0.25, description="lowest share of the history: low")
    volatility_high_share: Fraction = Field(0.10, description="top share of the history: high")
