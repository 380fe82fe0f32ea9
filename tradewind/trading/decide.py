"""The entry decision for one symbol and bar: a story that ends in orders or in HOLD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from tradewind.contracts import (
    CANARY,
    Action,
    Decision,
    Leg,
    OrderRequest,
    OrderType,
    Prediction,
    Reason,
    RefusalCode,
    Side,
    client_order_id,
)
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings
from tradewind.trading import admission
from tradewind.trading.admission import PREDICTION_NUMBERS, Candidate
from tradewind.trading.compose import Composition, compose
from tradewind.trading.costs import taker_round_trip
from tradewind.trading.numbers import figure
from tradewind.trading.record import SymbolRecord
from tradewind.trading.risk import assess, check_hard_limits
from tradewind.trading.stops import ExitPlan, exit_plan
from tradewind.trading.thresholds import RegimeView
from tradewind.trading.views import MarketView, PortfolioView

Figures = dict[str, float | str]


@dataclass
class _Story:
    """The reasons told so far, and every number they used."""

    reasons: list[Reason] = field(default_factory=list)
    inputs: Figures = field(default_factory=dict)

    def tell(self, reason: Reason) -> bool:
        """Add a step; return whether the decision goes on."""
        self.reasons.append(reason)
        self.inputs.update(reason.figures)
        return reason.code is None

    @property
    def refusal(self) -> RefusalCode | None:
        return next((r.code for r in self.reasons if r.code is not None), None)


def _inputs(
    prediction: Prediction | None,
    market: MarketView | None,
    portfolio: PortfolioView,
    record: SymbolRecord,
) -> Figures:
    figures: Figures = {
        "equity": figure(portfolio.equity),
        "cash": figure(portfolio.cash),
        "day_open_equity": figure(portfolio.day_open_equity),
        "peak_equity": figure(portfolio.peak_equity),
        "exposure": figure(portfolio.exposure),
        "open_positions": float(len(portfolio.open_positions)),
        "losing_streak": float(portfolio.losing_streak),
        "volatility_level": portfolio.volatility_level,
        "kill_switch": str(portfolio.kill_switch),
        "record_trades": float(record.trades),
        "record_win_rate": figure(record.win_rate),
        "record_mean_r": figure(record.mean_r),
        "record_avg_win_r": figure(record.avg_win_r),
        "record_avg_loss_r": figure(record.avg_loss_r),
        "record_streak": float(record.streak),
    }
    if portfolio.volatility_rank is not None:
        figures["volatility_rank"] = figure(portfolio.volatility_rank)
    if portfolio.day_low_equity is not None:
        figures["day_low_equity"] = figure(portfolio.day_low_equity)
    if prediction is not None:
        figures |= {name: figure(getattr(prediction, name)) for name in PREDICTION_NUMBERS}
    if market is not None:
        figures |= {
            "price": figure(market.price),
            "R": figure(market.atr),
            "risk_atr": figure(market.risk_atr),
            "volatility": figure(market.volatility),
            "regime": market.regime,
            "feature_version": market.feature_version,
            **market.regime_figures,
        }
    return figures


def _identity(
    symbol: str | None,
    bar_ts: int | None,
    prediction: Prediction | None,
    market: MarketView | None,
) -> tuple[str, int]:
    """Return whose decision this is: as asked for, else the prediction's, else the market's."""
    known = prediction if prediction is not None else market
    if known is None and (symbol is None or bar_ts is None):
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            "a decision without a prediction and a market needs symbol and bar_ts",
            "Pass symbol= and bar_ts= of the bar that was asked for",
        )
    if known is not None:
        symbol = known.symbol if symbol is None else symbol
        bar_ts = known.bar_ts if bar_ts is None else bar_ts
    assert symbol is not None
    assert bar_ts is not None
    return symbol, bar_ts


def decide(
    settings: Settings,
    *,
    decision_id: str,
    policy_version: str,
    prediction: Prediction | None,
    problem: str | None,
    market: MarketView | None,
    portfolio: PortfolioView,
    record: SymbolRecord,
    source: str,
    symbol: str | None = None,
    bar_ts: int | None = None,
) -> Decision:
    """Decide one entry: the same inputs give the same decision, byte for byte.

    Parameters
    ----------
    problem
        Why there is no usable prediction, as ``code: detail`` (an error's own text will do);
        None when there is one.
    market
        The features as of the prediction's bar, None where they could not be read.
    symbol, bar_ts
        What was asked for; needed only where both ``prediction`` and ``market`` are None.

    Returns
    -------
    Decision
        HOLD with its first refusal, or BUY / SELL with three orders: a market entry, and a
        reduce-only stop and target that become active when it fills.

    Raises
    ------
    TradewindError
        ``bad_input`` where nothing says which symbol and bar the decision is for.
    """
    name, ts = _identity(symbol, bar_ts, prediction, market)
    story = _Story(inputs=_inputs(prediction, market, portfolio, record))
    orders: tuple[OrderRequest, ...] = ()
    candidate = _admit(story, settings, prediction, problem, market, portfolio, record)
    if candidate is not None and candidate.side is not None:
        orders = _size(story, candidate, candidate.side, decision_id)
    usable = prediction is not None and not admission.bad_numbers(prediction)
    action = Action.HOLD
    if orders:
        action = Action.BUY if orders[0].side is Side.BUY else Action.SELL
    return Decision(
        decision_id=decision_id,
        strategy=settings.engine.strategy,
        policy_version=policy_version,
        symbol=name,
        timeframe=settings.market.timeframe,
        bar_ts=ts,
        action=action,
        refusal=story.refusal,
        source=source,
        # Numbers that are none stand in `inputs` as words; a ledger row must read back.
        prediction=prediction if usable else None,
        reasons=tuple(story.reasons),
        inputs=story.inputs,
        orders=orders,
        created_ms=portfolio.now_ms,
    )


def _admit(
    story: _Story,
    settings: Settings,
    prediction: Prediction | None,
    problem: str | None,
    market: MarketView | None,
    portfolio: PortfolioView,
    record: SymbolRecord,
) -> Candidate | None:
    """Tell every check in order; return the candidate when all of them pass."""
    if not story.tell(admission.check_kill_switch(portfolio)):
        return None
    if not story.tell(admission.check_prediction(prediction, problem)) or prediction is None:
        return None
    if not story.tell(admission.check_freshness(settings, prediction, portfolio.now_ms)):
        return None
    if not story.tell(admission.check_features(prediction, market)) or market is None:
        return None
    regime = RegimeView(prediction.regime)
    candidate = Candidate(
        settings=settings,
        prediction=prediction,
        market=market,
        portfolio=portfolio,
        record=record,
        regime=regime,
        assessment=assess(settings.risk, portfolio, regime),
    )
    for check in admission.CHECKS:
        if not story.tell(check(candidate)):
            return None
    return candidate


def _size(
    story: _Story, candidate: Candidate, side: Side, decision_id: str
) -> tuple[OrderRequest, ...]:
    """Size the entry, place its exits, hold it against the hard limits."""
    settings, market = candidate.settings, candidate.market
    sized = compose(
        settings,
        side=side,
        p_up=candidate.prediction.p_up,
        epistemic_p=candidate.prediction.epistemic_p,
        regime=candidate.regime,
        market=market,
        portfolio=candidate.portfolio,
        record=candidate.record,
        assessment=candidate.assessment,
        canary=candidate.prediction.served_by == CANARY,
    )
    for step in sized.steps:
        story.tell(step)
    if sized.refusal is not None:
        return ()
    exits = exit_plan(
        settings.sizing,
        sized.plan,
        price=market.price,
        side=side,
        volatility=market.volatility,
        volatility_target=settings.thresholds.volatility_target,
        fees=taker_round_trip(settings.costs),
        tick=settings.risk.price_tick,
    )
    if not story.tell(_exit_reason(exits, market)) or exits is None:
        return ()
    orders = _orders(candidate, side, sized, exits, decision_id)
    broken = check_hard_limits(settings.risk, orders[0], market.price, candidate.portfolio)
    if broken is not None:
        story.tell(broken)
        return ()
    story.tell(
        Reason(
            step="hard limits",
            text=f"within every limit: {side.value} {sized.quantity} {market.symbol}, notional "
            f"{sized.notional:.2f}, leverage {sized.leverage}",
            figures={"margin": figure(sized.margin)},
        )
    )
    return orders


def _exit_reason(exits: ExitPlan | None, market: MarketView) -> Reason:
    if exits is None:
        text = (
            f"no stop and target can stand around {market.price:g} (risk ATR {market.risk_atr:g})"
        )
        return Reason(step="exits", text=text, code=RefusalCode.NO_EXIT_PLAN)
    by = "adaptive stop" if exits.tightened else "mathematician's stop"
    figures: Mapping[str, float | str] = {
        "stop_price": figure(exits.stop_price),
        "target_price": figure(exits.target_price),
        "stop_pct": figure(exits.stop_pct),
        "target_pct": figure(exits.target_pct),
    }
    text = (
        f"{by} at {exits.stop_price} ({exits.stop_pct:.2%}), target at {exits.target_price} "
        f"({exits.target_pct:.2%}), both net of fees"
    )
    return Reason(step="exits", text=text, figures=dict(figures))


def _orders(
    candidate: Candidate, side: Side, sized: Composition, exits: ExitPlan, decision_id: str
) -> tuple[OrderRequest, ...]:
    market, now = candidate.market, candidate.portfolio.now_ms
    entry_id = client_order_id(market.symbol, market.bar_ts, side, Leg.ENTRY)
    entry = OrderRequest(
        client_id=entry_id,
        decision_id=decision_id,
        symbol=market.symbol,
        side=side,
        type=OrderType.MARKET,
        leg=Leg.ENTRY,
        quantity=sized.quantity,
        leverage=sized.leverage,
        created_ms=now,
    )

    def protection(leg: Leg, kind: OrderType, trigger: Decimal) -> OrderRequest:
        return OrderRequest(
            client_id=client_order_id(market.symbol, market.bar_ts, side.opposite, leg),
            decision_id=decision_id,
            symbol=market.symbol,
            side=side.opposite,
            type=kind,
            leg=leg,
            quantity=sized.quantity,
            trigger_price=trigger,
            reduce_only=True,
            parent_id=entry_id,
            leverage=sized.leverage,
            created_ms=now,
        )

    return (
        entry,
        protection(Leg.STOP, OrderType.STOP_MARKET, exits.stop_price),
        protection(Leg.TARGET, OrderType.TAKE_PROFIT_MARKET, exits.target_price),
    )
