"""The account and the market as a decision sees them, built from what is durable alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import polars as pl

from policy.brokers.base import Broker
from tradewind.contracts import Leg, OrderRequest
from tradewind.ledger import EquityHistory, EquityPoint, Ledger, Position, TradeResult
from tradewind.ledger.accounting import ZERO
from tradewind.regimes.kinds import RegimeReading
from tradewind.settings import MS_PER_DAY, Settings
from tradewind.trading.record import ClosedTrade, SymbolRecord, symbol_record
from tradewind.trading.views import MarketView, PortfolioView, PositionView


class Features(Protocol):
    """What the policy reads of a feature row."""

    @property
    def symbol(self) -> str: ...
    @property
    def bar_ts(self) -> int: ...
    @property
    def close(self) -> float: ...
    @property
    def atr(self) -> float: ...
    @property
    def risk_atr(self) -> float: ...
    @property
    def volatility(self) -> float: ...
    @property
    def regime(self) -> str: ...
    @property
    def regimes(self) -> Sequence[RegimeReading]: ...
    @property
    def feature_version(self) -> str: ...


class FeatureSource(Protocol):
    """Where feature rows are read: `tradewind.features.view.FeatureView`."""

    def latest(self, symbol: str) -> Features:
        """Return the row of the newest closed bar; raises `TradewindError` without one."""
        ...

    def frame(self, symbol: str, *, start_ms: int, until_ms: int) -> pl.DataFrame:
        """Return feature rows (``vol_20`` at least) opening from ``start_ms``, closed by
        ``until_ms``; raises `TradewindError` without bars.
        """
        ...


def market_view(row: Features) -> MarketView:
    """Return a feature row as the trading rules read it."""
    return MarketView(
        symbol=row.symbol,
        bar_ts=row.bar_ts,
        price=row.close,
        atr=row.atr,
        risk_atr=row.risk_atr,
        volatility=row.volatility,
        regime=row.regime,
        feature_version=row.feature_version,
        regime_figures=regime_figures(row.regimes),
    )


def regime_figures(regimes: Sequence[RegimeReading]) -> dict[str, float | str]:
    """Return what a decision records of the regimes: state and confidence by timeframe.

    The metrics are those of the first, the trading timeframe, where they are numbers.
    """
    figures: dict[str, float | str] = {}
    for place, reading in enumerate(regimes):
        figures[f"regime_{reading.timeframe}"] = reading.regime.value
        figures[f"regime_{reading.timeframe}_confidence"] = reading.confidence
        if place == 0:
            known = {n: v for n, v in reading.metrics.items() if math.isfinite(v)}
            figures |= {f"regime_{name}": value for name, value in known.items()}
    return figures


@dataclass(frozen=True)
class Account:
    """The books at one moment, with everything a decision derives from them."""

    settings: Settings
    now_ms: int
    cash: Decimal
    positions: tuple[Position, ...]
    working: tuple[OrderRequest, ...]
    pending: tuple[OrderRequest, ...]
    prices: dict[str, Decimal]
    history: EquityHistory | None
    results: tuple[TradeResult, ...]

    @property
    def unrealised(self) -> Decimal:
        """Return the open profit at present prices."""
        return sum(
            (p.quantity * (self.prices[p.symbol] - p.entry_price) for p in self.positions), ZERO
        )

    @property
    def equity(self) -> Decimal:
        """Return cash and open profit."""
        return self.cash + self.unrealised

    def view(self, *, kill_switch: bool) -> PortfolioView:
        """Return the account as the trading rules read it; pending entries count as held."""
        equity = self.equity
        past = self.history or EquityHistory(equity, equity, equity)
        held = {p.symbol: position_view(p) for p in self.positions}
        for order in self.pending:
            held.setdefault(order.symbol, _pending_view(order, self.prices.get(order.symbol, ZERO)))
        return PortfolioView(
            equity=equity,
            cash=self.cash,
            day_open_equity=past.day_open,
            peak_equity=equity if past.peak is None else max(past.peak, equity),
            open_positions=held,
            losing_streak=losing_streak(self.results),
            now_ms=self.now_ms,
            kill_switch=kill_switch,
            day_low_equity=min(past.day_low, equity),
        )

    def record(self, symbol: str) -> SymbolRecord:
        """Return a symbol's own record."""
        trades = [
            ClosedTrade(result.closed_ms, result.pnl, result.realised_r)
            for result in self.results
            if result.symbol == symbol
        ]
        return symbol_record(self.settings.sizing, self.settings.risk, trades, self.now_ms)

    def mark(self, ts: int) -> EquityPoint:
        """Return the account's value, to be stored for the moment ``ts``."""
        exposure = sum((abs(p.quantity) * self.prices[p.symbol] for p in self.positions), ZERO)
        return EquityPoint(
            ts=ts,
            equity=self.equity,
            cash=self.cash,
            unrealised=self.unrealised,
            open_positions=len(self.positions),
            exposure=exposure,
        )


def losing_streak(results: Sequence[TradeResult]) -> int:
    """Return how many of the newest trades in a row did not win."""
    count = 0
    for result in reversed(results):
        if result.pnl > 0:
            break
        count += 1
    return count


def position_view(position: Position) -> PositionView:
    """Return a booked position as the trading rules read it."""
    return PositionView(
        symbol=position.symbol,
        quantity=position.quantity,
        entry_price=position.entry_price,
        stop_price=position.stop_price,
        target_price=position.target_price,
        opened_ms=position.opened_ms,
        initial_stop_distance=position.stop_distance,
        entry_bar_ts=position.entry_bar_ts,
    )


def _pending_view(order: OrderRequest, price: Decimal) -> PositionView:
    return PositionView(
        symbol=order.symbol,
        quantity=order.side.sign * order.quantity,
        entry_price=price,
        stop_price=None,
        target_price=None,
        opened_ms=order.created_ms,
        initial_stop_distance=ZERO,
        entry_bar_ts=0,
    )


def day_start(now_ms: int) -> int:
    """Return the UTC day's first millisecond."""
    return now_ms // MS_PER_DAY * MS_PER_DAY


def bar_start(settings: Settings, now_ms: int) -> int:
    """Return the open time of the bar that is running."""
    return now_ms // settings.market.timeframe_ms * settings.market.timeframe_ms


class AccountReader:
    """Reads the account; what cannot change within a cycle is read once for all of it."""

    def __init__(self, settings: Settings, ledger: Ledger, broker: Broker) -> None:
        self._settings = settings
        self._ledger = ledger
        self._broker = broker
        self._prices: dict[str, Decimal | None] = {}
        self._history: EquityHistory | None = None
        self._now_ms = 0

    def begin(self, now_ms: int) -> None:
        """Start a cycle: present prices are asked anew."""
        self._now_ms = now_ms
        self._prices = {}
        self._history = self._ledger.equity_history(
            day_start(now_ms),
            bar_start(self._settings, now_ms),
            self._ledger.peak_since(now_ms),
        )

    def price(self, symbol: str) -> Decimal | None:
        """Return the broker's present price, asked once a cycle."""
        if symbol not in self._prices:
            self._prices[symbol] = self._broker.price(symbol)
        return self._prices[symbol]

    def read(self, *, without: str | None = None) -> Account:
        """Read the account from the ledger; ``without`` leaves one pending entry out.

        A position without a present price counts at its entry.
        """
        held = self._ledger.snapshot()
        pending = tuple(
            order
            for order in (*held.unsent, *held.working)
            if order.leg is Leg.ENTRY and order.client_id != without
        )
        prices = {position.symbol: position.entry_price for position in held.positions}
        for symbol in {*prices, *(order.symbol for order in pending)}:
            price = self.price(symbol)
            if price is not None:
                prices[symbol] = price
        since = self._now_ms - int(self._settings.sizing.record_days * MS_PER_DAY)
        return Account(
            settings=self._settings,
            now_ms=self._now_ms,
            cash=held.cash,
            positions=held.positions,
            working=held.working,
            pending=pending,
            prices=prices,
            history=self._history,
            results=tuple(self._ledger.trade_results(since_ms=since)),
        )
