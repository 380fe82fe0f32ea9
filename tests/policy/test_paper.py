"""The paper broker against stored bars: when it fills, at what price, at what cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from policy.brokers.paper import PaperBroker
from tests.support.booking import entry_with_exits, request
from tests.support.synthetic import START_MS
from tests.support.trading_day import STEP, trading_settings
from tradewind.clock import ManualClock
from tradewind.contracts import Leg, OrderStatus, Side
from tradewind.ledger import Ledger
from tradewind.market.store import BarStore
from tradewind.settings import Settings

D = Decimal


@dataclass
class Market:
    """A paper broker and the bars it lives on; the clock stands at the end of bar 30."""

    settings: Settings
    store: BarStore
    clock: ManualClock
    broker: PaperBroker

    def write(self, place: int, *prices: float, volume: float = 10.0) -> None:
        names = ("open", "high", "low", "close")
        values = dict(zip(names, map(float, prices), strict=True))
        row = {"ts": START_MS + place * STEP, **values, "volume": volume}
        self.store.write_bars("BTCUSDT", "15m", pl.DataFrame([row]))

    def go_to(self, place: int, later_ms: int = 0) -> None:
        """Set the clock to the close of bar ``place`` and let the broker live."""
        self.clock.set(START_MS + (place + 1) * STEP + later_ms)
        self.broker.advance(self.clock.now_ms())


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    settings = trading_settings(tmp_path)
    store = BarStore(tmp_path / "store", settings.market.set_id)
    clock = ManualClock(START_MS + 31 * STEP)
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        broker = PaperBroker(settings, ledger, store, clock)
        found = Market(settings, store, clock, broker)
        for place in range(31):
            found.write(place, 100, 100, 100, 100)
        yield found


def test_an_order_fills_at_the_open_of_the_bar_that_starts_with_it(market: Market) -> None:
    market.broker.submit(request())
    market.write(31, 101.5, 103, 101, 102)
    market.broker.advance(market.clock.now_ms())  # that bar has not closed yet
    assert market.broker.fills() == []
    market.go_to(31)
    (fill,) = market.broker.fills()
    assert fill.price == D("101.53")  # 101.50 and at least 2 bps, up to the next tick
    assert fill.ts == START_MS + 31 * STEP


def test_an_order_sent_inside_a_bar_fills_at_the_next_open(market: Market) -> None:
    """The open of the bar that runs lies in the past: nobody could still trade there."""
    market.clock.set(market.clock.now_ms() + 7_000)
    for order in entry_with_exits():
        market.broker.submit(order)
    market.write(31, 90, 120, 80, 101)
    market.go_to(31)
    assert market.broker.fills() == []
    market.write(32, 102, 103, 101, 102)
    market.go_to(32)
    (fill,) = market.broker.fills()
    assert (fill.price, fill.ts) == (D("102.04"), START_MS + 32 * STEP)


def test_a_stop_sent_inside_a_bar_does_not_act_on_what_that_bar_did_before(market: Market) -> None:
    entry, stop, _ = entry_with_exits()
    market.broker.submit(entry)
    market.write(31, 100, 100, 100, 100)
    market.go_to(31, later_ms=7_000)
    market.broker.submit(stop)
    market.write(32, 90, 101, 90, 100)
    market.go_to(32)
    assert [f.leg for f in market.broker.fills()] == [Leg.ENTRY]
    market.write(33, 100, 100, 94, 96)
    market.go_to(33)
    assert [f.leg for f in market.broker.fills()] == [Leg.ENTRY, Leg.STOP]


def test_a_bar_without_volume_is_waited_out(market: Market) -> None:
    market.broker.submit(request())
    market.write(31, 100, 100, 100, 100, volume=0)
    market.write(32, 104, 104, 104, 104)
    market.go_to(32)
    assert [f.ts for f in market.broker.fills()] == [START_MS + 32 * STEP]


def test_a_bar_that_comes_late_is_met_when_it_comes(market: Market) -> None:
    market.broker.submit(request())
    market.go_to(32)
    assert market.broker.fills() == []
    market.write(31, 102, 102, 102, 102)
    market.go_to(32)
    assert [f.ts for f in market.broker.fills()] == [START_MS + 31 * STEP]


def test_a_hole_in_the_bars_is_stepped_over(market: Market) -> None:
    for order in entry_with_exits():
        market.broker.submit(order)
    market.write(33, 100, 101, 99, 100)
    market.write(36, 90, 91, 89, 90)
    market.go_to(36)
    entry, stop = market.broker.fills()
    assert (entry.ts, stop.ts) == (START_MS + 33 * STEP, START_MS + 36 * STEP)
    assert stop.price < 90  # the gap went through the stop at 95


def test_slippage_grows_with_volatility(market: Market) -> None:
    for place in range(31, 60):
        price = 100.0 if place % 2 else 104.0
        market.write(place, price, 104, 100, price)
    market.go_to(59)
    market.broker.submit(request(bar=60))
    market.write(60, 100, 100, 100, 100)
    market.go_to(60)
    assert market.broker.fills()[0].price == D("100.05")  # the greatest slippage, 5 bps


@pytest.mark.parametrize(("known", "rate"), [(True, D("-0.0003")), (False, D("0.0001"))])
def test_funding_is_the_exchanges_where_known(market: Market, known: bool, rate: Decimal) -> None:
    moment = START_MS + 32 * STEP  # 08:00
    if known:
        rows = pl.DataFrame({"ts": [moment], "funding_rate": [-0.0003]})
        market.store.write_series("funding_8h", "BTCUSDT", rows)
    market.broker.submit(request(quantity="2"))
    for place in (31, 32, 33):
        market.write(place, 100, 100, 100, 100)
    market.go_to(33)
    (payment,) = market.broker.funding()
    assert (payment.ts, payment.rate, payment.amount) == (moment, rate, -200 * rate)
    assert market.broker.balance() == D(10_000) - market.broker.fills()[0].fee - 200 * rate
    market.go_to(33)
    assert len(market.broker.funding()) == 1


def test_a_position_opened_at_the_funding_moment_does_not_pay(market: Market) -> None:
    market.write(31, 100, 100, 100, 100)
    market.go_to(31)
    market.broker.submit(request())
    market.write(32, 100, 100, 100, 100)
    market.go_to(32)
    assert len(market.broker.fills()) == 1
    assert market.broker.funding() == []


def test_funding_that_fell_into_a_hole_is_still_paid(market: Market) -> None:
    market.broker.submit(request())
    market.write(31, 100, 100, 100, 100)
    market.write(70, 100, 100, 100, 100)  # 08:00 and 16:00 have no bar
    market.go_to(70)
    assert [p.ts for p in market.broker.funding()] == [START_MS + 32 * STEP, START_MS + 64 * STEP]


def test_margin_counts_positions_open_loss_and_waiting_orders(market: Market) -> None:
    large = request(quantity="150", leverage=D(3))  # 5,000 of margin
    assert market.broker.submit(large).status is OrderStatus.ACCEPTED
    second = request(bar=1, quantity="150", leverage=D(3))
    refused = market.broker.submit(second)
    assert refused.detail.startswith("insufficient_margin")
    market.write(31, 100, 100, 100, 100)
    market.go_to(31)
    third = request(bar=2, quantity="140", leverage=D(3))
    assert market.broker.submit(third).status is OrderStatus.ACCEPTED
    market.broker.cancel(third.client_id)
    market.write(32, 95, 95, 95, 95)  # 750 of open loss
    market.go_to(32)
    fourth = request(bar=3, quantity="140", leverage=D(3))
    assert market.broker.submit(fourth).detail.startswith("insufficient_margin")


def test_children_sent_after_the_entry_filled_still_protect(market: Market) -> None:
    entry, stop, _ = entry_with_exits()
    market.broker.submit(entry)
    market.write(31, 100, 100, 94, 100)
    market.go_to(31)
    assert market.broker.submit(stop).status is OrderStatus.ACCEPTED
    market.write(32, 100, 100, 94, 96)
    market.go_to(32)
    assert [f.leg for f in market.broker.fills()] == [Leg.ENTRY, Leg.STOP]


def test_the_price_is_the_newest_close_the_clock_allows(market: Market) -> None:
    market.write(31, 120, 120, 120, 120)
    assert market.broker.price("BTCUSDT") == D(100)
    market.go_to(31)
    assert market.broker.price("BTCUSDT") == D(120)
    assert market.broker.price("NOSUCH") is None


def test_a_child_never_acts_in_the_bars_before_it_was_sent(market: Market) -> None:
    market.broker.submit(request())
    market.write(31, 100, 100, 100, 100)
    market.write(32, 100, 120, 80, 100)
    market.clock.set(START_MS + 33 * STEP)
    late = request(side=Side.SELL, leg=Leg.STOP, trigger="95", parent=request().client_id)
    market.broker.submit(late)
    market.go_to(32)
    assert [f.leg for f in market.broker.fills()] == [Leg.ENTRY]


@pytest.mark.data
def test_real_minutes_without_trading_fill_nothing(data_root: Path, tmp_path: Path) -> None:
    """On 2024-10-28 the exchange printed four flat bars without volume, 20:00 to 20:45."""
    settings = trading_settings(tmp_path)
    store = BarStore(tmp_path / "store", settings.market.set_id)
    halt = 1_730_145_600_000
    (path,) = (data_root / "binance_usdm_perp_15m").glob("BTCUSDT*.parquet")
    day = pl.read_parquet(path).filter(pl.col("ts").is_between(halt - 40 * STEP, halt + 8 * STEP))
    store.write_bars("BTCUSDT", "15m", day)
    clock = ManualClock(halt)
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        broker = PaperBroker(settings, ledger, store, clock)
        broker.submit(request(quantity="0.1"))
        for place in range(6):
            clock.set(halt + place * STEP)
            broker.advance(clock.now_ms())
        (fill,) = broker.fills()
    opened = day.filter(pl.col("ts") == halt + 4 * STEP)["open"][0]
    assert fill.ts == halt + 4 * STEP
    assert float(fill.price) == pytest.approx(opened, rel=6e-4)
    assert float(fill.price) > opened
