"""What every broker does, paper or real."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

import polars as pl

from tradewind.contracts import BrokerOrder, BrokerPosition, Fill, OrderRequest
from tradewind.ledger.records import FundingPayment


class BarSource(Protocol):
    """Where closed bars are read: `tradewind.market.store.BarStore`, or a test's own."""

    def read_bars(
        self,
        symbol: str,
        timeframe: str,
        *,
        until_ms: int,
        start_ms: int | None = None,
        last: int | None = None,
    ) -> pl.DataFrame:
        """Return bars closed at ``until_ms``: ts, open, high, low, close, volume."""
        ...

    def read_series(
        self, kind: str, symbol: str, *, until_ms: int, start_ms: int | None = None
    ) -> pl.DataFrame:
        """Return rows of a companion series known at ``until_ms``."""
        ...


class Broker(Protocol):
    """A place that holds money and executes orders. Its word is the truth.

    Every method raises `TradewindError` when the outcome is not known (a timeout, an
    unreachable exchange); then only asking by client id may settle it, never sending again
    under another id. A refusal is no error: it is an order with status ``rejected``.
    """

    def submit(self, request: OrderRequest) -> BrokerOrder:
        """Send an order; a client id sent before returns that order and never a second."""
        ...

    def order(self, client_id: str) -> BrokerOrder | None:
        """Return the order with this client id, None when the broker never accepted one."""
        ...

    def open_orders(self) -> list[BrokerOrder]:
        """Return accepted orders that can still fill, conditional ones too, oldest first."""
        ...

    def cancel(self, client_id: str) -> BrokerOrder | None:
        """End an open order; one that has ended stays as it is; None when unknown."""
        ...

    def positions(self) -> list[BrokerPosition]:
        """Return net open positions by symbol."""
        ...

    def balance(self) -> Decimal:
        """Return the wallet balance in quote currency, without open profit."""
        ...

    def price(self, symbol: str) -> Decimal | None:
        """Return the present price that open profit is counted at, None when unknown."""
        ...

    def fills(self, since_ms: int = 0) -> list[Fill]:
        """Return executions at or after ``since_ms``, in the order they happened."""
        ...

    def funding(self, since_ms: int = 0) -> list[FundingPayment]:
        """Return funding paid or received at or after ``since_ms``, in order."""
        ...

    def advance(self, now_ms: int) -> None:
        """Let a simulated exchange live up to ``now_ms``; a real one does so by itself."""
        ...
