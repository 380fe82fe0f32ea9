"""What a decision sees of the market and of the account: plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from tradewind.contracts import Side
from tradewind.errors import ErrorCode, TradewindError

VolatilityLevel = Literal["low", "normal", "high"]


@dataclass(frozen=True)
class MarketView:
    """One symbol's features as of a closed bar.

    Parameters
    ----------
    bar_ts
        Open time of the bar, UTC ms.
    price
        Close of the bar.
    atr, risk_atr
        ATR(14) of the trading timeframe (R) and of ``risk_atr_timeframe``, in price units.
    volatility
        Daily volatility: vol_20 × sqrt(bars a day); 0.02 is a normal day.
    regime
        ``trend``, ``neutral`` or ``meanrev``.
    regime_figures
        What the regime detector says of each timeframe and why; recorded with the decision.
    """

    symbol: str
    bar_ts: int
    price: float
    atr: float
    risk_atr: float
    volatility: float
    regime: str
    feature_version: str
    regime_figures: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class PositionView:
    """An open position; ``quantity`` is signed (negative is short), prices per unit.

    ``entry_bar_ts`` is the bar of the entry decision; ``initial_stop_distance`` is frozen at
    entry (R of the realised result).
    """

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    stop_price: Decimal | None
    target_price: Decimal | None
    opened_ms: int
    initial_stop_distance: Decimal
    entry_bar_ts: int

    @property
    def side(self) -> Side:
        """Return the side that opened the position."""
        return Side.BUY if self.quantity > 0 else Side.SELL

    @property
    def notional(self) -> Decimal:
        """Return the unsigned notional at the entry price."""
        return abs(self.quantity) * self.entry_price


@dataclass(frozen=True)
class PortfolioView:
    """The account now, in quote currency.

    Parameters
    ----------
    equity, cash
        Account value with open profit, and the wallet balance without it.
    day_open_equity
        Equity at the opening of the UTC day.
    peak_equity
        Highest equity since a person last reset the peak.
    losing_streak
        Closed trades lost in a row, newest first (0 after a win).
    volatility_level, volatility_rank
        Level of the asked symbol's volatility, and the share of its history below it (None
        where there is no history).
    day_low_equity
        Lowest equity of the UTC day; keeps NO_NEW_TRADES and stricter modes until the next
        day although equity recovers. None: the present equity.
    """

    equity: Decimal
    cash: Decimal
    day_open_equity: Decimal
    peak_equity: Decimal
    open_positions: Mapping[str, PositionView] = field(default_factory=dict)
    losing_streak: int = 0
    volatility_level: VolatilityLevel = "normal"
    volatility_rank: float | None = None
    now_ms: int = 0
    kill_switch: bool = False
    day_low_equity: Decimal | None = None

    def __post_init__(self) -> None:
        """Refuse an account that cannot be reasoned about."""
        for name in ("equity", "cash", "day_open_equity", "peak_equity", "day_low_equity"):
            value = getattr(self, name)
            if value is not None and not value.is_finite():
                raise TradewindError(
                    ErrorCode.BAD_INPUT,
                    f"portfolio {name} = {value} is not a number",
                    "Reconcile the books with the broker before deciding",
                )

    @property
    def exposure(self) -> Decimal:
        """Return the summed notional of the open positions at their entry prices."""
        return sum((p.notional for p in self.open_positions.values()), Decimal(0))

    def exposure_of(self, symbol: str) -> Decimal:
        """Return one symbol's notional, zero where there is no position."""
        position = self.open_positions.get(symbol)
        return position.notional if position else Decimal(0)
