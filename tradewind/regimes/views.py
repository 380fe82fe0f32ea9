"""Views of a regime: each one small mapping that knows every member."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from tradewind.regimes.kinds import Regime


class RegimeView(StrEnum):
    """What entry thresholds, sizes and the served answer use."""

    TREND = "trend"
    NEUTRAL = "neutral"
    MEANREV = "meanrev"


class DirectionView(StrEnum):
    """Where the market is heading."""

    BULL = "bull"
    BEAR = "bear"
    SIDEWAYS = "sideways"


class ConditionView(StrEnum):
    """How the market moves; what exits are placed by."""

    TRENDING = "trending"
    RANGING = "ranging"
    CHOPPY = "choppy"
    BREAKOUT = "breakout"


REGIME_VIEW: Mapping[Regime, RegimeView] = {
    Regime.TREND_UP: RegimeView.TREND,
    Regime.TREND_DOWN: RegimeView.TREND,
    Regime.RANGE_LOW_VOL: RegimeView.MEANREV,
    Regime.RANGE_HIGH_VOL: RegimeView.MEANREV,
    Regime.BREAKOUT: RegimeView.TREND,
    Regime.HIGH_VOLATILITY: RegimeView.NEUTRAL,
    Regime.ILLIQUID: RegimeView.NEUTRAL,
    Regime.UNKNOWN: RegimeView.NEUTRAL,
}

DIRECTION_VIEW: Mapping[Regime, DirectionView] = {
    Regime.TREND_UP: DirectionView.BULL,
    Regime.TREND_DOWN: DirectionView.BEAR,
    Regime.RANGE_LOW_VOL: DirectionView.SIDEWAYS,
    Regime.RANGE_HIGH_VOL: DirectionView.SIDEWAYS,
    Regime.BREAKOUT: DirectionView.SIDEWAYS,
    Regime.HIGH_VOLATILITY: DirectionView.SIDEWAYS,
    Regime.ILLIQUID: DirectionView.SIDEWAYS,
    Regime.UNKNOWN: DirectionView.SIDEWAYS,
}

CONDITION_VIEW: Mapping[Regime, ConditionView] = {
    Regime.TREND_UP: ConditionView.TRENDING,
    Regime.TREND_DOWN: ConditionView.TRENDING,
    Regime.RANGE_LOW_VOL: ConditionView.RANGING,
    Regime.RANGE_HIGH_VOL: ConditionView.RANGING,
    Regime.BREAKOUT: ConditionView.BREAKOUT,
    Regime.HIGH_VOLATILITY: ConditionView.CHOPPY,
    Regime.ILLIQUID: ConditionView.CHOPPY,
    Regime.UNKNOWN: ConditionView.CHOPPY,
}


def regime_view(regime: Regime) -> RegimeView:
    """Return trend, neutral or meanrev."""
    return REGIME_VIEW[regime]


def direction_view(regime: Regime) -> DirectionView:
    """Return bull, bear or sideways; a breakout has no direction of its own yet."""
    return DIRECTION_VIEW[regime]


def condition_view(regime: Regime) -> ConditionView:
    """Return trending, ranging, choppy or breakout."""
    return CONDITION_VIEW[regime]
