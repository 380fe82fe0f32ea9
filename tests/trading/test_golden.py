"""The golden cases of the trading rules: given inputs, exact outputs."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from tests.support.trading import PORTFOLIO
from tradewind.contracts import RefusalCode, Side, confidence
from tradewind.settings import CostSettings, RiskSettings, SizingSettings, ThresholdSettings
from tradewind.trading.costs import expected_trip, funding, round_trip_cost, slippage
from tradewind.trading.profiles import PROFILES, profile
from tradewind.trading.risk import RiskMode, assess, risk_gate
from tradewind.trading.sizing import kelly, mathematician, size_from_confidence
from tradewind.trading.stops import adaptive_stop
from tradewind.trading.thresholds import RegimeView, entry_threshold

SIZING, RISK = SizingSettings(), RiskSettings()


@pytest.mark.parametrize(("base", "most", "expected"), [(1.0, None, 0.96), (100.0, 200.0, 96.0)])
def test_size_from_confidence(base: float, most: float | None, expected: float) -> None:
    size = size_from_confidence(
        SIZING,
        confidence=0.8,
        volatility=0.02,
        volatility_target=0.02,
        regime_multiplier=1.2,
        epistemic_p=0.0,
        epistemic_p_limit=0.05,
        base=base,
        max_size=most,
    )
    assert size == pytest.approx(expected)


@pytest.mark.parametrize(
    ("regime", "expected"),
    [(RegimeView.TREND, 0.53), (RegimeView.NEUTRAL, 0.55), (RegimeView.MEANREV, 0.57)],
)
def test_entry_threshold(regime: RegimeView, expected: float) -> None:
    assert entry_threshold(ThresholdSettings(), regime, 0.02) == pytest.approx(expected)


def test_confidence() -> None:
    assert confidence(0.6234) == pytest.approx(0.2468)


@pytest.mark.parametrize(("side", "expected"), [(Side.BUY, 48_500), (Side.SELL, 51_500)])
def test_adaptive_stop(side: Side, expected: int) -> None:
    stop = adaptive_stop(SIZING, entry=50_000, side=side, volatility=0.02, volatility_target=0.02)
    assert stop == expected


def test_mathematician_at_the_margin_cap() -> None:
    plan = mathematician(
        SIZING, balance=Decimal(10_000), atr_pct=0.02, win_rate=0.5, price=90_000, side=Side.BUY
    )
    assert plan.sl_pct == Decimal("0.03")
    assert plan.tp_pct == Decimal("0.06")
    assert plan.margin_usd == 1_000
    assert plan.notional_usd == 3_000
    assert plan.quantity == pytest.approx(Decimal(1) / 30)
    assert plan.expected_profit_usd == 180
    assert plan.max_loss_usd == 90
    assert plan.expected_value_usd == 45
    assert plan.tp_price == 95_400
    assert plan.sl_price == 87_300
    assert plan.leverage == 3
    assert plan.confidence_score == 0.5


def test_mathematician_bound_by_the_risk() -> None:
    plan = mathematician(
        SIZING, balance=Decimal(10_000), atr_pct=0.20, win_rate=0.5, price=90_000, side=Side.BUY
    )
    assert round(plan.margin_usd, 2) == Decimal("222.22")
    assert round(plan.notional_usd, 2) == Decimal("666.67")
    assert round(plan.max_loss_usd, 9) == 200


def test_mathematician_mirrors_a_short() -> None:
    plan = mathematician(
        SIZING, balance=Decimal(10_000), atr_pct=0.02, win_rate=0.5, price=90_000, side=Side.SELL
    )
    assert plan.tp_price == 84_600
    assert plan.sl_price == 92_700


def test_kelly() -> None:
    assert kelly(0.60, 2.0) == pytest.approx(0.40)
    assert SIZING.kelly_fraction * kelly(0.60, 2.0) == pytest.approx(0.20)


def test_risk_gate_allows() -> None:
    state = assess(RISK, PORTFOLIO, RegimeView.TREND)
    gate = risk_gate(RISK, state, conviction=0.72, open_positions=5)
    assert state.mode is RiskMode.NORMAL
    assert gate.code is None
    assert "5 of 10 positions" in gate.text


def test_risk_gate_refuses_after_the_daily_loss() -> None:
    account = replace(PORTFOLIO, equity=Decimal(9_690))
    state = assess(RISK, account, RegimeView.TREND)
    gate = risk_gate(RISK, state, conviction=0.72, open_positions=5)
    assert gate.code is RefusalCode.DAILY_LOSS
    assert "3.10%" in gate.text


def test_ultra_aggressive_prices() -> None:
    prices = profile("ultra_aggressive").prices(100_000, 500, Side.BUY)
    assert (prices.stop, prices.tp1, prices.tp2) == (99_500, 101_500, 102_500)
    mirrored = profile("ultra_aggressive").prices(100_000, 500, Side.SELL)
    assert (mirrored.stop, mirrored.tp1, mirrored.tp2) == (100_500, 98_500, 97_500)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ultra_aggressive", 1.70), ("scalp", 0.50), ("defensive", 0.54), ("trend_rider", 2.00)],
)
def test_profile_expectancy(name: str, expected: float) -> None:
    assert PROFILES[name].expectancy_r == pytest.approx(expected)


def test_round_trip_cost_and_funding() -> None:
    costs = CostSettings()
    bps = Decimal("0.0003")
    assert round_trip_cost(Decimal(3_000), bps, costs.taker, costs.taker) == Decimal("4.20")
    assert funding(Decimal(3_000), Decimal(24), costs.funding_8h) == Decimal("0.90")


def test_the_function_of_broker_and_policy_gives_the_same_round_trip() -> None:
    """3,000 at 3 bps a side: 2.00 at least, 0.97 for volatility, 0.03 for the size."""
    costs, notional = CostSettings(), Decimal(3_000)
    trip = expected_trip(costs, volatility=0.0194, notional=notional, hours=Decimal(24))
    assert trip.slippage == 2 * slippage(0.0194, notional, costs) == Decimal("0.0006")
    assert (trip.fees + trip.slippage) * 3_000 == Decimal("4.20")
    assert trip.funding * 3_000 == Decimal("0.90")
    assert trip.total * 3_000 == Decimal("5.10")
