"""The engine: decides once a bar, sends once, protects, stops, and says why."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text

from policy.brokers.paper import PaperBroker
from policy.engine import Engine, run_live, run_replay
from policy.sending import Hook, nothing
from tests.support.booking import answer
from tests.support.synthetic import START_MS
from tests.support.trading_day import (
    STEP,
    SYMBOLS,
    ScriptedFeatures,
    prediction,
    trading_settings,
    write_market,
)
from tradewind.clock import ManualClock, last_closed_bar
from tradewind.contracts import (
    BrokerOrder,
    IntentStatus,
    Leg,
    OrderRequest,
    OrderStatus,
    Prediction,
)
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import EquityPoint, Ledger, LedgerClock, Position, open_ledger
from tradewind.market.store import BarStore
from tradewind.settings import Settings

FIRST = START_MS + 30 * STEP


@dataclass
class Script:
    """Says what a test wants to hear; by default BTC goes up and nothing else moves."""

    clock: ManualClock
    p_up: dict[str, float] = field(default_factory=lambda: {"BTCUSDT": 0.8})
    problem: str | None = None
    lag: int = 0
    changes: dict[str, object] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def predict(
        self, symbols: Sequence[str], decision_ids: Mapping[str, str]
    ) -> dict[str, Prediction | str]:
        self.asked.append(tuple(symbols))
        if self.problem is not None:
            return dict.fromkeys(symbols, self.problem)
        bar_ts = last_closed_bar(self.clock.now_ms(), "15m") - self.lag * STEP
        return {
            s: prediction(s, bar_ts, self.p_up.get(s, 0.5), **self.changes) for s in symbols
        }


class Refusing(PaperBroker):
    """A paper broker that refuses stops, as an exchange may."""

    def submit(self, request: OrderRequest) -> BrokerOrder:
        if request.leg is Leg.STOP:
            return answer(request, OrderStatus.REJECTED, detail="would trigger at once")
        return super().submit(request)


@dataclass
class House:
    """An engine with everything around it, on a clock that a test moves."""

    settings: Settings
    ledger: Ledger
    store: BarStore
    clock: ManualClock
    script: Script
    broker: PaperBroker
    at: Hook = nothing

    def engine(self) -> Engine:
        features = ScriptedFeatures(self.store, self.clock)
        return Engine(
            self.settings,
            self.ledger,
            self.broker,
            self.clock,
            self.script,
            features,
            at=self.at,
        )

    def cycle(self, bar: int = 0, later_ms: int = 0) -> None:
        """Run one cycle at the close of bar 29 + ``bar``."""
        self.clock.set(FIRST + bar * STEP + later_ms)
        engine = self.engine()
        with engine.running() as steps:
            engine.cycle(steps)

    def refusals(self) -> dict[str, str | None]:
        rows = self.ledger.decisions().sort("bar_ts").to_dicts()
        return {row["symbol"]: row["refusal"] for row in rows}

    def legs(self) -> list[Leg]:
        return [fill.leg for fill in self.ledger.fills()]

    def position(self) -> Position:
        (found,) = self.ledger.positions()
        return found


def build(folder: Path, **overrides: object) -> House:
    settings = trading_settings(folder / "home", **overrides)
    store = write_market(settings, 80)
    ledger = open_ledger(settings)
    clock = ManualClock(FIRST)
    broker = PaperBroker(settings, ledger, store, clock)
    return House(settings, ledger, store, clock, Script(clock), broker)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return build(tmp_path)


def test_an_entry_is_decided_sent_filled_and_protected(house: House) -> None:
    house.cycle()
    entry, stop, target = house.ledger.working_orders()
    assert (entry.leg, stop.leg, target.leg) == (Leg.ENTRY, Leg.STOP, Leg.TARGET)
    assert house.legs() == []
    house.cycle(1)
    assert house.legs() == [Leg.ENTRY]
    held = house.position()
    assert held.quantity == entry.quantity
    assert (held.stop_price, held.target_price) == (stop.trigger_price, target.trigger_price)
    assert held.entry_bar_ts == FIRST - STEP
    assert house.engine().check().ok


def test_a_bar_is_decided_once_however_many_cycles_see_it(house: House) -> None:
    for later in (0, 30_000, 60_000):
        house.cycle(later_ms=later)
    assert house.script.asked == [SYMBOLS]
    assert house.ledger.count_decisions() == 3
    assert len(house.broker.open_orders()) == 3
    house.script.p_up["BTCUSDT"] = 0.1  # a changed mind changes no decision
    house.cycle(later_ms=90_000)
    assert len(house.broker.open_orders()) == 3


def test_a_position_pending_or_open_takes_no_second_entry(house: House) -> None:
    house.script.p_up = dict.fromkeys(SYMBOLS, 0.8)
    for bar in range(3):
        house.cycle(bar)
    rows = house.ledger.decisions(symbol="BTCUSDT")["refusal"].to_list()
    assert rows == [None, "position_open", "position_open"]


def test_pending_entries_count_towards_the_greatest_number_of_positions(tmp_path: Path) -> None:
    house = build(tmp_path, risk={"max_positions": 2})
    house.script.p_up = dict.fromkeys(SYMBOLS, 0.8)
    house.cycle()
    assert house.refusals()["SOLUSDT"] == "max_open_positions"
    assert sum(o.leg is Leg.ENTRY for o in house.ledger.working_orders()) == 2


def test_a_position_is_left_after_its_time(house: House) -> None:
    house.cycle()
    house.script.p_up = {}
    for bar in range(1, 8):
        house.cycle(bar)
    trade = house.ledger.trades().row(0, named=True)
    assert trade["exit_reason"] in ("stop", "target") or trade["exit_reason"].startswith(
        "time exit"
    )
    assert house.ledger.positions() == []
    assert house.broker.open_orders() == []
    assert house.engine().check().ok


@pytest.mark.parametrize(
    ("problem", "refusal"),
    [
        ("serving_unreachable: nobody listens on 127.0.0.1:8000", "serving_down"),
        ("stale_features: 900 s old", "stale_data"),
        ("internal: what", "missing_prediction"),
    ],
)
def test_without_a_prediction_it_holds_and_says_why(
    house: House, problem: str, refusal: str
) -> None:
    house.script.problem = problem
    house.cycle()
    assert set(house.refusals().values()) == {refusal}
    assert house.broker.client_ids() == []


def test_a_fallback_that_is_switched_off_is_hold(house: House) -> None:
    house.script.changes = {
        "model_type": "lightgbm",
        "model_version": "tradewind.lightgbm.POOLED/3",
    }
    house.ledger.set_member_state("lightgbm", "POOLED", enabled=False, why="flips")
    house.cycle()
    row = house.ledger.decisions(symbol="BTCUSDT").row(0, named=True)
    assert (row["action"], row["refusal"], row["source"]) == ("hold", "missing_prediction", "none")
    assert "lightgbm.POOLED is switched off (flips)" in house.ledger.explain("latest").text()
    house.ledger.set_member_state("lightgbm", "POOLED", enabled=True, why="retrained")
    house.cycle(1)
    row = house.ledger.decisions(symbol="BTCUSDT").row(-1, named=True)
    assert (row["action"], row["source"]) == ("buy", "fallback")


@pytest.mark.parametrize(("today", "level"), [(0.02, "high"), (0.0, "low")])
def test_a_decision_knows_where_its_symbols_volatility_stands(
    house: House, today: float, level: str
) -> None:
    """Ninety days of bars before, and one look at them a day."""
    house.features.volatility = today
    house.cycle(70)  # bar 99: the second day
    house.cycle(71)
    (found,) = [
        house.ledger.decision(row["decision_id"])
        for row in house.ledger.decisions(symbol="BTCUSDT").to_dicts()[:1]
    ]
    assert found is not None
    assert found.inputs["volatility_level"] == level
    assert found.inputs["volatility_rank"] == (1.0 if level == "high" else 0.0)


def test_an_answer_for_another_bar_is_hold(house: House) -> None:
    house.script.lag = 1
    house.cycle()
    assert house.refusals()["BTCUSDT"] == "feature_mismatch"


@pytest.mark.parametrize(("lag", "refusal"), [(0, "feature_mismatch"), (10, "stale_data")])
def test_bars_that_stopped_are_not_traded(house: House, lag: int, refusal: str) -> None:
    house.script.lag = lag
    house.cycle(60)  # ten bars after the last that was written
    assert set(house.refusals().values()) == {refusal}
    assert house.broker.client_ids() == []


def test_a_symbol_without_bars_is_hold_and_not_asked_for(tmp_path: Path) -> None:
    house = build(tmp_path, market={"symbols": [*SYMBOLS, "XRPUSDT"]})
    house.cycle()
    assert house.refusals()["XRPUSDT"] == "stale_data"
    assert house.script.asked == [SYMBOLS]


# -- the kill switch --------------------------------------------------------------------


def test_the_kill_switch_stops_entries_within_a_cycle_and_leaves_exits_standing(
    house: House,
) -> None:
    house.cycle()
    house.cycle(1)
    house.ledger.kill_switch.engage("drill")
    house.script.p_up = dict.fromkeys(SYMBOLS, 0.8)
    house.cycle(2)
    newest = house.ledger.decisions(since_ms=FIRST + STEP)["refusal"].to_list()
    assert newest == ["kill_switch"] * 3
    assert len(house.ledger.positions()) == 1
    assert {o.leg for o in house.ledger.working_orders()} == {Leg.STOP, Leg.TARGET}
    house.ledger.kill_switch.lift("drill over", who="tester")
    house.cycle(3)
    assert "kill_switch" not in house.ledger.decisions(since_ms=FIRST + 2 * STEP)["refusal"]


def test_the_kill_switch_flattens_where_it_is_told_to(house: House) -> None:
    house.cycle()
    house.cycle(1)
    house.ledger.kill_switch.engage("drill", flatten=True)
    house.cycle(2)
    house.cycle(3)
    assert house.ledger.positions() == []
    assert house.broker.positions() == []
    assert house.broker.open_orders() == []
    assert house.ledger.trades()["exit_reason"][0].startswith("risk mode EMERGENCY_SHUTDOWN")


def test_a_waiting_halving_does_not_keep_a_position_from_being_closed(tmp_path: Path) -> None:
    house = build(tmp_path, risk={"daily_loss": 0.0001, "emergency_at": 1000})
    house.cycle(28)
    house.script.p_up = {}
    house.cycle(29)  # the fee alone asks for DEFENSIVE_EXIT; the quiet hour comes next
    house.cycle(30)
    legs = [order.leg for order in house.ledger.working_orders()]
    assert legs.count(Leg.REDUCE) == 1
    assert Leg.EXIT not in legs
    house.ledger.kill_switch.engage("drill", flatten=True)
    house.cycle(31)
    legs = [order.leg for order in house.ledger.working_orders()]
    assert (legs.count(Leg.REDUCE), legs.count(Leg.EXIT)) == (1, 1)
    house.cycle(36)
    assert house.broker.positions() == []
    assert house.ledger.positions() == []
    assert house.broker.open_orders() == []
    assert house.engine().check().ok


def test_the_peaks_limit_ends_when_a_person_resets_it(tmp_path: Path) -> None:
    house = build(tmp_path, risk={"daily_loss": 1.0, "peak_drawdown": 0.10})
    high = Decimal(20_000)
    mark = EquityPoint(FIRST - 200 * STEP, high, high, Decimal(0), 0, Decimal(0))
    house.ledger.record_equity(mark)
    house.cycle()
    assert house.refusals()["BTCUSDT"] == "drawdown_limit"
    house.ledger.reset_peak(FIRST + STEP - 1, who="ann", why="capital was taken out")
    house.cycle(1)
    assert house.refusals()["BTCUSDT"] is None


def test_an_emergency_closes_everything_and_only_a_person_ends_it(tmp_path: Path) -> None:
    house = build(tmp_path, risk={"daily_loss": 0.00001})
    house.cycle()
    house.cycle(1)  # the entry's fee alone is more than twice the day's loss
    state = house.ledger.kill_switch.state()
    assert state.engaged
    assert "EMERGENCY_SHUTDOWN" in state.reason
    house.cycle(2)
    house.cycle(100)  # the next day
    assert house.ledger.positions() == []
    assert set(house.ledger.decisions(since_ms=FIRST)["refusal"]) == {"kill_switch"}
    assert house.engine().check().ok


def test_an_intent_not_yet_sent_is_stopped_too(house: House) -> None:
    def engage(name: str) -> None:
        if name == "intent:after":
            house.ledger.kill_switch.engage("in the last moment")

    house.at = engage
    house.cycle()
    assert house.broker.client_ids() == []
    (entry, *children) = [
        house.ledger.intent(order.client_id)
        for order in house.ledger.decision(entry_decision(house)).orders  # type: ignore[union-attr]
    ]
    assert entry is not None
    assert (entry.status, entry.detail.split(":")[1].strip()) == (
        IntentStatus.REJECTED,
        "kill_switch",
    )
    assert {child.status for child in children if child} == {IntentStatus.EXPIRED}
    assert house.engine().check().ok


def entry_decision(house: House) -> str:
    rows = house.ledger.decisions(symbol="BTCUSDT")
    return str(rows["decision_id"][0])


def test_a_file_pulls_the_kill_switch(house: House) -> None:
    (house.settings.home / "KILL").write_text("smoke in the server room")
    house.cycle()
    assert "smoke in the server room" in house.ledger.kill_switch.state().reason
    assert set(house.refusals().values()) == {"kill_switch"}


# -- repair -----------------------------------------------------------------------------


class Died(BaseException):
    """Ends a cycle at a step, as a kill would: nothing of ours runs after it."""


def die_at(name: str, nth: int = 1) -> Hook:
    left = [nth]

    def hook(step: str) -> None:
        if step == name:
            left[0] -= 1
            if left[0] == 0:
                raise Died

    return hook


def cut_at(house: House, name: str, nth: int = 1) -> None:
    house.at = die_at(name, nth)
    with pytest.raises(Died):
        house.cycle()
    house.at = nothing


@pytest.mark.parametrize("name", ["decide:after", "intent:before", "intent:after", "send:before"])
def test_what_was_decided_and_not_sent_is_sent_by_the_next_cycle(house: House, name: str) -> None:
    cut_at(house, name)
    assert house.broker.client_ids() == []
    house.cycle(later_ms=30_000)
    assert len(house.broker.open_orders()) == 3
    assert house.engine().check().ok


@pytest.mark.parametrize("name", ["decide:after", "intent:after", "send:marked"])
def test_what_another_bar_has_overtaken_expires_with_its_children(house: House, name: str) -> None:
    cut_at(house, name)
    house.script.p_up = {}
    house.cycle(1)
    assert house.broker.client_ids() == []
    orders = house.ledger.decision(entry_decision(house)).orders  # type: ignore[union-attr]
    found = [house.ledger.intent(order.client_id) for order in orders]
    assert [i.status for i in found if i] == [IntentStatus.EXPIRED] * 3
    assert found[0] is not None
    assert found[0].detail.startswith("late")
    assert house.engine().check().ok


def test_an_order_whose_answer_was_lost_is_asked_about_and_never_sent_again(house: House) -> None:
    cut_at(house, "send:accepted")
    assert len(house.broker.client_ids()) == 1
    house.cycle(1)  # even though it is late by now: it is at the broker
    assert house.broker.repeats() == 0
    assert house.legs() == [Leg.ENTRY]
    assert {o.leg for o in house.ledger.working_orders()} == {Leg.STOP, Leg.TARGET}
    assert house.engine().check().ok


def test_protection_is_sent_however_late(house: House) -> None:
    cut_at(house, "send:accepted", nth=2)  # the entry is booked, the stop's answer is lost
    house.cycle(1)
    assert house.position().stop_price is not None
    assert house.position().target_price is not None
    assert house.broker.repeats() == 0


def test_an_hour_away_is_caught_up_with(house: House) -> None:
    house.cycle()
    house.script.p_up = {}
    house.cycle(9)
    assert house.legs()[0] is Leg.ENTRY
    assert house.engine().check().ok
    house.cycle(10)
    assert house.ledger.positions() == []
    assert house.engine().check().ok


# -- limits and protection --------------------------------------------------------------


def test_a_position_without_a_stop_is_closed(tmp_path: Path) -> None:
    house = build(tmp_path)
    house.broker = Refusing(house.settings, house.ledger, house.store, house.clock)
    house.cycle()
    house.script.p_up = {}
    for bar in (1, 2):
        house.cycle(bar)
    trade = house.ledger.trades().row(0, named=True)
    assert trade["exit_reason"].startswith("no stop stands")
    assert house.broker.positions() == []


def test_a_limit_that_broke_since_the_decision_refuses_the_order(house: House) -> None:
    house.at = die_at("intent:after")
    with pytest.raises(Died):
        house.cycle()
    house.at = nothing
    house.settings = trading_settings(
        house.settings.home, risk={"max_order_notional": "1", "daily_loss": 1.0}
    )
    house.cycle(later_ms=30_000)
    orders = house.ledger.decision(entry_decision(house)).orders  # type: ignore[union-attr]
    entry = house.ledger.intent(orders[0].client_id)
    assert entry is not None
    assert entry.detail.startswith("refused: max_order_notional")
    assert house.broker.client_ids() == []
    assert house.engine().check().ok


def test_orders_a_minute_are_counted(tmp_path: Path) -> None:
    house = build(tmp_path, risk={"max_orders_per_minute": 3, "daily_loss": 1.0})
    house.script.p_up = dict.fromkeys(SYMBOLS, 0.8)
    house.cycle()
    assert {o.symbol for o in house.broker.open_orders()} == {"BTCUSDT"}
    assert "refused: rate" in str(house.ledger.explain(str(
        house.ledger.decisions(symbol="ETHUSDT")["decision_id"][0]
    )))  # fmt: skip


def test_an_order_sent_inside_a_bar_gets_its_bar(house: House) -> None:
    """Sent seven seconds late it trades at the next open, which is known a bar later."""
    house.cycle(later_ms=7_000)
    house.script.p_up = {}
    house.cycle(1, later_ms=7_000)
    assert house.legs() == []
    assert len(house.broker.open_orders()) == 3
    house.cycle(2)
    (fill,) = house.ledger.fills()
    assert (fill.leg, fill.ts) == (Leg.ENTRY, FIRST + STEP)
    assert house.engine().check().ok


def test_an_entry_sent_inside_a_bar_waits_no_longer_than_the_setting(house: House) -> None:
    house.clock.set(START_MS + 60 * STEP)  # the quiet hour begins: no volume
    house.cycle(29, later_ms=7_000)
    house.script.p_up = {}
    house.cycle(32, later_ms=-1)
    assert len(house.broker.open_orders()) == 3
    house.cycle(32)
    assert house.broker.open_orders() == []
    assert house.legs() == []


def test_an_entry_that_nobody_fills_is_canceled(house: House) -> None:
    house.clock.set(START_MS + 60 * STEP)  # the quiet hour begins: no volume
    house.cycle(30)
    house.script.p_up = {}
    house.cycle(31)
    assert len(house.broker.open_orders()) == 3
    house.cycle(32)
    assert house.broker.open_orders() == []
    assert house.ledger.working_orders() == []
    house.cycle(36)
    assert house.legs() == []
    assert house.engine().check().ok


# -- one engine, errors, loops ----------------------------------------------------------


def test_a_second_engine_is_refused(house: House) -> None:
    with house.engine().running():
        with pytest.raises(TradewindError) as caught, house.engine().running():
            pytest.fail("two engines ran on the same books")
        assert caught.value.code is ErrorCode.ALREADY_RUNNING
    house.cycle()


def test_an_engine_that_lost_its_lease_stops_before_it_sends(house: House) -> None:
    engine = house.engine()
    with engine.running() as steps:
        with house.ledger.db.write() as connection:
            connection.execute(text("UPDATE leases SET holder = 'another'"))
        with pytest.raises(TradewindError, match="lost its lease"):
            engine.cycle(steps)
    assert house.broker.client_ids() == []


def test_a_full_disk_stops_a_cycle_and_the_next_one_completes_it(house: House) -> None:
    def fill_disk(name: str) -> None:
        if name == "send:marked":
            raise TradewindError(ErrorCode.DISK_FULL, "no space left for the ledger", "Free space")

    house.at = fill_disk
    with pytest.raises(TradewindError, match="no space left"):
        house.cycle()
    house.at = nothing
    house.cycle(later_ms=30_000)
    assert len(house.broker.open_orders()) == 3
    assert house.engine().check().ok


def test_a_refused_replay_leaves_the_clock_of_the_other_alone(house: House) -> None:
    clock = LedgerClock(house.ledger)
    clock.set(FIRST + 3 * STEP)
    with house.engine().running():
        with pytest.raises(TradewindError, match="another engine holds"):
            run_replay(house.engine(), clock, FIRST, FIRST + STEP)
        assert clock.now_ms() == FIRST + 3 * STEP


def test_a_replay_goes_on_where_it_was_stopped(house: House) -> None:
    clock = LedgerClock(house.ledger)
    seen: list[tuple[int, int]] = []
    end = FIRST + 4 * STEP
    engine = house.engine()
    engine.clock = clock
    house.clock.set(FIRST)

    def stop_after_two(done: int, total: int) -> None:
        house.clock.set(FIRST + done * STEP)
        seen.append((done, total))
        if done == 2:
            raise Died

    with pytest.raises(Died):
        run_replay(engine, clock, FIRST - 1, end, stop_after_two)
    house.clock.set(FIRST + STEP)
    assert run_replay(engine, clock, FIRST - 1, end) == 4  # bar 2 again, then 3, 4, 5
    assert seen == [(1, 5), (2, 5)]
    assert engine.check().ok


def test_the_live_loop_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    house = build(tmp_path, engine={"cycle_s": 0.05, "poll_s": 0.01})
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    timer.start()
    run_live(house.engine())
    timer.join()
    assert house.ledger.count_decisions() == 3
    assert signal.getsignal(signal.SIGTERM) is before
    house.cycle()  # the lease was given back


def test_the_live_loop_outlives_a_locked_ledger_and_not_a_lost_lease(tmp_path: Path) -> None:
    house = build(tmp_path, engine={"cycle_s": 0.05, "poll_s": 0.01})
    failures = iter([ErrorCode.LEDGER_UNAVAILABLE, ErrorCode.ALREADY_RUNNING])

    def fail(name: str) -> None:
        if name == "equity:after":
            raise TradewindError(next(failures), "as told", "none")

    house.at = fail
    with pytest.raises(TradewindError) as caught:
        run_live(house.engine(), stop=threading.Event())
    assert caught.value.code is ErrorCode.ALREADY_RUNNING


def test_the_live_loop_does_not_wait_when_a_bar_has_closed(tmp_path: Path) -> None:
    house = build(tmp_path, engine={"cycle_s": 60, "poll_s": 0.01})
    stop = threading.Event()

    def next_bar(name: str) -> None:
        if name == "equity:after":
            if house.clock.now_ms() >= FIRST + 2 * STEP:
                stop.set()
            threading.Timer(0.05, house.clock.set, (house.clock.now_ms() + STEP,)).start()

    house.at = next_bar
    run_live(house.engine(), stop=stop)
    assert house.ledger.count_decisions() == 9


def test_equity_is_marked_at_each_bar_at_present_prices(house: House) -> None:
    for bar in range(3):
        house.cycle(bar)
    curve = house.ledger.equity_curve()
    assert curve["ts"].to_list() == [FIRST, FIRST + STEP, FIRST + 2 * STEP]
    held = house.position()
    price = house.broker.price("BTCUSDT")
    assert price is not None
    open_profit = held.quantity * (price - held.entry_price)
    assert curve["equity"][-1] == pytest.approx(float(house.ledger.cash() + open_profit))
    assert curve["exposure"][-1] == pytest.approx(float(abs(held.quantity) * price))
    assert house.ledger.cash() == Decimal(10_000) - house.ledger.fills()[0].fee
