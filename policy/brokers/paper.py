"""The paper broker: a durable exchange that fills orders against real bars.

A market order accepted at T fills at the OPEN of the first bar that opens at or after T, as
soon as that bar has closed by the clock. So an order sent at the very moment a bar closes, as
in a replay, trades at that moment's open and is seen filled one bar later; one sent inside a
bar waits for the next open. No order meets a bar that had opened before it was accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from sqlalchemy import Connection, insert, select, update

from policy.brokers import paper_schema as tables
from policy.brokers.base import BarSource
from policy.brokers.matching import Bar, Exchange, PaperOrder
from policy.brokers.paper_bars import BarReader, funding_times
from policy.brokers.paper_store import (
    ACCOUNT,
    load,
    next_seq,
    order_row,
    read_cursors,
    save,
    to_fill,
    to_order,
    to_payment,
)
from tradewind.clock import Clock
from tradewind.contracts import (
    BrokerOrder,
    BrokerPosition,
    Fill,
    OrderRequest,
    OrderStatus,
    OrderType,
    RefusalCode,
)
from tradewind.ledger import FundingPayment, Ledger
from tradewind.ledger.accounting import ZERO
from tradewind.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "paper_version"
HEAD = "paper_0001"


@dataclass(frozen=True)
class _Quote:
    bar: Bar
    volatility: float
    rates: Mapping[int, Decimal]


class PaperBroker:
    """Plays the exchange in its own tables and its own transactions.

    Parameters
    ----------
    ledger
        Whose database holds the ``paper_*`` tables; its books are never read or written.
    source
        Where bars and funding are read, such as the bar store.
    """

    def __init__(self, settings: Settings, ledger: Ledger, source: BarSource, clock: Clock) -> None:
        self._settings = settings
        self._db = ledger.db
        self._bars = BarReader(settings, source)
        self._clock = clock
        self._db.migrate(MIGRATIONS, version_table=VERSION_TABLE, head=HEAD)
        self._open_account()

    def _open_account(self) -> None:
        row = {"id": ACCOUNT, "cash": self._settings.engine.initial_cash}
        with self._db.write() as connection:
            self._db.insert_ignore(connection, tables.account, [row])

    # -- orders -------------------------------------------------------------------------

    def submit(self, request: OrderRequest) -> BrokerOrder:
        """Accept or reject an order; a client id sent before returns its order."""
        now = self._clock.now_ms()
        known = self.order(request.client_id)
        prices = {} if known else self._prices_for(request, now)
        with self._db.write() as connection:
            again = self._repeated(connection, request.client_id)
            if again is not None:
                return again
            exchange = load(connection, self._settings, lock=True)
            refusal = self._refusal(exchange, request, prices)
            order = self._accept(connection, exchange, request, refusal, now)
        return _answer(order)

    @staticmethod
    def _repeated(connection: Connection, client_id: str) -> BrokerOrder | None:
        found = tables.orders.c.client_id == client_id
        row = connection.execute(select(tables.orders).where(found)).first()
        if row is None:
            return None
        connection.execute(
            update(tables.orders).where(found).values(repeats=tables.orders.c.repeats + 1)
        )
        return _answer(to_order(row))

    def _accept(
        self,
        connection: Connection,
        exchange: Exchange,
        request: OrderRequest,
        refusal: str,
        now: int,
    ) -> PaperOrder:
        step = self._settings.market.timeframe_ms
        order = PaperOrder(
            **request.model_dump(exclude={"decision_id", "created_ms"}),
            seq=next_seq(connection),
            status=OrderStatus.REJECTED if refusal else OrderStatus.ACCEPTED,
            filled_quantity=ZERO,
            average_price=None,
            detail=refusal,
            active_from=-(-now // step) * step,
            updated_ms=now,
        )
        connection.execute(insert(tables.orders).values(order_row(order)))
        if not refusal and request.symbol not in exchange.busy():
            row = {"symbol": request.symbol, "next_ts": order.active_from}
            self._db.upsert(connection, tables.cursors, row)
        return order

    def _prices_for(self, request: OrderRequest, now: int) -> dict[str, Decimal]:
        with self._db.read() as connection:
            exchange = load(connection, self._settings)
        symbols = {request.symbol, *exchange.busy()}
        found = {symbol: self._bars.last_close(symbol, now) for symbol in symbols}
        return {symbol: price for symbol, price in found.items() if price is not None}

    def _refusal(
        self, exchange: Exchange, request: OrderRequest, prices: Mapping[str, Decimal]
    ) -> str:
        """Return why the exchange refuses an order, an empty text when it does not."""
        risk = self._settings.risk
        price = prices.get(request.symbol)
        if price is None:
            return f"{RefusalCode.UNKNOWN_SYMBOL.value}: {request.symbol} is not listed"
        if request.quantity % risk.quantity_step != 0:
            return f"precision: quantity {request.quantity} is no multiple of {risk.quantity_step}"
        trigger = request.trigger_price
        if (trigger is None) != (request.type is OrderType.MARKET):
            return f"precision: a {request.type.value} order with trigger {trigger}"
        if trigger is not None and (trigger <= 0 or trigger % risk.price_tick != 0):
            return f"precision: trigger {trigger} is no multiple of {risk.price_tick}"
        if request.reduce_only:
            return self._reduce_refusal(exchange, request)
        notional = request.quantity * price
        if notional < risk.min_notional:
            code = RefusalCode.BELOW_MIN_NOTIONAL.value
            return f"{code}: notional {notional:.2f} below {risk.min_notional}"
        free = self._free_margin(exchange, prices)
        needed = notional / request.leverage + notional * self._settings.costs.taker
        if needed > free:
            code = RefusalCode.NO_MARGIN.value
            return f"{code}: {needed:.2f} needed, {free:.2f} free"
        return ""

    @staticmethod
    def _reduce_refusal(exchange: Exchange, request: OrderRequest) -> str:
        parent = exchange.orders.get(request.parent_id) if request.parent_id else None
        if parent is not None and parent.is_open:
            return ""
        holding = exchange.holdings.get(request.symbol)
        if holding is None or holding.quantity * request.side.sign > 0:
            return "reduce-only: there is no position to reduce"
        return ""

    def _free_margin(self, exchange: Exchange, prices: Mapping[str, Decimal]) -> Decimal:
        free = exchange.cash
        for holding in exchange.holdings.values():
            value = holding.quantity * prices.get(holding.symbol, holding.entry_price)
            free += value - holding.cost - abs(holding.cost) / holding.leverage
        for order in exchange.orders.values():
            if order.is_open and not order.reduce_only and order.symbol in prices:
                free -= order.quantity * prices[order.symbol] / order.leverage
        return free

    def order(self, client_id: str) -> BrokerOrder | None:
        """Return an order by client id, None when it never arrived."""
        query = select(tables.orders).where(tables.orders.c.client_id == client_id)
        with self._db.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else _answer(to_order(row))

    def open_orders(self) -> list[BrokerOrder]:
        """Return accepted orders that can still fill, oldest first."""
        query = (
            select(tables.orders)
            .where(tables.orders.c.status == OrderStatus.ACCEPTED.value)
            .order_by(tables.orders.c.seq)
        )
        with self._db.read() as connection:
            return [_answer(to_order(row)) for row in connection.execute(query)]

    def cancel(self, client_id: str) -> BrokerOrder | None:
        """End an open order, and the children of an entry that never filled."""
        now = self._clock.now_ms()
        with self._db.write() as connection:
            exchange = load(connection, self._settings, lock=True)
            order = exchange.orders.get(client_id)
            if order is not None and order.is_open:
                exchange.end(order, OrderStatus.CANCELED, "canceled by request", now)
                save(connection, exchange)
        return self.order(client_id)

    # -- the account --------------------------------------------------------------------

    def positions(self) -> list[BrokerPosition]:
        """Return net open positions by symbol."""
        with self._db.read() as connection:
            exchange = load(connection, self._settings)
        return [
            BrokerPosition(
                symbol=holding.symbol,
                quantity=holding.quantity,
                entry_price=holding.entry_price,
                opened_ms=holding.opened_ms,
            )
            for holding in exchange.holdings.values()
        ]

    def balance(self) -> Decimal:
        """Return the wallet balance, without open profit."""
        with self._db.read() as connection:
            cash: Decimal = connection.execute(select(tables.account.c.cash)).scalar_one()
        return cash

    def price(self, symbol: str) -> Decimal | None:
        """Return the close of the newest closed bar."""
        return self._bars.last_close(symbol, self._clock.now_ms())

    def fills(self, since_ms: int = 0) -> list[Fill]:
        """Return executions at or after ``since_ms``, in order."""
        found = tables.fills.c
        query = select(tables.fills).where(found.ts >= since_ms).order_by(found.seq)
        with self._db.read() as connection:
            return [to_fill(row) for row in connection.execute(query)]

    def funding(self, since_ms: int = 0) -> list[FundingPayment]:
        """Return funding at or after ``since_ms``, in order."""
        found = tables.funding.c
        query = select(tables.funding).where(found.ts >= since_ms)
        with self._db.read() as connection:
            rows = connection.execute(query.order_by(found.ts, found.symbol)).all()
        return [to_payment(row) for row in rows]

    def client_ids(self) -> list[str]:
        """Return the client id of every order ever received, once per order."""
        query = select(tables.orders.c.client_id).order_by(tables.orders.c.seq)
        with self._db.read() as connection:
            return list(connection.execute(query).scalars())

    def repeats(self) -> int:
        """Return how many orders were sent again under a known client id."""
        with self._db.read() as connection:
            return sum(connection.execute(select(tables.orders.c.repeats)).scalars())

    # -- time ---------------------------------------------------------------------------

    def advance(self, now_ms: int) -> None:
        """Meet every bar that has closed at ``now_ms``, one transaction for each open time."""
        with self._db.read() as connection:
            busy = load(connection, self._settings).busy()
            cursors = read_cursors(connection)
        quotes: dict[int, dict[str, _Quote]] = {}
        for symbol in sorted(busy):
            for quote in self._quotes(symbol, cursors[symbol], now_ms):
                quotes.setdefault(quote.bar.ts, {})[symbol] = quote
        for ts in sorted(quotes):
            self._step(ts, quotes[ts])

    def _quotes(self, symbol: str, cursor: int, now_ms: int) -> list[_Quote]:
        step = self._settings.market.timeframe_ms
        seen, bars = self._bars.read(symbol, cursor, now_ms)
        quotes = []
        for bar in bars:
            rates = {
                moment: self._bars.funding_rate(symbol, moment)
                for moment in funding_times(cursor, bar.ts)
            }
            quotes.append(_Quote(bar, self._bars.volatility(seen), rates))
            seen.append(bar)
            cursor = bar.ts + step
        return quotes

    def _step(self, ts: int, quotes: Mapping[str, _Quote]) -> None:
        after = ts + self._settings.market.timeframe_ms
        with self._db.write() as connection:
            exchange = load(connection, self._settings, lock=True)
            cursors = read_cursors(connection)
            for symbol, quote in quotes.items():
                if symbol not in exchange.busy() or cursors[symbol] > ts:
                    continue  # another process has met this bar meanwhile
                for moment, rate in quote.rates.items():
                    exchange.pay_funding(symbol, moment, quote.bar.open, rate)
                exchange.meet(symbol, quote.bar, volatility=quote.volatility, last_ms=after - 1)
                row = {"symbol": symbol, "next_ts": after}
                self._db.upsert(connection, tables.cursors, row)
            save(connection, exchange)


def _answer(order: PaperOrder) -> BrokerOrder:
    return BrokerOrder(
        client_id=order.client_id,
        broker_id=f"paper-{order.seq}",
        symbol=order.symbol,
        side=order.side,
        type=order.type,
        leg=order.leg,
        quantity=order.quantity,
        status=order.status,
        filled_quantity=order.filled_quantity,
        average_price=order.average_price,
        reduce_only=order.reduce_only,
        detail=order.detail,
        updated_ms=order.updated_ms,
    )
