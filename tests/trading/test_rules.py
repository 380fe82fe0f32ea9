"""Thresholds, sizes, costs, exits, profiles: shapes and bounds of each rule."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.contracts import Side
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import CostSettings, SizingSettings, ThresholdSettings
from tradewind.trading.costs import expected_trip, slippage
from tradewind.trading.numbers import round_down, round_up
from tradewind.trading.profiles import DEFAULT_PROFILE, PROFILES, profile
from tradewind.trading.sizing import kelly, mathematician, size_from_confidence
from tradewind.trading.stops import ExitPlan, adaptive_stop_pct, exit_plan
from tradewind.trading.thresholds import RegimeView, direction, entry_threshold, side_probability

SIZING, COSTS, LEVELS = SizingSettings(), CostSettings(), ThresholdSettings()
regimes = st.sampled_from(RegimeView)
sides = st.sampled_from(Side)
volatilities = st.floats(0, 10)
atr_shares = st.floats(1e-6, 0.3)
money = st.decimals("1", "1e9", places=2)


@given(regimes, volatilities, volatilities)
def test_threshold_is_bounded_and_rises_with_volatility(
    regime: RegimeView, one: float, other: float
) -> None:
    calm, wild = sorted((one, other))
    low, high = (entry_threshold(LEVELS, regime, v) for v in (calm, wild))
    assert LEVELS.low <= low <= high <= LEVELS.high


@given(st.floats(0, 1))
def test_direction_is_the_more_probable_side(p_up: float) -> None:
    side = direction(p_up)
    if side is None:
        assert p_up == 0.5
    else:
        assert side_probability(p_up, side) > 0.5


def _size(confidence: float, volatility: float, epistemic_p: float = 0.0) -> float:
    return size_from_confidence(
        SIZING,
        confidence=confidence,
        volatility=volatility,
        volatility_target=0.02,
        regime_multiplier=1.2,
        epistemic_p=epistemic_p,
        epistemic_p_limit=0.05,
    )


@given(st.floats(0, 1), st.floats(0, 1), volatilities, volatilities)
def test_size_from_confidence_is_bounded_and_monotonic(
    c1: float, c2: float, v1: float, v2: float
) -> None:
    weak, strong = sorted((c1, c2))
    calm, wild = sorted((v1, v2))
    assert 0 <= _size(weak, wild) <= _size(strong, wild) <= _size(strong, calm)
    assert _size(strong, calm) <= SIZING.base * SIZING.max_size_multiple


def test_size_from_confidence_is_zero_when_too_uncertain() -> None:
    assert _size(0.8, 0.02, epistemic_p=0.05) > 0
    assert _size(0.8, 0.02, epistemic_p=0.0501) == 0


@given(money, atr_shares, st.floats(0, 1), sides)
def test_a_stop_never_costs_more_than_the_risk(
    balance: Decimal, atr_pct: float, win_rate: float, side: Side
) -> None:
    plan = mathematician(
        SIZING, balance=balance, atr_pct=atr_pct, win_rate=win_rate, price=100, side=side
    )
    rounding = balance * Decimal("1e-20")
    assert plan.max_loss_usd <= balance * Decimal("0.02") + rounding
    assert 0 < plan.margin_usd <= balance * Decimal("0.10")
    assert -plan.max_loss_usd <= plan.expected_value_usd <= plan.expected_profit_usd


@given(money, atr_shares, atr_shares)
def test_a_wider_stop_never_buys_more(balance: Decimal, one: float, other: float) -> None:
    near, far = sorted((one, other))
    small, large = (
        mathematician(SIZING, balance=balance, atr_pct=a, win_rate=0.5, price=100).notional_usd
        for a in (far, near)
    )
    assert small <= large


@pytest.mark.parametrize(
    "changes",
    [
        {"balance": Decimal(0)},
        {"balance": Decimal("NaN")},
        {"atr_pct": 0.0},
        {"atr_pct": float("nan")},
        {"price": -1.0},
        {"price": float("inf")},
        {"leverage": Decimal(0)},
    ],
)
def test_mathematician_names_the_bad_input(changes: dict[str, float | Decimal]) -> None:
    values = {"balance": Decimal(100), "atr_pct": 0.02, "price": 100.0, "win_rate": 0.5}
    with pytest.raises(TradewindError) as caught:
        mathematician(SIZING, **{**values, **changes})  # type: ignore[arg-type]
    assert caught.value.code is ErrorCode.BAD_INPUT
    assert next(iter(changes)) in caught.value.detail


@given(st.floats(0, 1), st.floats(0.01, 100))
def test_kelly_is_the_edge_over_the_odds(p: float, b: float) -> None:
    assert kelly(p, b) <= 1
    assert kelly(p, b) * b == pytest.approx(p * b - (1 - p), abs=1e-12)


@pytest.mark.parametrize(("p", "b"), [(1.1, 2.0), (-0.1, 2.0), (0.5, 0.0), (0.5, float("nan"))])
def test_kelly_refuses_what_is_no_bet(p: float, b: float) -> None:
    with pytest.raises(TradewindError, match="bad_input"):
        kelly(p, b)


@given(volatilities, st.decimals("0", "1e9", places=2), volatilities)
def test_slippage_stays_within_its_bounds_and_grows(
    one: float, notional: Decimal, other: float
) -> None:
    calm, wild = sorted((one, other))
    small, large = slippage(calm, notional, COSTS), slippage(wild, notional, COSTS)
    assert COSTS.slippage_min <= small <= large <= COSTS.slippage_max
    assert large <= slippage(wild, 2 * notional, COSTS)


def test_slippage_on_a_normal_day_is_three_bps() -> None:
    assert slippage(0.02, Decimal(0), COSTS) == Decimal("0.0003")
    assert slippage(0.02, Decimal(100_000), COSTS) == Decimal("0.0004")


def test_expected_trip_adds_its_parts() -> None:
    trip = expected_trip(COSTS, volatility=0.02, notional=Decimal(0), hours=Decimal(4))
    assert trip.total == Decimal("0.0008") + Decimal("0.0006") + Decimal("0.00005")


def _exits(side: Side, atr_pct: float, volatility: float, tick: str = "0.01") -> ExitPlan | None:
    plan = mathematician(
        SIZING, balance=Decimal(10_000), atr_pct=atr_pct, win_rate=0.5, price=100, side=side
    )
    return exit_plan(
        SIZING,
        plan,
        price=100,
        side=side,
        volatility=volatility,
        volatility_target=0.02,
        fees=Decimal("0.0008"),
        tick=Decimal(tick),
    )


def test_exits_are_net_of_fees() -> None:
    exits = _exits(Side.BUY, 0.01, 0.02)  # stop 1.5 %, target 3 %
    assert exits is not None
    assert not exits.tightened
    assert (exits.stop_pct, exits.target_pct) == (Decimal("0.0142"), Decimal("0.0308"))
    assert (exits.stop_price, exits.target_price) == (Decimal("98.58"), Decimal("103.08"))


def test_the_adaptive_stop_only_tightens() -> None:
    tightened, kept = _exits(Side.BUY, 0.04, 0.02), _exits(Side.BUY, 0.01, 0.04)
    assert tightened is not None
    assert kept is not None
    assert tightened.stop_pct == Decimal("0.03") - Decimal("0.0008")  # 6 % → 3 %
    assert tightened.target_pct == Decimal("0.12") + Decimal("0.0008")
    assert kept.stop_pct == Decimal("0.015") - Decimal("0.0008")
    switched_off = SIZING.model_copy(update={"adaptive_stop": False})
    plan = mathematician(SIZING, balance=Decimal(1), atr_pct=0.04, win_rate=0.5, price=100)
    wide = exit_plan(
        switched_off,
        plan,
        price=100,
        side=Side.BUY,
        volatility=0.02,
        volatility_target=0.02,
        fees=Decimal(0),
        tick=Decimal("0.01"),
    )
    assert wide is not None
    assert wide.stop_pct == Decimal("0.06")


@given(st.floats(0.001, 0.2), volatilities)
def test_a_short_mirrors_a_long(atr_pct: float, volatility: float) -> None:
    long, short = _exits(Side.BUY, atr_pct, volatility), _exits(Side.SELL, atr_pct, volatility)
    assert long is not None
    assert short is not None
    assert long.stop_price + short.stop_price == 200
    assert long.target_price + short.target_price == 200
    assert long.stop_price < 100 < long.target_price
    # Rounded towards the entry: never further away than planned.
    assert 100 - long.stop_price <= 100 * long.stop_pct
    assert long.target_price - 100 <= 100 * long.target_pct


@pytest.mark.parametrize(
    ("atr_pct", "tick"), [(0.0005, "0.01"), (0.34, "0.01"), (0.02, "10")], ids=str
)
@pytest.mark.parametrize("side", Side)
def test_no_exit_plan_where_none_can_stand(side: Side, atr_pct: float, tick: str) -> None:
    """Nearer than the fees; a short's target below zero; lost in one tick."""
    assert _exits(side, atr_pct, 0.02, tick) is None


@given(volatilities)
def test_adaptive_stop_widens_within_bounds(volatility: float) -> None:
    pct = adaptive_stop_pct(SIZING, volatility, 0.02)
    assert Decimal("0.015") <= pct <= Decimal("0.06")


@given(st.decimals("0", "1e9", places=6), st.sampled_from(["0.001", "0.01", "1", "25"]))
def test_rounding_brackets_the_value(value: Decimal, step_text: str) -> None:
    step = Decimal(step_text)
    down, up = round_down(value, step), round_up(value, step)
    assert down <= value <= up
    assert up - down in (0, step)
    assert down % step == 0


def test_every_profile_is_ordered_and_every_regime_served() -> None:
    assert len(PROFILES) == 7
    for p in PROFILES.values():
        assert p.stop_r == 1
        assert p.stop_r < p.tp2_r
        assert 0 < p.tp1_r < p.tp2_r
        assert p.expectancy_r > 0
    assert profile("moderate").tp1_r == pytest.approx(0.6 * 2.3)
    assert profile().name == DEFAULT_PROFILE == "moderate"
    for regime in RegimeView:
        assert regime in profile().regimes
    assert RegimeView.TREND not in PROFILES["scalp"].regimes


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(TradewindError, match="trend_rider"):
        profile("yolo")
