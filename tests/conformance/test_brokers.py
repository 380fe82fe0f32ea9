"""What every broker must do; each broker passes this one class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from policy.brokers.base import Broker
from policy.brokers.paper import PaperBroker
from tests.support.booking import entry_with_exits, request
from tests.support.synthetic import START_MS
from tradewind.clock import ManualClock
from tradewind.contracts import Leg, OrderStatus, OrderType, Side
from tradewind.ledger import Ledger
from tradewind.market.store import BarStore
from tradewind.settings import Settings

STEP = 900_000
D = Decimal


@dataclass
class Venue:
    """A broker with a market whose next bars a test writes itself.

    ``reopen`` returns the broker as a new process would find it.
    """

    broker: Broker
    reopen: Callable[[], Broker]
    trade_bar: Callable[[str, float, float, float, float], None]

    def flat_bar(self, symbol: str = "BTCUSDT", price: float = 100.0) -> None:
        """Let one bar pass at one price."""
        self.trade_bar(symbol, price, price, price, price)


class BrokerConformance:
    """The behaviour that the engine's safety rests on. Prices start at 100."""

    @pytest.fixture
    def venue(self) -> Venue:
        raise NotImplementedError

    def test_a_client_id_is_one_order_however_often_it_is_sent(self, venue: Venue) -> None:
        order = request()
        first = venue.broker.submit(order)
        assert first.status is OrderStatus.ACCEPTED
        again = [venue.broker.submit(order), venue.reopen().submit(order)]
        assert {o.broker_id for o in again} == {first.broker_id}
        assert len(venue.broker.open_orders()) == 1
        venue.flat_bar()
        assert len(venue.broker.fills()) == 1
        assert venue.broker.submit(order).status is OrderStatus.FILLED
        venue.flat_bar()
        assert [p.quantity for p in venue.broker.positions()] == [D(1)]

    def test_an_order_never_sent_is_not_known(self, venue: Venue) -> None:
        assert venue.broker.order("tw-unknown") is None
        assert venue.broker.cancel("tw-unknown") is None

    def test_an_accepted_order_is_found_by_a_new_process(self, venue: Venue) -> None:
        sent = venue.broker.submit(request())
        assert venue.reopen().order(sent.client_id) == sent

    def test_a_market_order_fills_once_and_is_paid_for(self, venue: Venue) -> None:
        cash = venue.broker.balance()
        order = request(quantity="2")
        venue.broker.submit(order)
        venue.flat_bar()
        (fill,) = venue.broker.fills()
        assert (fill.client_id, fill.side, fill.quantity) == (order.client_id, Side.BUY, D(2))
        assert fill.fee > 0
        assert venue.broker.balance() == cash - fill.fee
        done = venue.broker.order(order.client_id)
        assert done is not None
        assert (done.status, done.filled_quantity) == (OrderStatus.FILLED, D(2))
        assert done.average_price == fill.price

    def test_children_wait_for_their_entry_and_one_ends_the_other(self, venue: Venue) -> None:
        entry, stop, target = entry_with_exits()
        for order in (entry, stop, target):
            assert venue.broker.submit(order).status is OrderStatus.ACCEPTED
        venue.flat_bar()
        assert len(venue.broker.fills()) == 1
        venue.trade_bar("BTCUSDT", 100, 111, 100, 100)
        assert [f.leg for f in venue.broker.fills()] == [Leg.ENTRY, Leg.TARGET]
        ended = venue.broker.order(stop.client_id)
        assert ended is not None
        assert ended.status is OrderStatus.CANCELED
        assert venue.broker.positions() == []
        assert venue.broker.open_orders() == []

    def test_a_canceled_entry_takes_its_children_with_it(self, venue: Venue) -> None:
        orders = entry_with_exits()
        for order in orders:
            venue.broker.submit(order)
        canceled = venue.broker.cancel(orders[0].client_id)
        assert canceled is not None
        assert canceled.status is OrderStatus.CANCELED
        venue.trade_bar("BTCUSDT", 100, 120, 80, 100)
        assert venue.broker.fills() == []
        assert venue.broker.open_orders() == []

    def test_what_has_ended_cannot_be_canceled(self, venue: Venue) -> None:
        order = request()
        venue.broker.submit(order)
        venue.flat_bar()
        ended = venue.broker.cancel(order.client_id)
        assert ended is not None
        assert ended.status is OrderStatus.FILLED

    def test_reduce_only_never_turns_a_position_round(self, venue: Venue) -> None:
        venue.broker.submit(request(quantity="1"))
        venue.flat_bar()
        venue.broker.submit(request(bar=2, side=Side.SELL, leg=Leg.EXIT, quantity="5"))
        venue.flat_bar()
        assert venue.broker.positions() == []
        assert [f.quantity for f in venue.broker.fills()] == [D(1), D(1)]

    def test_reduce_only_without_a_position_is_refused(self, venue: Venue) -> None:
        leave = venue.broker.submit(request(side=Side.SELL, leg=Leg.EXIT))
        assert leave.status is OrderStatus.REJECTED
        venue.broker.submit(request(quantity="1"))
        venue.flat_bar()
        same_way = request(bar=3, side=Side.BUY, leg=Leg.EXIT)
        assert venue.broker.submit(same_way).status is OrderStatus.REJECTED

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"quantity": D("100000")}, "insufficient_margin"),
            ({"quantity": D("0.01")}, "below_min_notional"),
            ({"quantity": D("1.0000000001")}, "precision"),
            (
                {"type": OrderType.STOP_MARKET, "trigger_price": D("99.001")},
                "precision",
            ),
            ({"symbol": "NOSUCH"}, "unknown_symbol"),
        ],
    )
    def test_a_refusal_is_an_order_with_a_reason_and_lasts(
        self, venue: Venue, change: dict[str, object], why: str
    ) -> None:
        order = request().model_copy(update=change)
        refused = venue.broker.submit(order)
        assert refused.status is OrderStatus.REJECTED
        assert refused.detail.startswith(why)
        assert venue.broker.submit(order) == refused
        assert venue.broker.open_orders() == []

    def test_fills_are_told_again_from_any_moment(self, venue: Venue) -> None:
        venue.broker.submit(request())
        venue.flat_bar()
        venue.broker.submit(request(bar=1, side=Side.SELL, leg=Leg.EXIT))
        venue.flat_bar()
        told = venue.broker.fills()
        assert len(told) == 2
        assert venue.reopen().fills() == told
        assert venue.broker.fills(told[1].ts) == told[1:]
        assert venue.broker.fills(told[1].ts + 1) == []

    def test_living_through_the_same_time_twice_changes_nothing(self, venue: Venue) -> None:
        for order in entry_with_exits():
            venue.broker.submit(order)
        venue.trade_bar("BTCUSDT", 100, 101, 94, 96)
        state = (venue.broker.fills(), venue.broker.balance(), venue.broker.open_orders())
        for broker in (venue.broker, venue.reopen()):
            broker.advance(START_MS + 31 * STEP)
            assert (broker.fills(), broker.balance(), broker.open_orders()) == state

    def test_the_result_of_a_round_trip_is_in_the_balance(self, venue: Venue) -> None:
        cash = venue.broker.balance()
        venue.broker.submit(request(side=Side.SELL, quantity="3"))
        venue.flat_bar()
        venue.broker.submit(request(bar=1, side=Side.BUY, leg=Leg.EXIT, quantity="3"))
        venue.flat_bar(price=90)
        opened, closed = venue.broker.fills()
        gained = 3 * (opened.price - closed.price)
        assert gained > 25
        assert venue.broker.balance() == cash + gained - opened.fee - closed.fee


class TestPaperBroker(BrokerConformance):
    """The paper broker over a real store."""

    @pytest.fixture
    def venue(self, tmp_path: Path, make_settings: Callable[..., Settings]) -> Iterator[Venue]:
        settings = make_settings()
        store = BarStore(tmp_path / "store", settings.market.set_id)
        ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
        clock = ManualClock(START_MS + 30 * STEP)
        history = [bar(START_MS + i * STEP, 100, 100, 100, 100) for i in range(30)]
        store.write_bars("BTCUSDT", "15m", pl.DataFrame(history))

        def reopen() -> PaperBroker:
            other = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
            opened.append(other)
            return PaperBroker(settings, other, store, clock)

        broker = PaperBroker(settings, ledger, store, clock)
        opened = [ledger]

        def trade_bar(symbol: str, first: float, high: float, low: float, last: float) -> None:
            row = bar(clock.now_ms(), first, high, low, last)
            store.write_bars(symbol, "15m", pl.DataFrame([row]))
            clock.set(clock.now_ms() + STEP)
            broker.advance(clock.now_ms())

        yield Venue(broker, reopen, trade_bar)
        for item in opened:
            item.close()


def bar(ts: int, first: float, high: float, low: float, last: float) -> dict[str, float]:
    names = ("open", "high", "low", "close", "volume")
    values = (float(first), float(high), float(low), float(last), 10.0)
    return {"ts": ts, **dict(zip(names, values, strict=True))}
