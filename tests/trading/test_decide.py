"""The entry decision: its story, its orders, and every way to HOLD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import settings as settings_of
from hypothesis import strategies as st

from tests.support.trading import (
    BAR_TS,
    DEFAULTS,
    MARKET,
    NOW_MS,
    PORTFOLIO,
    STEP_MS,
    SYMBOL,
    holding,
    position,
    prediction,
    run_decide,
)
from tradewind.contracts import (
    Action,
    Decision,
    Leg,
    OrderType,
    Prediction,
    RefusalCode,
    Side,
)
from tradewind.errors import TradewindError
from tradewind.settings import RiskSettings, Settings, SizingSettings
from tradewind.trading.record import SymbolRecord

SETTINGS = DEFAULTS
NAN, INF = float("nan"), float("inf")


def with_risk(**changes: Any) -> Settings:
    return SETTINGS.model_copy(update={"risk": RiskSettings(**changes)})


def with_sizing(**changes: Any) -> Settings:
    return SETTINGS.model_copy(update={"sizing": SizingSettings(**changes)})


def raw(**changes: Any) -> Prediction:
    """Return a prediction that skipped validation, as a broken source might hand over."""
    return Prediction.model_construct(**{**dict(prediction()), **changes})


def test_a_clear_prediction_buys() -> None:
    decision = run_decide(SETTINGS)
    assert decision.action is Action.BUY
    assert decision.refusal is None
    assert [r.step for r in decision.reasons] == [
        "kill switch",
        "prediction",
        "freshness",
        "features",
        "uncertainty",
        "inputs",
        "consensus",
        "threshold",
        "edge",
        "position",
        "symbol",
        "risk gate",
        "mathematician",
        "size from confidence",
        "symbol record",
        "mode's risk",
        "kelly",
        "limits",
        "quantity",
        "exits",
        "hard limits",
    ]
    entry, stop, target = decision.orders
    # 3,000 × 0.6 confidence / 2 = 900 → 0.01 at 90,000
    assert entry.quantity == stop.quantity == target.quantity == Decimal("0.010")
    assert (entry.side, entry.type, entry.leg) == (Side.BUY, OrderType.MARKET, Leg.ENTRY)
    assert not entry.reduce_only
    assert (stop.side, stop.type, stop.leg) == (Side.SELL, OrderType.STOP_MARKET, Leg.STOP)
    assert (target.type, target.leg) == (OrderType.TAKE_PROFIT_MARKET, Leg.TARGET)
    assert stop.reduce_only
    assert target.reduce_only
    assert stop.parent_id == target.parent_id == entry.client_id
    assert stop.trigger_price == Decimal("87372.00")  # 3 % less fees of 0.08 %
    assert target.trigger_price == Decimal("95472.00")  # 6 % and fees
    assert len({o.client_id for o in decision.orders}) == 3


def test_every_number_used_stands_in_the_inputs() -> None:
    inputs = run_decide(SETTINGS).inputs
    expected = {
        "price": 90_000.0,
        "R": 300.0,
        "risk_atr": 1_800.0,
        "volatility": 0.02,
        "p_up": 0.80,
        "mu": 0.01,
        "conviction": 0.90,
        "epistemic_p": 0.01,
        "equity": 10_000.0,
        "threshold": 0.55,
        "factor_confidence": pytest.approx(0.30),
        "factor_record": 1.0,
        "factor_mode": 1.0,
        "base_margin": 1_000.0,
        "leverage": 3.0,
        "cost_total": pytest.approx(0.00145 + 2 * 3e-6),
        "mode": "NORMAL",
        "regime": "neutral",
    }
    assert {name: inputs[name] for name in expected} == expected


def test_a_decision_survives_the_ledger_and_is_replayed_byte_for_byte() -> None:
    first, second = run_decide(SETTINGS), run_decide(SETTINGS)
    text = first.model_dump_json()
    assert text == second.model_dump_json()
    assert Decision.model_validate_json(text) == first


def test_a_short_mirrors_a_long() -> None:
    long, short = run_decide(SETTINGS), run_decide(SETTINGS, prediction=prediction(0.20))
    assert short.action is Action.SELL
    for a, b in zip(long.orders, short.orders, strict=True):
        assert a.side is b.side.opposite
        assert a.quantity == b.quantity
        if a.trigger_price is not None and b.trigger_price is not None:
            assert a.trigger_price + b.trigger_price == 180_000


LOSER = SymbolRecord(trades=20, wins=5, mean_r=-0.5, avg_win_r=1.0, avg_loss_r=1.0)
TEN = tuple(position(f"S{i}USDT", "0.01") for i in range(10))
REFUSALS: dict[str, tuple[RefusalCode, dict[str, Any]]] = {
    "kill switch": (
        RefusalCode.KILL_SWITCH,
        {"portfolio": replace(PORTFOLIO, kill_switch=True)},
    ),
    "no prediction": (RefusalCode.MISSING_PREDICTION, {"prediction": None}),
    "serving down": (
        RefusalCode.SERVING_DOWN,
        {"prediction": None, "problem": "serving_unreachable: connection refused"},
    ),
    "overloaded": (RefusalCode.SERVING_DOWN, {"prediction": None, "problem": "overloaded: 429"}),
    "stale features": (
        RefusalCode.STALE_DATA,
        {"prediction": None, "problem": "stale_features: 900 s late"},
    ),
    "expired model": (
        RefusalCode.MODEL_EXPIRED,
        {"prediction": None, "problem": "model_expired: POOLED/1 is 22.0 days old"},
    ),
    "unknown symbol": (
        RefusalCode.UNKNOWN_SYMBOL,
        {"prediction": None, "problem": "unknown_symbol: XYZ"},
    ),
    "some other problem": (
        RefusalCode.MISSING_PREDICTION,
        {"prediction": None, "problem": "no_champion: none yet"},
    ),
    "doubted answer": (RefusalCode.BAD_PREDICTION, {"problem": "fingerprint differs"}),
    "p_up NaN": (RefusalCode.BAD_PREDICTION, {"prediction": raw(p_up=NAN)}),
    "p_up out of range": (RefusalCode.BAD_PREDICTION, {"prediction": raw(p_up=1.2)}),
    "mu infinite": (RefusalCode.BAD_PREDICTION, {"prediction": raw(mu=INF)}),
    "uncertainty negative": (RefusalCode.BAD_PREDICTION, {"prediction": raw(uncertainty=-1.0)}),
    "conviction NaN": (RefusalCode.BAD_PREDICTION, {"prediction": raw(conviction=NAN)}),
    "epistemic_p NaN": (RefusalCode.BAD_PREDICTION, {"prediction": raw(epistemic_p=NAN)}),
    "staleness NaN": (RefusalCode.BAD_PREDICTION, {"prediction": raw(staleness_s=NAN)}),
    "bar still open": (
        RefusalCode.BAD_PREDICTION,
        {"portfolio": replace(PORTFOLIO, now_ms=BAR_TS + STEP_MS - 1)},
    ),
    "stale by its flag": (RefusalCode.STALE_DATA, {"prediction": prediction(stale=True)}),
    "stale by serving": (RefusalCode.STALE_DATA, {"prediction": prediction(staleness_s=300.1)}),
    "stale by own clock": (
        RefusalCode.STALE_DATA,
        {"portfolio": replace(PORTFOLIO, now_ms=BAR_TS + 2 * STEP_MS + 300_001)},
    ),
    "no market": (RefusalCode.FEATURE_MISMATCH, {"market": None}),
    "other bar": (
        RefusalCode.FEATURE_MISMATCH,
        {"market": replace(MARKET, bar_ts=BAR_TS - STEP_MS)},
    ),
    "other symbol": (RefusalCode.FEATURE_MISMATCH, {"market": replace(MARKET, symbol="ETHUSDT")}),
    "other feature version": (
        RefusalCode.FEATURE_MISMATCH,
        {"market": replace(MARKET, feature_version="v2")},
    ),
    "other regime": (
        RefusalCode.FEATURE_MISMATCH,
        {"prediction": prediction(regime="trend", regime_computed=True)},
    ),
    "unknown regime": (
        RefusalCode.BAD_FEATURES,
        {"prediction": prediction(regime="sideways")},
    ),
    **{
        f"{name} = {value}": (
            RefusalCode.BAD_FEATURES,
            {"market": replace(MARKET, **{name: value})},
        )
        for name in ("price", "atr", "risk_atr", "volatility")
        for value in (NAN, INF, -1.0)
    },
    "price 0": (RefusalCode.BAD_FEATURES, {"market": replace(MARKET, price=0.0)}),
    "too uncertain": (RefusalCode.TOO_UNCERTAIN, {"prediction": prediction(epistemic_p=0.0501)}),
    "strange inputs": (
        RefusalCode.OUT_OF_RANGE,
        {"prediction": prediction(out_of_range=("vol_20", "range"))},
    ),
    "no consensus": (RefusalCode.NO_CONSENSUS, {"prediction": prediction(consensus="none")}),
    "below threshold": (RefusalCode.BELOW_THRESHOLD, {"prediction": prediction(0.5499)}),
    "short below threshold": (RefusalCode.BELOW_THRESHOLD, {"prediction": prediction(0.4501)}),
    "coin flip": (RefusalCode.BELOW_THRESHOLD, {"prediction": prediction(0.5)}),
    "no edge": (RefusalCode.NO_EDGE, {"prediction": prediction(mu=0.0014)}),
    "edge against the side": (RefusalCode.NO_EDGE, {"prediction": prediction(mu=-0.01)}),
    "position open": (RefusalCode.POSITION_OPEN, {"portfolio": holding(position(SYMBOL))}),
    "symbol disabled": (
        RefusalCode.SYMBOL_DISABLED,
        {"record": SymbolRecord(trades=10, streak=-10, disabled_until_ms=NOW_MS + 1)},
    ),
    "daily loss": (
        RefusalCode.DAILY_LOSS,
        {"portfolio": replace(PORTFOLIO, equity=Decimal(9_690))},
    ),
    "peak drawdown": (
        RefusalCode.DRAWDOWN,
        {"portfolio": replace(PORTFOLIO, peak_equity=Decimal(13_000))},
    ),
    "low conviction": (RefusalCode.LOW_CONVICTION, {"prediction": prediction(conviction=0.19)}),
    "max positions": (RefusalCode.MAX_POSITIONS, {"portfolio": holding(*TEN)}),
    "kelly negative": (RefusalCode.KELLY_NEGATIVE, {"record": LOSER}),
    "total exposure": (
        RefusalCode.EXPOSURE,
        {"portfolio": holding(position("ETHUSDT", "150.1"))},
    ),
    "no margin left": (
        RefusalCode.NO_MARGIN,
        {"portfolio": holding(position("ETHUSDT", "120"), cash=Decimal(4_000))},
    ),
    "no margin": (RefusalCode.NO_MARGIN, {"portfolio": replace(PORTFOLIO, cash=Decimal(0))}),
    "size zero": (RefusalCode.SIZE_ZERO, {"market": replace(MARKET, price=1e6)}),
    "below min notional": (
        RefusalCode.BELOW_MIN_NOTIONAL,
        {
            "market": replace(MARKET, price=100.0, risk_atr=2.0),
            "portfolio": replace(
                PORTFOLIO,
                equity=Decimal(50),
                cash=Decimal(50),
                day_open_equity=Decimal(50),
                peak_equity=Decimal(50),
            ),
        },
    ),
    "no exit plan": (RefusalCode.NO_EXIT_PLAN, {"market": replace(MARKET, risk_atr=40.0)}),
}
EXECUTORS_OWN = {RefusalCode.LATE, RefusalCode.LEVERAGE}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal(case: str) -> None:
    code, changes = REFUSALS[case]
    decision = run_decide(SETTINGS, **{"symbol": SYMBOL, "bar_ts": BAR_TS, **changes})
    assert decision.action is Action.HOLD
    assert decision.refusal is code
    assert decision.orders == ()
    assert decision.reasons[-1].code is code
    assert all(reason.code is None for reason in decision.reasons[:-1])
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


def test_strange_inputs_are_only_told_where_the_setting_allows_them() -> None:
    engine = SETTINGS.engine.model_copy(update={"require_in_range": False})
    settings = SETTINGS.model_copy(update={"engine": engine})
    decision = run_decide(settings, prediction=prediction(out_of_range=("vol_20",)))
    assert decision.action is Action.BUY
    assert any("vol_20 (not required)" in reason.text for reason in decision.reasons)


def test_serving_that_refuses_strange_inputs_is_a_hold_by_that_name() -> None:
    problem = "out_of_range: inputs outside the training range of v/1: vol_20"
    decision = run_decide(SETTINGS, prediction=None, problem=problem)
    assert decision.refusal is RefusalCode.OUT_OF_RANGE


def test_the_order_limit_refuses_when_it_is_nothing() -> None:
    decision = run_decide(with_risk(max_order_notional=Decimal(0)))
    assert decision.refusal is RefusalCode.ORDER_NOTIONAL


def test_every_refusal_code_of_the_decision_is_reached() -> None:
    reached = {code for code, _ in REFUSALS.values()} | {RefusalCode.ORDER_NOTIONAL}
    assert reached == set(RefusalCode) - EXECUTORS_OWN


def test_symbol_and_bar_come_from_the_request_when_nothing_else_knows() -> None:
    nothing = {"prediction": None, "market": None, "problem": "overloaded: 429"}
    decision = run_decide(SETTINGS, **nothing, symbol="SOLUSDT", bar_ts=BAR_TS)
    assert (decision.symbol, decision.bar_ts) == ("SOLUSDT", BAR_TS)
    with pytest.raises(TradewindError, match="symbol and bar_ts"):
        run_decide(SETTINGS, **nothing)


def test_the_edge_is_required_only_while_its_switch_is_on() -> None:
    off = SETTINGS.model_copy(
        update={"engine": SETTINGS.engine.model_copy(update={"require_edge": False})}
    )
    decision = run_decide(off, prediction=prediction(mu=0.0))
    assert decision.action is Action.BUY
    assert float(decision.inputs["net_edge"]) < 0


@pytest.mark.parametrize(
    ("switch", "changes", "factor"),
    [
        ("size_from_confidence", {}, "factor_confidence"),
        (
            "symbol_record",
            {"record": replace(LOSER, wins=6, avg_win_r=9.0)},
            "factor_record",
        ),
        ("mode_risk", {"portfolio": replace(PORTFOLIO, losing_streak=6)}, "factor_mode"),
    ],
)
def test_each_factor_has_an_off_switch(switch: str, changes: dict[str, Any], factor: str) -> None:
    on = run_decide(SETTINGS, **changes)
    off = run_decide(with_sizing(**{switch: False}), **changes)
    assert float(on.inputs[factor]) < 1
    assert off.inputs[factor] == 1
    assert off.orders[0].quantity > on.orders[0].quantity
    assert any("switched off" in reason.text for reason in off.reasons)


def test_kelly_caps_the_notional_and_can_be_switched_off() -> None:
    # half of (0.5 × 1.1 − 0.5) / 1.1 = 0.0227 of 10,000 → 227
    record = SymbolRecord(trades=20, wins=10, mean_r=0.05, avg_win_r=1.1, avg_loss_r=1.0)
    capped = run_decide(SETTINGS, record=record)
    assert capped.inputs["kelly_cap"] == pytest.approx(227.27, abs=0.01)
    assert capped.orders[0].quantity == Decimal("0.002")
    free = run_decide(with_sizing(kelly=False), record=record)
    assert free.orders[0].quantity == Decimal("0.010")


def test_a_limit_cuts_the_size_and_says_so() -> None:
    decision = run_decide(with_risk(max_order_notional=Decimal(500)))
    assert decision.orders[0].quantity == Decimal("0.00555")
    assert any("order notional, cuts the notional to 500" in r.text for r in decision.reasons)


def test_the_room_left_under_the_total_exposure_cuts_the_size() -> None:
    decision = run_decide(SETTINGS, portfolio=holding(position("ETHUSDT", "149")))
    assert decision.orders[0].quantity == Decimal("0.001")
    assert any("total exposure, cuts the notional to 100" in r.text for r in decision.reasons)


def test_a_canary_s_decision_has_a_small_cap_of_its_own() -> None:
    # 0.02 of 10,000 is 200; the champion's decision is as ever
    canary = run_decide(SETTINGS, prediction=prediction(served_by="canary"))
    usual = run_decide(SETTINGS)
    assert any("canary exposure, cuts the notional to 200" in r.text for r in canary.reasons)
    assert canary.orders[0].quantity == Decimal("0.002")
    assert usual.orders[0].quantity > canary.orders[0].quantity
    assert not any("canary" in r.text for r in usual.reasons if r.step == "limits")


def test_leverage_stays_under_the_cap() -> None:
    decision = run_decide(with_risk(leverage_cap=Decimal(2)))
    assert {order.leverage for order in decision.orders} == {Decimal(2)}


def test_a_known_record_gives_the_win_rate() -> None:
    record = SymbolRecord(trades=20, wins=10, mean_r=0.5, avg_win_r=2.0, avg_loss_r=1.0)
    assert run_decide(SETTINGS, record=record).inputs["win_rate"] == 0.5
    assert run_decide(SETTINGS).inputs["win_rate"] == 0.80


# Mostly tradable inputs, so that the bounds are tried on orders and not on refusals.
@settings_of(max_examples=600)
@given(
    p_up=st.one_of(st.floats(0.6, 1), st.floats(0, 0.4), st.floats(0, 1)),
    edge=st.floats(0.002, 0.5),
    price=st.floats(0.5, 1e5),
    atr_share=st.floats(0.0005, 0.4),
    volatility=st.floats(0, 0.3),
    regime=st.sampled_from(["trend", "neutral", "meanrev"]),
    equity=st.decimals("2000", "1e7", places=2),
    cash_share=st.decimals("0.2", "1.2", places=3),
    held_share=st.decimals("-1.3", "1.3", places=3),
    wins=st.integers(15, 40),
    odds=st.one_of(st.floats(1, 10), st.floats(0, 1e300)),
    switches=st.booleans(),
)
def test_no_inputs_exceed_a_limit_or_the_risk(
    p_up: float,
    edge: float,
    price: float,
    atr_share: float,
    volatility: float,
    regime: str,
    equity: Decimal,
    cash_share: Decimal,
    held_share: Decimal,
    wins: int,
    odds: float,
    switches: bool,
) -> None:
    settings = with_sizing(size_from_confidence=switches, adaptive_stop=switches)
    held = equity * held_share / 100
    portfolio = holding(
        *([position("ETHUSDT", str(held))] if held else []),
        equity=equity,
        cash=equity * cash_share,
        day_open_equity=equity,
        peak_equity=equity,
    )
    market = replace(
        MARKET, price=price, risk_atr=price * atr_share, volatility=volatility, regime=regime
    )
    mu = edge if p_up > 0.5 else -edge
    decision = run_decide(
        settings,
        prediction=prediction(p_up, mu, regime=regime),
        market=market,
        portfolio=portfolio,
        record=SymbolRecord(trades=40, wins=wins, avg_win_r=odds, avg_loss_r=1.0),
    )
    assert (decision.action is Action.HOLD) == (decision.refusal is not None)
    event(str(decision.refusal))
    if decision.action is Action.HOLD:
        assert decision.orders == ()
        return
    entry, stop, target = decision.orders
    level = Decimal(repr(price))
    notional = entry.quantity * level
    assert stop.trigger_price is not None
    assert target.trigger_price is not None
    risk = settings.risk
    slack = 1 + Decimal("1e-20")
    assert entry.quantity > 0
    assert entry.quantity % risk.quantity_step == 0
    assert entry.leverage <= risk.leverage_cap
    assert risk.min_notional <= notional <= risk.max_order_notional
    assert notional <= Decimal("0.5") * equity * slack
    assert notional + portfolio.exposure <= Decimal("1.5") * equity * slack
    assert notional / entry.leverage <= Decimal("0.1") * equity * slack
    fees = notional * 2 * settings.costs.taker
    loss = abs(stop.trigger_price - level) * entry.quantity + fees
    assert loss <= Decimal("0.02") * equity * slack
    inside = sorted((stop.trigger_price, target.trigger_price))
    assert 0 < inside[0] < level < inside[1]
    assert (stop.trigger_price < level) is (entry.side is Side.BUY)


@given(st.floats(0.5, 1), st.floats(0.5, 1))
def test_more_confidence_never_buys_less(one: float, other: float) -> None:
    weak, strong = sorted((one, other))

    def quantity(p_up: float) -> Decimal:
        decision = run_decide(SETTINGS, prediction=prediction(p_up))
        return decision.orders[0].quantity if decision.orders else Decimal(0)

    assert quantity(weak) <= quantity(strong)


def test_it_needs_no_files(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    run_decide(settings)
    assert not settings.home.exists()


def test_a_size_at_the_margins_limit_leaves_the_entrys_fee() -> None:
    """The broker asks for notional / leverage and the taker fee, and must not be surprised."""
    free = Decimal(240)  # without the fee 0.008 would fit, exactly
    found = run_decide(DEFAULTS, portfolio=replace(PORTFOLIO, cash=free))
    assert found.inputs["limit_name"] == "free margin"
    assert found.orders
    entry, price = found.orders[0], Decimal(str(MARKET.price))
    notional = entry.quantity * price
    needed = notional / entry.leverage + notional * DEFAULTS.costs.taker
    one_more = (entry.quantity + DEFAULTS.risk.quantity_step) * price
    assert needed <= free < one_more / entry.leverage + one_more * DEFAULTS.costs.taker
