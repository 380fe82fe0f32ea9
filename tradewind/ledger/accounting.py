"""How a fill changes a position and the money: exact, pure, the same for every book.

A position carries the signed entry value of what is open (``cost``); a partial close takes
its share of it, the last close takes all that is left. So the realised results of a trade
add up to what was received minus what was paid, to the last digit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal

QUANTUM = Decimal("1e-12")
ZERO = Decimal(0)


def quantise(value: Decimal) -> Decimal:
    """Round to 12 decimals, so that stored money has an end."""
    return value.quantize(QUANTUM, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True)
class OpenTrade:
    """A position with all that its trade has done so far.

    ``quantity`` and ``cost`` are signed (negative is short); opened and closed figures,
    ``fees`` and ``stop_distance`` are unsigned; ``realised`` is before fees and funding.
    """

    trade_id: str
    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    opened_quantity: Decimal = ZERO
    opened_value: Decimal = ZERO
    closed_quantity: Decimal = ZERO
    closed_value: Decimal = ZERO
    realised: Decimal = ZERO
    fees: Decimal = ZERO
    funding: Decimal = ZERO

    @property
    def open_price(self) -> Decimal:
        """Return the average price of what is still open."""
        return quantise(self.cost / self.quantity)

    @property
    def entry_price(self) -> Decimal:
        """Return the average price of all that was ever opened in the trade."""
        return quantise(self.opened_value / self.opened_quantity)

    @property
    def exit_price(self) -> Decimal:
        """Return the average price of what was closed."""
        return quantise(self.closed_value / self.closed_quantity)

    @property
    def pnl(self) -> Decimal:
        """Return the realised result net of fees and funding."""
        return self.realised - self.fees + self.funding


@dataclass(frozen=True)
class Applied:
    """What one fill did: the trade it ended, the one that is open after, the money."""

    closed: OpenTrade | None
    opened: OpenTrade | None
    realised: Decimal


def apply_fill(
    trade: OpenTrade | None, *, fill_id: str, signed: Decimal, price: Decimal, fee: Decimal
) -> Applied:
    """Return the books after a fill of ``signed`` units (positive buys) at ``price``.

    A fill larger than an opposite position closes it and opens one the other way, the fee
    shared by quantity.
    """
    if trade is None:
        return Applied(None, _open(OpenTrade(fill_id), signed, price, fee), ZERO)
    if trade.quantity * signed > 0:
        return Applied(None, _open(trade, signed, price, fee), ZERO)
    closing = min(abs(signed), abs(trade.quantity))
    closing_fee = fee if closing == abs(signed) else quantise(fee * closing / abs(signed))
    after, realised = _close(trade, closing, price, closing_fee)
    if after.quantity != 0:
        return Applied(None, after, realised)
    rest = abs(signed) - closing
    if rest == 0:
        return Applied(after, None, realised)
    turned = _open(OpenTrade(fill_id), rest if signed > 0 else -rest, price, fee - closing_fee)
    return Applied(after, turned, realised)


def _open(trade: OpenTrade, signed: Decimal, price: Decimal, fee: Decimal) -> OpenTrade:
    return replace(
        trade,
        quantity=trade.quantity + signed,
        cost=trade.cost + signed * price,
        opened_quantity=trade.opened_quantity + abs(signed),
        opened_value=trade.opened_value + abs(signed) * price,
        fees=trade.fees + fee,
    )


def _close(
    trade: OpenTrade, quantity: Decimal, price: Decimal, fee: Decimal
) -> tuple[OpenTrade, Decimal]:
    sign = 1 if trade.quantity > 0 else -1
    whole = quantity == abs(trade.quantity)
    cost = trade.cost if whole else quantise(trade.cost * quantity / abs(trade.quantity))
    realised = sign * quantity * price - cost
    after = replace(
        trade,
        quantity=trade.quantity - sign * quantity,
        cost=trade.cost - cost,
        closed_quantity=trade.closed_quantity + quantity,
        closed_value=trade.closed_value + quantity * price,
        realised=trade.realised + realised,
        fees=trade.fees + fee,
    )
    return after, realised
