"""The probability an entry needs: moved by regime, raised by volatility, bounded."""

from __future__ import annotations

from tradewind.contracts import Side
from tradewind.regimes.views import RegimeView as RegimeView
from tradewind.settings import SizingSettings, ThresholdSettings
from tradewind.trading.numbers import clip


def entry_threshold(settings: ThresholdSettings, regime: RegimeView, volatility: float) -> float:
    """Return the threshold on the side's probability.

    ``base + shift(regime) + slope × max(0, volatility − target)``, within [low, high].
    """
    shift = {
        RegimeView.TREND: settings.trend,
        RegimeView.NEUTRAL: settings.neutral,
        RegimeView.MEANREV: settings.meanrev,
    }[regime]
    rise = settings.volatility_slope * max(0.0, volatility - settings.volatility_target)
    return clip(settings.base + shift + rise, settings.low, settings.high)


def size_multiplier(settings: SizingSettings, regime: RegimeView) -> float:
    """Return the regime's multiplier of the size from confidence."""
    return {
        RegimeView.TREND: settings.regime_trend,
        RegimeView.NEUTRAL: settings.regime_neutral,
        RegimeView.MEANREV: settings.regime_meanrev,
    }[regime]


def direction(p_up: float) -> Side | None:
    """Return the more probable side; None where neither is (p_up exactly one half)."""
    if p_up == 0.5:
        return None
    return Side.BUY if p_up > 0.5 else Side.SELL


def side_probability(p_up: float, side: Side) -> float:
    """Return the probability that ``side`` is right: p_up, for a short 1 − p_up."""
    return p_up if side is Side.BUY else 1.0 - p_up
