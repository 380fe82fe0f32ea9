"""From intent to booked order: the one path that sends, and that repairs what a kill left.

An intent is durable before it is sent, and marked ``sending`` before the broker hears of it.
So an intent that is ``new`` was never sent; one that is ``sending`` may have been, and the
broker is asked by client id before anything else happens. Start-up is this same path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

from policy.brokers.base import Broker
from policy.portfolio import AccountReader, bar_start
from tradewind.contracts import (
    BrokerOrder,
    Fill,
    IntentStatus,
    Leg,
    OrderRequest,
    RefusalCode,
)
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import FundingPayment, Ledger, StoredIntent
from tradewind.settings import TIMEFRAME_MS, Settings
from tradewind.trading.risk import check_hard_limits

Hook = Callable[[str], None]
MS_PER_MINUTE = 60_000


def nothing(_name: str) -> None:
    """Do nothing: the hook of every engine outside the crash tests."""


class Sender:
    """Sends intents and books what the broker says.

    Parameters
    ----------
    at
        Called with a step's name before and after every durable change, so that a test can
        end the process exactly there.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        broker: Broker,
        accounts: AccountReader,
        at: Hook = nothing,
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._ledger = ledger
        self._broker = broker
        self._at = at

    # -- sending ------------------------------------------------------------------------

    def finish_intents(self, now_ms: int) -> None:
        """Bring every intent to its end: sent and booked, refused, or expired."""
        for decision in self._ledger.unfinished_decisions():
            self._ledger.add_intents(decision.orders)
        for stored in self._ledger.open_intents():
            self._finish(stored, now_ms)

    def _finish(self, stored: StoredIntent, now_ms: int) -> None:
        request = stored.intent.order
        known = None
        if stored.intent.status is IntentStatus.SENDING:
            known = self._broker.order(request.client_id)
        if known is None:
            end = self._reason_not_to_send(stored, now_ms)
            if end is not None:
                status, why = end
                self._ledger.mark_intent(request.client_id, status, why)
                return
            self._at("send:before")
            self._ledger.mark_intent(request.client_id, IntentStatus.SENDING)
            self._at("send:marked")
            known = self._broker.submit(request)
            self._at("send:accepted")
        self.book(known)

    def _reason_not_to_send(
        self, stored: StoredIntent, now_ms: int
    ) -> tuple[IntentStatus, str] | None:
        request = stored.intent.order
        if request.parent_id is not None:
            return self._orphaned(request.parent_id)
        if request.leg is not Leg.ENTRY:
            held = {position.symbol for position in self._ledger.positions()}
            if request.symbol in held:
                return None
            return IntentStatus.EXPIRED, "no position is left to close"
        if now_ms >= stored.bar_ts + 2 * TIMEFRAME_MS[stored.timeframe]:
            return IntentStatus.EXPIRED, f"{RefusalCode.LATE.value}: another bar has closed"
        broken = self._broken_limit(request, now_ms)
        return None if broken is None else (IntentStatus.REJECTED, f"refused: {broken}")

    def _orphaned(self, parent_id: str) -> tuple[IntentStatus, str] | None:
        parent = self._ledger.intent(parent_id)
        if parent is not None and parent.status is IntentStatus.BOOKED:
            return None
        return IntentStatus.EXPIRED, "its entry was not sent"

    def _broken_limit(self, request: OrderRequest, now_ms: int) -> str | None:
        """Return which hard limit an entry would break now, None when it may be sent."""
        risk = self._settings.risk
        account = self._accounts.read(without=request.client_id)
        price = self._accounts.price(request.symbol)
        if price is None:
            return f"{RefusalCode.UNKNOWN_SYMBOL.value}: the broker has no price"
        view = account.view(kill_switch=self._ledger.kill_switch.state().engaged)
        broken = check_hard_limits(risk, request, price, view)
        if broken is not None and broken.code is not None:
            return f"{broken.code.value}: {broken.text}"
        recent = self._ledger.orders_since(now_ms - MS_PER_MINUTE)
        if recent >= risk.max_orders_per_minute:
            return f"rate: {recent} orders in a minute, at most {risk.max_orders_per_minute}"
        return None

    # -- booking ------------------------------------------------------------------------

    def book(self, order: BrokerOrder) -> None:
        """Book an order's state, and its fills where it has any."""
        fills: list[Fill] = []
        if order.filled_quantity > 0:
            intent = self._ledger.intent(order.client_id)
            created = intent.order.created_ms if intent else 0
            since = bar_start(self._settings, created)
            fills = [f for f in self._broker.fills(since) if f.client_id == order.client_id]
        self._book(order, fills)

    def _book(self, order: BrokerOrder, fills: list[Fill]) -> None:
        self._at("book:before")
        self._ledger.book(order, fills)
        self._at("book:after")

    def book_news(self) -> None:
        """Book what happened at the broker since: funding and fills in order, then the rest."""
        working = self._ledger.working_orders()
        still_open = {order.client_id for order in self._broker.open_orders()}
        self._book_events(self._new_events(working))
        for request in self._ledger.working_orders():
            if request.client_id not in still_open:
                self.book(self._known(request.client_id))

    def _known(self, client_id: str) -> BrokerOrder:
        """Return an order that the broker must know.

        Raises
        ------
        TradewindError
            ``ledger_unbalanced`` when it does not: its word and our books cannot both be true.
        """
        order = self._broker.order(client_id)
        if order is None:
            raise TradewindError(
                ErrorCode.LEDGER_UNBALANCED,
                f"the broker does not know order {client_id}, which it accepted or filled",
                "Compare with `tradewind ledger check`; was the broker's account reset?",
            )
        return order

    def _new_events(self, working: Sequence[OrderRequest]) -> list[Fill | FundingPayment]:
        starts = [bar_start(self._settings, request.created_ms) for request in working]
        last = self._ledger.last_fill_ms()
        since = min([*starts, *([] if last is None else [last])], default=0)
        fills = self._broker.fills(since)
        booked = self._ledger.booked_fills([fill.fill_id for fill in fills])
        funding = self._broker.funding(self._ledger.last_funding_ms() or 0)
        events: list[Fill | FundingPayment] = [
            *funding,
            *(fill for fill in fills if fill.fill_id not in booked),
        ]
        return sorted(events, key=lambda e: (e.ts, isinstance(e, Fill)))

    def _book_events(self, events: list[Fill | FundingPayment]) -> None:
        for event in events:
            if isinstance(event, FundingPayment):
                self._ledger.book_funding([event])
                continue
            self._book(self._known(event.client_id), [event])

    # -- tidying ------------------------------------------------------------------------

    def sweep(self, now_ms: int) -> None:
        """Cancel what must not wait any longer: late entries, exits without a position."""
        books = self._ledger.snapshot()
        entries = {order.client_id for order in books.working if order.leg is Leg.ENTRY}
        held = {position.symbol for position in books.positions}
        for request in books.working:
            if request.leg is Leg.ENTRY:
                wanted = now_ms >= self._entry_deadline(request)
            else:
                wanted = request.symbol not in held and request.parent_id not in entries
            if wanted:
                entries.discard(request.client_id)
                ended = self._broker.cancel(request.client_id)
                if ended is not None:
                    self.book(ended)

    def _entry_deadline(self, request: OrderRequest) -> int:
        """Return when the bar that may fill it, and those it may wait for, have closed."""
        step = self._settings.market.timeframe_ms
        first = -(-request.created_ms // step) * step
        return first + (1 + self._settings.engine.entry_wait_bars) * step


def book_of(broker: Broker) -> tuple[Decimal, dict[str, Decimal]]:
    """Return what the broker holds: cash, and signed quantities by symbol."""
    return broker.balance(), {p.symbol: p.quantity for p in broker.positions()}
