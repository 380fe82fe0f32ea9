"""Every view knows every regime, and the golden cases hold through the views."""

from __future__ import annotations

import pytest

from tradewind.regimes.kinds import Regime
from tradewind.regimes.views import (
    CONDITION_VIEW,
    DIRECTION_VIEW,
    REGIME_VIEW,
    ConditionView,
    DirectionView,
    RegimeView,
    condition_view,
    direction_view,
    regime_view,
)
from tradewind.settings import SizingSettings, ThresholdSettings
from tradewind.trading.profiles import PROFILES
from tradewind.trading.sizing import size_from_confidence
from tradewind.trading.thresholds import entry_threshold, size_multiplier


@pytest.mark.parametrize("view", [REGIME_VIEW, DIRECTION_VIEW, CONDITION_VIEW])
def test_every_view_is_total_and_uses_all_its_words(view: dict[Regime, object]) -> None:
    assert set(view) == set(Regime)
    assert set(view.values()) == set(type(next(iter(view.values()))))


@pytest.mark.parametrize(
    ("regime", "view", "direction", "condition"),
    [
        ("TREND_UP", "trend", "bull", "trending"),
        ("TREND_DOWN", "trend", "bear", "trending"),
        ("RANGE_LOW_VOL", "meanrev", "sideways", "ranging"),
        ("RANGE_HIGH_VOL", "meanrev", "sideways", "ranging"),
        ("BREAKOUT", "trend", "sideways", "breakout"),
        ("HIGH_VOLATILITY", "neutral", "sideways", "choppy"),
        ("ILLIQUID", "neutral", "sideways", "choppy"),
        ("UNKNOWN", "neutral", "sideways", "choppy"),
    ],
)
def test_each_regime_in_each_view(regime: str, view: str, direction: str, condition: str) -> None:
    assert regime_view(Regime(regime)) is RegimeView(view)
    assert direction_view(Regime(regime)) is DirectionView(direction)
    assert condition_view(Regime(regime)) is ConditionView(condition)


@pytest.mark.parametrize(
    ("regime", "threshold", "multiplier"),
    [
        (Regime.TREND_UP, 0.53, 1.2),
        (Regime.TREND_DOWN, 0.53, 1.2),
        (Regime.BREAKOUT, 0.53, 1.2),
        (Regime.HIGH_VOLATILITY, 0.55, 1.0),
        (Regime.ILLIQUID, 0.55, 1.0),
        (Regime.UNKNOWN, 0.55, 1.0),
        (Regime.RANGE_LOW_VOL, 0.57, 0.7),
        (Regime.RANGE_HIGH_VOL, 0.57, 0.7),
    ],
)
def test_golden_threshold_and_multiplier_per_regime(
    regime: Regime, threshold: float, multiplier: float
) -> None:
    """Base 0.55 at volatility 0.02: trend 0.53, neutral 0.55, meanrev 0.57."""
    view = regime_view(regime)
    assert entry_threshold(ThresholdSettings(), view, 0.02) == pytest.approx(threshold)
    assert size_multiplier(SizingSettings(), view) == multiplier


def test_golden_size_in_a_trend() -> None:
    """Confidence 0.8, volatility 0.02, multiplier 1.2, base 1.0 give 0.96."""
    sizing = SizingSettings()
    size = size_from_confidence(
        sizing,
        confidence=0.8,
        volatility=0.02,
        volatility_target=0.02,
        regime_multiplier=size_multiplier(sizing, regime_view(Regime.TREND_UP)),
        epistemic_p=0.0,
        epistemic_p_limit=0.05,
    )
    assert size == pytest.approx(0.96)


@pytest.mark.parametrize("regime", Regime)
def test_every_regime_has_a_suitable_profile(regime: Regime) -> None:
    assert any(regime_view(regime) in profile.regimes for profile in PROFILES.values())
