"""What an entry must pass before it is sized: each check answers one `Reason`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from tradewind.contracts import Prediction, Reason, RefusalCode, Side
from tradewind.settings import Settings
from tradewind.trading.compose import proposed_leverage
from tradewind.trading.costs import expected_trip
from tradewind.trading.numbers import dec
from tradewind.trading.record import SymbolRecord
from tradewind.trading.risk import RiskAssessment, risk_gate
from tradewind.trading.thresholds import (
    RegimeView,
    direction,
    entry_threshold,
    side_probability,
)
from tradewind.trading.views import MarketView, PortfolioView

MS_PER_HOUR = 3_600_000
PREDICTION_NUMBERS = (
    "p_up",
    "mu",
    "uncertainty",
    "epistemic",
    "aleatoric",
    "epistemic_p",
    "confidence",
    "conviction",
    "staleness_s",
)
PROBLEM_CODES = {
    "stale_features": RefusalCode.STALE_DATA,
    "no_bars": RefusalCode.STALE_DATA,
    "serving_unreachable": RefusalCode.SERVING_DOWN,
    "overloaded": RefusalCode.SERVING_DOWN,
    **{code.value: code for code in RefusalCode},
}


def problem_code(problem: str, prediction: Prediction | None) -> RefusalCode:
    """Return the refusal for a problem such as ``stale_features: …`` (its first word counts)."""
    known = PROBLEM_CODES.get(problem.split(":", 1)[0].strip())
    if known is not None:
        return known
    return RefusalCode.MISSING_PREDICTION if prediction is None else RefusalCode.BAD_PREDICTION


def bad_numbers(prediction: Prediction) -> tuple[str, ...]:
    """Return the names of the prediction's numbers that are not finite or not in range."""
    unit = {"p_up", "confidence", "conviction"}
    signed = {"mu"}
    bad = []
    for name in PREDICTION_NUMBERS:
        value = getattr(prediction, name)
        if (
            not math.isfinite(value)
            or (name in unit and not 0 <= value <= 1)
            or (name not in signed and value < 0)
        ):
            bad.append(name)
    return tuple(bad)


def bad_features(market: MarketView) -> tuple[str, ...]:
    """Return the names of the market's numbers that no decision can use."""
    bad = [
        name
        for name in ("price", "atr", "risk_atr")
        if not (math.isfinite(getattr(market, name)) and getattr(market, name) > 0)
    ]
    if not (math.isfinite(market.volatility) and market.volatility >= 0):
        bad.append("volatility")
    if not bad and not (0 < market.risk_atr / market.price < math.inf):
        bad.append("risk_atr")
    return tuple(bad)


def check_kill_switch(portfolio: PortfolioView) -> Reason:
    """Refuse everything while the kill switch is on."""
    if portfolio.kill_switch:
        text = "the kill switch is on; only a person lifts it"
        return Reason(step="kill switch", text=text, code=RefusalCode.KILL_SWITCH)
    return Reason(step="kill switch", text="the kill switch is off")


def check_prediction(prediction: Prediction | None, problem: str | None) -> Reason:
    """Refuse a prediction that is missing, reported as unusable, or not a number."""
    if problem is not None:
        code = problem_code(problem, prediction)
        return Reason(step="prediction", text=problem, code=code)
    if prediction is None:
        text = "serving gave no prediction for this bar"
        return Reason(step="prediction", text=text, code=RefusalCode.MISSING_PREDICTION)
    bad = bad_numbers(prediction)
    if bad:
        shown = ", ".join(f"{name} = {getattr(prediction, name)}" for name in bad)
        text = f"not usable: {shown}"
        return Reason(step="prediction", text=text, code=RefusalCode.BAD_PREDICTION)
    text = (
        f"{prediction.model_version} says p_up {prediction.p_up:.4f}, mu {prediction.mu:+.6f}, "
        f"conviction {prediction.conviction:.2f} ({prediction.served_by})"
    )
    return Reason(step="prediction", text=text)


def check_freshness(settings: Settings, prediction: Prediction, now_ms: int) -> Reason:
    """Refuse data older than the limit, by serving's word or by the policy's own clock."""
    step = settings.market.timeframe_ms
    limit = settings.serving.staleness_limit_s
    own = max(0, now_ms - (prediction.bar_ts + 2 * step)) / 1000
    age = max(prediction.staleness_s, own)
    figures: dict[str, float | str] = {"staleness_s": age, "staleness_limit_s": limit}
    if prediction.bar_ts + step > now_ms:
        text = f"bar {prediction.bar_ts} has not closed at {now_ms}"
        code = RefusalCode.BAD_PREDICTION
        return Reason(step="freshness", text=text, code=code, figures=figures)
    if prediction.stale or age > limit:
        text = f"the next bar is {age:.0f} s late, at most {limit:.0f} s are allowed"
        code = RefusalCode.STALE_DATA
        return Reason(step="freshness", text=text, code=code, figures=figures)
    return Reason(step="freshness", text=f"the next bar is {age:.0f} s late", figures=figures)


def check_features(prediction: Prediction, market: MarketView | None) -> Reason:
    """Refuse features of another bar, symbol or version, or features that are no numbers."""
    step = "features"
    if market is None:
        text = f"no features for {prediction.symbol} at bar {prediction.bar_ts}"
        return Reason(step=step, text=text, code=RefusalCode.FEATURE_MISMATCH)
    pairs = [
        ("symbol", prediction.symbol, market.symbol),
        ("bar_ts", prediction.bar_ts, market.bar_ts),
        ("feature_version", prediction.feature_version, market.feature_version),
    ]
    if prediction.regime_computed:
        pairs.append(("regime", prediction.regime, market.regime))
    for name, predicted, held in pairs:
        if predicted != held:
            text = f"{name}: the prediction says {predicted!r}, the features say {held!r}"
            return Reason(step=step, text=text, code=RefusalCode.FEATURE_MISMATCH)
    bad = [f"{name} = {getattr(market, name)}" for name in bad_features(market)]
    if prediction.regime not in set(RegimeView):
        bad.append(f"regime = {prediction.regime!r}")
    if bad:
        text = f"not usable: {', '.join(bad)}"
        return Reason(step=step, text=text, code=RefusalCode.BAD_FEATURES)
    text = (
        f"bar {market.bar_ts}: price {market.price:g}, R {market.atr:g}, risk ATR "
        f"{market.risk_atr:g}, daily volatility {market.volatility:.4f}, {prediction.regime}"
    )
    return Reason(step=step, text=text)


@dataclass(frozen=True)
class Candidate:
    """A usable prediction with its market and account: what the later checks look at."""

    settings: Settings
    prediction: Prediction
    market: MarketView
    portfolio: PortfolioView
    record: SymbolRecord
    regime: RegimeView
    assessment: RiskAssessment

    @property
    def side(self) -> Side | None:
        """Return the more probable side."""
        return direction(self.prediction.p_up)


def check_uncertainty(c: Candidate) -> Reason:
    """Refuse a probability that the model's passes or members do not agree on."""
    limit, spread = c.settings.serving.epistemic_p_limit, c.prediction.epistemic_p
    figures: dict[str, float | str] = {"epistemic_p": spread, "epistemic_p_limit": limit}
    if spread > limit:
        text = f"epistemic_p {spread:.4f} above the limit {limit:.4f}"
        code = RefusalCode.TOO_UNCERTAIN
        return Reason(step="uncertainty", text=text, code=code, figures=figures)
    text = f"epistemic_p {spread:.4f} within {limit:.4f}"
    return Reason(step="uncertainty", text=text, figures=figures)


def check_ranges(c: Candidate) -> Reason:
    """Refuse a prediction on inputs unlike those of training: no spread tells of them."""
    step, outside = "inputs", c.prediction.out_of_range
    if not outside:
        return Reason(step=step, text="every input is within the training range")
    text = f"outside the training range: {', '.join(outside)}"
    figures: dict[str, float | str] = {"out_of_range": float(len(outside))}
    if not c.settings.engine.require_in_range:
        return Reason(step=step, text=f"{text} (not required)", figures=figures)
    return Reason(step=step, text=text, code=RefusalCode.OUT_OF_RANGE, figures=figures)


def check_consensus(c: Candidate) -> Reason:
    """Refuse where the ensemble abstained: its members oppose each other or have no skill."""
    found = c.prediction.consensus
    if found is None:
        return Reason(step="consensus", text="one model answered: there is no vote")
    votes = ", ".join(f"{vote.family} {vote.action.value}" for vote in c.prediction.votes)
    figures: dict[str, float | str] = {"consensus": found}
    code = RefusalCode.NO_CONSENSUS if found == "none" else None
    text = f"consensus {found} ({votes or 'no votes shown'})"
    return Reason(step="consensus", text=text, code=code, figures=figures)


def check_threshold(c: Candidate) -> Reason:
    """Refuse where the more probable side does not reach the adaptive threshold."""
    least = entry_threshold(c.settings.thresholds, c.regime, c.market.volatility)
    figures: dict[str, float | str] = {"threshold": least}
    if c.side is None:
        text = "p_up is exactly one half: no direction"
        code = RefusalCode.BELOW_THRESHOLD
        return Reason(step="threshold", text=text, code=code, figures=figures)
    p = side_probability(c.prediction.p_up, c.side)
    figures |= {"side": c.side.value, "side_probability": p}
    if p < least:
        text = f"{c.side.value} has probability {p:.4f}, {least:.4f} is needed"
        code = RefusalCode.BELOW_THRESHOLD
        return Reason(step="threshold", text=text, code=code, figures=figures)
    text = f"{c.side.value} has probability {p:.4f} of at least {least:.4f}"
    return Reason(step="threshold", text=text, figures=figures)


def check_edge(c: Candidate) -> Reason:
    """Refuse where the expected return does not pay the round trip and the funding.

    Costs are taken for the greatest notional the account's sizing may give: a smaller order
    only costs less.
    """
    s = c.settings
    equity = max(c.portfolio.equity, Decimal(0))
    largest = min(
        equity * dec(s.sizing.margin_cap) * proposed_leverage(s), s.risk.max_order_notional
    )
    hours = Decimal(s.training.horizon) * s.market.timeframe_ms / MS_PER_HOUR
    cost = expected_trip(s.costs, volatility=c.market.volatility, notional=largest, hours=hours)
    sign = c.side.sign if c.side else 0
    expected = sign * c.prediction.mu
    net = expected - float(cost.total)
    figures: dict[str, float | str] = {
        "expected_return": expected,
        "cost_fees": float(cost.fees),
        "cost_slippage": float(cost.slippage),
        "cost_funding": float(cost.funding),
        "cost_total": float(cost.total),
        "net_edge": net,
    }
    text = f"expected {expected * 1e4:+.1f} bps against costs of {float(cost.total) * 1e4:.1f} bps"
    if not s.engine.require_edge:
        return Reason(step="edge", text=f"{text} (not required)", figures=figures)
    code = None if net > 0 else RefusalCode.NO_EDGE
    return Reason(step="edge", text=text, code=code, figures=figures)


def check_position(c: Candidate) -> Reason:
    """Refuse a second position in a symbol."""
    held = c.portfolio.open_positions.get(c.prediction.symbol)
    if held is not None:
        text = f"a position of {held.quantity} is open"
        return Reason(step="position", text=text, code=RefusalCode.POSITION_OPEN)
    return Reason(step="position", text="no position is open in the symbol")


def check_symbol(c: Candidate) -> Reason:
    """Refuse a symbol that its own losing streak has disabled for a while."""
    until, now = c.record.disabled_until_ms, c.portfolio.now_ms
    if until > now:
        hours = (until - now) / MS_PER_HOUR
        text = f"{-c.record.streak} losses in a row: disabled for another {hours:.1f} h"
        return Reason(step="symbol", text=text, code=RefusalCode.SYMBOL_DISABLED)
    return Reason(step="symbol", text="the symbol's own record does not disable it")


def check_risk(c: Candidate) -> Reason:
    """Ask the risk gate: mode, conviction's minimum, number of positions."""
    return risk_gate(
        c.settings.risk,
        c.assessment,
        conviction=c.prediction.conviction,
        open_positions=len(c.portfolio.open_positions),
    )


CHECKS: tuple[Callable[[Candidate], Reason], ...] = (
    check_uncertainty,
    check_ranges,
    check_consensus,
    check_threshold,
    check_edge,
    check_position,
    check_symbol,
    check_risk,
)
"""The checks of a usable prediction, in the order in which a decision tells them."""
