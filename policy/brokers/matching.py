"""How orders meet a bar: pure rules of a simulated exchange, pessimistic where a bar is silent.

Within a bar: funding that fell due, market orders at the open, then stops, then targets. A
price that gapped through a trigger fills at the open. One child's fill cancels its siblings.
A reduce-only order never turns a position round; without one it is cancelled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal

from tradewind.contracts import Fill, Leg, OrderStatus, OrderType, Side
from tradewind.ledger.accounting import ZERO, OpenTrade, apply_fill, quantise
from tradewind.ledger.records import FundingPayment
from tradewind.settings import CostSettings
from tradewind.trading.costs import slippage
from tradewind.trading.numbers import round_down, round_up

MONEY = Decimal("1e-8")  # exchanges book money in eight decimals


@dataclass(frozen=True)
class Bar:
    """A closed bar; prices are Decimals on the symbol's tick, ``ts`` its open time."""

    ts: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: float


@dataclass
class PaperOrder:
    """An order at the simulated exchange."""

    client_id: str
    seq: int
    symbol: str
    side: Side
    type: OrderType
    leg: Leg
    quantity: Decimal
    trigger_price: Decimal | None
    reduce_only: bool
    parent_id: str | None
    leverage: Decimal
    status: OrderStatus
    filled_quantity: Decimal
    average_price: Decimal | None
    detail: str
    active_from: int
    updated_ms: int
    repeats: int = 0

    @property
    def is_open(self) -> bool:
        """Return whether it can still fill."""
        return self.status is OrderStatus.ACCEPTED


@dataclass
class Holding:
    """A net position: signed quantity and entry value."""

    symbol: str
    quantity: Decimal
    cost: Decimal
    leverage: Decimal
    opened_ms: int

    @property
    def entry_price(self) -> Decimal:
        """Return the average entry price."""
        return quantise(self.cost / self.quantity)


@dataclass
class Exchange:
    """The simulated exchange's state, and what a step added to it."""

    costs: CostSettings
    tick: Decimal
    cash: Decimal
    orders: dict[str, PaperOrder]
    holdings: dict[str, Holding]
    new_fills: list[Fill] = field(default_factory=list)
    new_funding: list[FundingPayment] = field(default_factory=list)

    def busy(self) -> set[str]:
        """Return the symbols that a bar can change."""
        return {o.symbol for o in self.orders.values() if o.is_open} | set(self.holdings)

    def pay_funding(self, symbol: str, ts: int, price: Decimal, rate: Decimal) -> None:
        """Charge a long (a positive rate) or credit a short for holding over ``ts``."""
        holding = self.holdings.get(symbol)
        if holding is None:
            return
        amount = -(holding.quantity * price * rate).quantize(MONEY, rounding=ROUND_HALF_EVEN)
        self.cash += amount
        self.new_funding.append(FundingPayment(f"paper-{symbol}-{ts}", symbol, amount, rate, ts))

    def meet(self, symbol: str, bar: Bar, *, volatility: float, last_ms: int) -> None:
        """Match a symbol's orders against a bar; ``last_ms`` is the last moment inside it.

        Without volume nothing trades.
        """
        if bar.volume <= 0:
            return
        for order in self._active(symbol, bar.ts, (OrderType.MARKET,)):
            self._fill(order, bar.open, max(bar.ts, order.updated_ms), volatility)
        for kind in (OrderType.STOP_MARKET, OrderType.TAKE_PROFIT_MARKET):
            for order in self._active(symbol, bar.ts, (kind,)):
                price = touched_price(order, bar)
                if price is not None and order.is_open:
                    ts = bar.ts if price == bar.open else last_ms
                    self._fill(order, price, max(ts, order.updated_ms), volatility)

    def _active(self, symbol: str, ts: int, kinds: Iterable[OrderType]) -> list[PaperOrder]:
        """Return open orders that may trade in a bar, oldest first."""
        found = [
            order
            for order in self.orders.values()
            if order.symbol == symbol
            and order.is_open
            and order.type in kinds
            and order.active_from <= ts
            and self._parent_filled(order)
        ]
        return sorted(found, key=lambda order: order.seq)

    def _parent_filled(self, order: PaperOrder) -> bool:
        parent = self.orders.get(order.parent_id) if order.parent_id else None
        return parent is None or parent.filled_quantity > 0

    def _fill(self, order: PaperOrder, price: Decimal, ts: int, volatility: float) -> None:
        quantity = order.quantity
        holding = self.holdings.get(order.symbol)
        if order.reduce_only:
            held = ZERO if holding is None else -order.side.sign * holding.quantity
            quantity = min(quantity, held)
            if quantity <= 0:
                self.end(order, OrderStatus.CANCELED, "reduce-only without a position", ts)
                return
        paid = self._slipped(order.side, price, quantity, volatility)
        fee = (quantity * paid * self.costs.taker).quantize(MONEY, rounding=ROUND_HALF_EVEN)
        fill = Fill(
            fill_id=f"paper-{order.client_id}",
            client_id=order.client_id,
            symbol=order.symbol,
            side=order.side,
            leg=order.leg,
            quantity=quantity,
            price=paid,
            fee=fee,
            ts=ts,
        )
        self._settle(order, fill)
        order.filled_quantity, order.average_price = quantity, paid
        self.end(order, OrderStatus.FILLED, order.detail, ts)
        self.new_fills.append(fill)
        if order.parent_id is not None:
            for sibling in self._children(order.parent_id):
                self.end(sibling, OrderStatus.CANCELED, f"{order.leg.value} filled", ts)

    def _slipped(self, side: Side, price: Decimal, quantity: Decimal, volatility: float) -> Decimal:
        share = slippage(volatility, quantity * price, self.costs)
        worse = price * (1 + side.sign * share)
        rounded = round_up(worse, self.tick) if side is Side.BUY else round_down(worse, self.tick)
        return max(rounded, self.tick)

    def _settle(self, order: PaperOrder, fill: Fill) -> None:
        holding = self.holdings.pop(fill.symbol, None)
        held = OpenTrade("", quantity=holding.quantity, cost=holding.cost) if holding else None
        applied = apply_fill(
            held,
            fill_id="",
            signed=fill.side.sign * fill.quantity,
            price=fill.price,
            fee=fill.fee,
        )
        self.cash += applied.realised - fill.fee
        if applied.opened is not None:
            fresh = holding is None or applied.closed is not None
            self.holdings[fill.symbol] = Holding(
                symbol=fill.symbol,
                quantity=applied.opened.quantity,
                cost=applied.opened.cost,
                leverage=order.leverage if fresh or holding is None else holding.leverage,
                opened_ms=fill.ts if fresh or holding is None else holding.opened_ms,
            )

    def _children(self, parent_id: str) -> list[PaperOrder]:
        return [o for o in self.orders.values() if o.parent_id == parent_id and o.is_open]

    def end(self, order: PaperOrder, status: OrderStatus, detail: str, ts: int) -> None:
        """End an order, and the children of one that never filled."""
        order.status, order.detail = status, detail
        order.updated_ms = max(ts, order.updated_ms)
        if status is not OrderStatus.FILLED and order.filled_quantity == 0:
            for child in self._children(order.client_id):
                self.end(child, OrderStatus.CANCELED, f"its entry was {status.value}", ts)


def touched_price(order: PaperOrder, bar: Bar) -> Decimal | None:
    """Return where a conditional order trades in a bar, None where it is not touched."""
    trigger = order.trigger_price
    if trigger is None:
        return None
    # A sell stop and a buy target wait below the price, the other two above it.
    waits_below = (order.side is Side.SELL) == (order.type is OrderType.STOP_MARKET)
    if waits_below:
        if bar.open <= trigger:
            return bar.open
        return trigger if bar.low <= trigger else None
    if bar.open >= trigger:
        return bar.open
    return trigger if bar.high >= trigger else None
