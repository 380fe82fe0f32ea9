"""The risk gate: modes, what each allows, and the hard limits that come last.

Drawdown is a fraction of the UTC day's opening equity. The strictest mode wins. Ways back:
DEFENSIVE and CRITICAL end when their cause does; NO_NEW_TRADES and DEFENSIVE_EXIT at the next
UTC day; EMERGENCY_SHUTDOWN and the kill switch when a person lifts them; the peak-to-trough
limit when equity recovers or a person resets the peak.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from tradewind.contracts import OrderRequest, Reason, RefusalCode
from tradewind.settings import RiskSettings
from tradewind.trading.numbers import dec
from tradewind.trading.thresholds import RegimeView
from tradewind.trading.views import PortfolioView, VolatilityLevel


class RiskMode(StrEnum):
    """How much the account may do, mildest first."""

    NORMAL = "NORMAL"
    DEFENSIVE = "DEFENSIVE"
    CRITICAL = "CRITICAL"
    NO_NEW_TRADES = "NO_NEW_TRADES"
    DEFENSIVE_EXIT = "DEFENSIVE_EXIT"
    EMERGENCY_SHUTDOWN = "EMERGENCY_SHUTDOWN"

    @property
    def severity(self) -> int:
        """Return the rank, 0 for NORMAL."""
        return list(RiskMode).index(self)


class ExitMode(StrEnum):
    """How open winners are treated."""

    TREND_FOLLOW = "TREND_FOLLOW"
    DEFENSIVE_TRAIL = "DEFENSIVE_TRAIL"


@dataclass(frozen=True)
class Cause:
    """One finding that asks for a mode; ``code`` is the refusal where entries stop."""

    mode: RiskMode
    text: str
    code: RefusalCode | None = None


@dataclass(frozen=True)
class RiskAssessment:
    """The account's state: the strictest mode and what it allows.

    ``min_conviction`` and ``max_risk`` are fractions; ``refusal`` is set where no new trade is
    allowed.
    """

    mode: RiskMode
    allow_new_trades: bool
    min_conviction: float
    max_risk: float
    exit_mode: ExitMode
    day_drawdown: Decimal
    peak_drawdown: Decimal
    causes: tuple[Cause, ...]
    refusal: RefusalCode | None

    @property
    def text(self) -> str:
        """Return the mode and its causes in one line."""
        why = "; ".join(c.text for c in self.causes) or "no limit is near"
        return f"risk mode {self.mode.value}: {why}"


def drawdown(start: Decimal, now: Decimal) -> Decimal:
    """Return the loss since ``start`` as a fraction, 0 for a gain, 1 where nothing is left."""
    if start <= 0 or now <= 0:
        return Decimal(0) if now > 0 else Decimal(1)
    return max(Decimal(0), (start - now) / start)


def volatility_level(
    settings: RiskSettings, current: float, history: Sequence[float]
) -> VolatilityLevel:
    """Return where ``current`` stands in its distribution (``normal`` without one)."""
    return level_of_rank(settings, volatility_rank(current, sorted(history)))


def volatility_rank(current: float, ordered: Sequence[float]) -> float | None:
    """Return the share of ``ordered`` (ascending) below ``current``; None without any.

    A ``current`` of NaN has no rank either.
    """
    if not ordered or math.isnan(current):
        return None
    return bisect_left(ordered, current) / len(ordered)


def level_of_rank(settings: RiskSettings, rank: float | None) -> VolatilityLevel:
    """Return the level of a share of the history; ``normal`` where there is none."""
    if rank is None:
        return "normal"
    if rank >= 1 - settings.volatility_high_share:
        return "high"
    return "low" if rank < settings.volatility_low_share else "normal"


def _loss_causes(settings: RiskSettings, now: Decimal, worst: Decimal) -> list[Cause]:
    limit = dec(settings.daily_loss)
    causes = []
    # A mode that stops entries holds until the next UTC day, so it looks at the day's worst.
    for mode, share, loss, code in (
        (RiskMode.EMERGENCY_SHUTDOWN, settings.emergency_at, worst, RefusalCode.DAILY_LOSS),
        (RiskMode.DEFENSIVE_EXIT, settings.defensive_exit_at, worst, RefusalCode.DAILY_LOSS),
        (RiskMode.NO_NEW_TRADES, settings.no_new_trades_at, worst, RefusalCode.DAILY_LOSS),
        (RiskMode.CRITICAL, settings.critical_at, now, None),
        (RiskMode.DEFENSIVE, settings.defensive_at, now, None),
    ):
        bound = limit * dec(share)
        reached = loss > bound if mode is RiskMode.NO_NEW_TRADES else loss >= bound
        if reached:
            text = f"day's drawdown {loss:.2%} against a daily loss limit of {limit:.2%}"
            causes.append(Cause(mode, text, code))
            break
    return causes


def _other_causes(settings: RiskSettings, portfolio: PortfolioView, peak: Decimal) -> list[Cause]:
    causes = []
    if portfolio.kill_switch:
        causes.append(
            Cause(RiskMode.EMERGENCY_SHUTDOWN, "the kill switch is on", RefusalCode.KILL_SWITCH)
        )
    if peak > dec(settings.peak_drawdown):
        text = f"drawdown from the peak {peak:.2%} above {settings.peak_drawdown:.2%}"
        causes.append(Cause(RiskMode.NO_NEW_TRADES, text, RefusalCode.DRAWDOWN))
    if portfolio.losing_streak > settings.losing_streak:
        text = f"{portfolio.losing_streak} losses in a row, more than {settings.losing_streak}"
        causes.append(Cause(RiskMode.DEFENSIVE, text))
    if portfolio.volatility_level == "high":
        causes.append(Cause(RiskMode.DEFENSIVE, "volatility is in its top band"))
    return causes


def assess(
    settings: RiskSettings, portfolio: PortfolioView, regime: RegimeView = RegimeView.NEUTRAL
) -> RiskAssessment:
    """Return the account's risk mode with every cause found, strictest first."""
    day = drawdown(portfolio.day_open_equity, portfolio.equity)
    low = portfolio.equity if portfolio.day_low_equity is None else portfolio.day_low_equity
    worst = max(day, drawdown(portfolio.day_open_equity, low))
    peak = drawdown(portfolio.peak_equity, portfolio.equity)
    causes = _other_causes(settings, portfolio, peak) + _loss_causes(settings, day, worst)
    causes.sort(key=lambda c: -c.mode.severity)
    mode = causes[0].mode if causes else RiskMode.NORMAL
    refusal = next((c.code for c in causes if c.code is not None), None)
    if mode is RiskMode.CRITICAL and not settings.critical_allows_entries:
        refusal = RefusalCode.DAILY_LOSS
    minimum, share = _allowance(settings, mode)
    follow = mode is RiskMode.NORMAL and regime is RegimeView.TREND
    return RiskAssessment(
        mode=mode,
        allow_new_trades=refusal is None,
        min_conviction=minimum,
        max_risk=share if refusal is None else 0.0,
        exit_mode=ExitMode.TREND_FOLLOW if follow else ExitMode.DEFENSIVE_TRAIL,
        day_drawdown=day,
        peak_drawdown=peak,
        causes=tuple(causes),
        refusal=refusal,
    )


def _allowance(settings: RiskSettings, mode: RiskMode) -> tuple[float, float]:
    if mode is RiskMode.NORMAL:
        return settings.normal_min_conviction, 1.0
    if mode is RiskMode.DEFENSIVE:
        return settings.defensive_min_conviction, settings.defensive_risk
    return settings.critical_min_conviction, settings.critical_risk


def risk_gate(
    settings: RiskSettings,
    assessment: RiskAssessment,
    *,
    conviction: float,
    open_positions: int,
) -> Reason:
    """Return whether a new trade may pass; ``code`` is set where it may not."""
    figures: dict[str, float | str] = {
        "mode": assessment.mode.value,
        "day_drawdown": float(assessment.day_drawdown),
        "conviction": conviction,
        "min_conviction": assessment.min_conviction,
        "open_positions": float(open_positions),
    }
    code: RefusalCode | None = None
    text = (
        f"{assessment.text}; conviction {conviction:.2f} of at least "
        f"{assessment.min_conviction:.2f}, {open_positions} of {settings.max_positions} positions"
    )
    if assessment.refusal is not None:
        code, text = assessment.refusal, f"{assessment.text}; no new trades"
    elif conviction < assessment.min_conviction:
        code = RefusalCode.LOW_CONVICTION
        text = (
            f"conviction {conviction:.2f} below the {assessment.min_conviction:.2f} "
            f"that {assessment.mode.value} needs ({assessment.text})"
        )
    elif open_positions >= settings.max_positions:
        code = RefusalCode.MAX_POSITIONS
        text = f"{open_positions} positions are open, at most {settings.max_positions} may be"
    return Reason(step="risk gate", text=text, code=code, figures=figures)


def check_hard_limits(
    settings: RiskSettings, order: OrderRequest, price: float | Decimal, portfolio: PortfolioView
) -> Reason | None:
    """Return the first hard limit that ``order`` would break, None when it may be sent.

    Called last by `decide` and again by the executor before sending. ``price`` is the present
    price. Orders that only reduce a position always pass: leaving is never forbidden. The
    number of orders a minute is the executor's to count.
    """
    if order.reduce_only:
        return None
    equity, notional = portfolio.equity, order.quantity * dec(price)
    symbol_room = dec(settings.symbol_exposure) * equity
    total_room = dec(settings.total_exposure) * equity
    symbol_after = portfolio.exposure_of(order.symbol) + notional
    total_after = portfolio.exposure + notional
    day = drawdown(portfolio.day_open_equity, equity)
    positions = len(portfolio.open_positions.keys() | {order.symbol})
    checks: tuple[tuple[bool, RefusalCode, str], ...] = (
        (portfolio.kill_switch, RefusalCode.KILL_SWITCH, "the kill switch is on"),
        (
            day > dec(settings.daily_loss),
            RefusalCode.DAILY_LOSS,
            f"day's drawdown {day:.2%} above {settings.daily_loss:.2%}",
        ),
        (
            positions > settings.max_positions,
            RefusalCode.MAX_POSITIONS,
            f"{positions} positions, at most {settings.max_positions}",
        ),
        (
            order.leverage > settings.leverage_cap,
            RefusalCode.LEVERAGE,
            f"leverage {order.leverage} above {settings.leverage_cap}",
        ),
        (
            notional > settings.max_order_notional,
            RefusalCode.ORDER_NOTIONAL,
            f"notional {notional:.2f} above {settings.max_order_notional}",
        ),
        (
            symbol_after > symbol_room,
            RefusalCode.EXPOSURE,
            f"{order.symbol} exposure {symbol_after:.2f} above {symbol_room:.2f}",
        ),
        (
            total_after > total_room,
            RefusalCode.EXPOSURE,
            f"total exposure {total_after:.2f} above {total_room:.2f}",
        ),
    )
    for broken, code, text in checks:
        if broken:
            return Reason(step="hard limits", text=text, code=code)
    return None
