"""The seven strategy profiles: exits in multiples of R = ATR(14) of the trading timeframe.

``python -m tradewind.trading.profiles`` prints the guide's table.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tradewind.contracts import Side
from tradewind.errors import ErrorCode, TradewindError
from tradewind.trading.numbers import dec
from tradewind.trading.thresholds import RegimeView

FIRST_TARGET_SHARE: Final = 0.6
EVERY_REGIME: Final = frozenset(RegimeView)
TRENDS: Final = frozenset({RegimeView.TREND})
RANGES: Final = frozenset({RegimeView.MEANREV})
CALM: Final = frozenset({RegimeView.NEUTRAL, RegimeView.MEANREV})


@dataclass(frozen=True)
class StrategyProfile:
    """One way to end a trade.

    All ``*_r`` are multiples of R. ``prior_win_rate`` is the prior at a cold start;
    ``partial_share`` of the position is closed at TP1; the stop moves to the entry at
    ``break_even_r`` and trails by ``trail_r`` from ``trail_from_r`` on.
    """

    name: str
    tp2_r: float
    prior_win_rate: float
    regimes: frozenset[RegimeView]
    suits: str
    first_target_r: float | None = None
    stop_r: float = 1.0
    partial_share: float = 0.5
    break_even_r: float = 1.0
    trail_from_r: float = 2.0
    trail_r: float = 1.0

    @property
    def tp1_r(self) -> float:
        """Return the first target, 0.6 of the second where the profile names none."""
        return (
            FIRST_TARGET_SHARE * self.tp2_r if self.first_target_r is None else self.first_target_r
        )

    @property
    def expectancy_r(self) -> float:
        """Return the expected R from the prior, everything closed at TP2 or at the stop."""
        return self.prior_win_rate * self.tp2_r - (1 - self.prior_win_rate) * self.stop_r

    def prices(self, entry: float | Decimal, atr: float | Decimal, side: Side) -> ProfilePrices:
        """Return stop and targets around ``entry``; a short mirrors a long."""
        level, r = dec(entry), side.sign * dec(atr)
        return ProfilePrices(
            stop=level - r * dec(self.stop_r),
            tp1=level + r * dec(self.tp1_r),
            tp2=level + r * dec(self.tp2_r),
        )


@dataclass(frozen=True)
class ProfilePrices:
    """A profile's levels for one entry, before rounding to ticks."""

    stop: Decimal
    tp1: Decimal
    tp2: Decimal


DEFAULT_PROFILE: Final = "moderate"
PROFILES: Final[dict[str, StrategyProfile]] = {
    p.name: p
    for p in (
        StrategyProfile("defensive", 1.8, 0.55, CALM, "low volatility"),
        StrategyProfile("moderate", 2.3, 0.52, EVERY_REGIME, "all markets"),
        StrategyProfile("moderate_aggressive", 3.0, 0.50, TRENDS, "trends"),
        StrategyProfile("balanced_aggressive", 4.5, 0.48, TRENDS, "strong trends"),
        StrategyProfile("ultra_aggressive", 5.0, 0.45, EVERY_REGIME, "model signals", 3.0),
        StrategyProfile("scalp", 1.5, 0.60, RANGES, "ranges"),
        StrategyProfile("trend_rider", 6.5, 0.40, TRENDS, "strong trends"),
    )
}


def profile(name: str = DEFAULT_PROFILE) -> StrategyProfile:
    """Return a profile by name.

    Raises
    ------
    TradewindError
        ``bad_input``, listing the profiles there are.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"strategy profile {name!r} does not exist",
            f"Choose one of {', '.join(PROFILES)}",
        ) from None


def profile_table() -> str:
    """Return the Markdown table of the profiles."""
    rows = [
        "| profile | stop | TP1 | TP2 | prior win rate | expectancy | suits |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows += [
        f"| {p.name} | {p.stop_r:g}R | {p.tp1_r:g}R | {p.tp2_r:g}R | {p.prior_win_rate:.0%} "
        f"| {p.expectancy_r:+.2f}R | {p.suits} |"
        for p in PROFILES.values()
    ]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(profile_table())
