"""What a trade costs: fees, slippage and funding. One model for every room.

Fees and slippage are fractions of notional per side; money is quote currency, Decimal.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tradewind.settings import CostSettings
from tradewind.trading.numbers import dec

FUNDING_HOURS = Decimal(8)


@dataclass(frozen=True)
class TripCost:
    """Expected cost of one round trip, each part a fraction of the notional."""

    fees: Decimal
    slippage: Decimal
    funding: Decimal

    @property
    def total(self) -> Decimal:
        """Return the whole cost as a fraction of the notional."""
        return self.fees + self.slippage + self.funding


def slippage(volatility: float, notional: Decimal, settings: CostSettings) -> Decimal:
    """Return the expected slippage of one side, as a fraction of the price.

    ``min + per_volatility × volatility + per_notional × notional``, held within
    [``slippage_min``, ``slippage_max``]: 3 bps for a small order on a normal day (0.02).
    """
    raw = (
        settings.slippage_min
        + settings.slippage_per_volatility * dec(volatility)
        + settings.slippage_per_notional * notional
    )
    return min(max(raw, settings.slippage_min), settings.slippage_max)


def round_trip_cost(
    notional: Decimal, slippage: Decimal, fee_in: Decimal, fee_out: Decimal
) -> Decimal:
    """Return fees and slippage of entering and leaving ``notional``, in quote currency."""
    return notional * (fee_in + fee_out + 2 * slippage)


def funding(notional: Decimal, hours: Decimal, rate: Decimal) -> Decimal:
    """Return the funding of holding ``notional`` for ``hours`` at ``rate`` per 8 hours."""
    return notional * rate * hours / FUNDING_HOURS


def taker_round_trip(settings: CostSettings) -> Decimal:
    """Return the fees of a market entry and a market exit, as a fraction."""
    return 2 * settings.taker


def expected_trip(
    settings: CostSettings, *, volatility: float, notional: Decimal, hours: Decimal
) -> TripCost:
    """Return the expected cost of a taker round trip held for ``hours``.

    Funding counts as a cost for both sides: a short is not promised what it may receive.
    """
    one_side = slippage(volatility, notional, settings)
    return TripCost(
        fees=taker_round_trip(settings),
        slippage=2 * one_side,
        funding=funding(Decimal(1), hours, settings.funding_8h),
    )
