"""The engine: decides once a bar, sends once, protects, stops, and says why."""

from __future__ import annotations

import os
import signal
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text

from policy.engine import run_live, run_replay
from policy.sending import Hook, nothing
from tests.support.engine_house import FIRST, House, Refusing, build, entry_decision
from tests.support.synthetic import START_MS
from tests.support.trading_day import (
    STEP,
    SYMBOLS,
    trading_settings,
)
from tradewind.contracts import (
    IntentStatus,
    Leg,
)
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import LedgerClock


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


@pytest.mark.parametrize("problem", [None, "model_expired: POOLED/1 is 22.0 days old"])
def test_a_position_is_left_after_its_time(house: House, problem: str | None) -> None:
    house.cycle()
    house.script.p_up = {}
    house.script.problem = problem  # without a model a position is looked after all the same
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
        ("model_expired: tradewind.lightgbm.POOLED/1 is 22.0 days old", "model_expired"),
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
    assert (row["action"], row["refusal"], row["source"]) == ("HOLD", "missing_prediction", "none")
    story = house.ledger.explain(row["decision_id"]).text()
    assert "lightgbm.POOLED is switched off (flips)" in story
    house.ledger.set_member_state("lightgbm", "POOLED", enabled=True, why="retrained")
    house.cycle(1)
    row = house.ledger.decisions(symbol="BTCUSDT").row(-1, named=True)
    assert (row["action"], row["source"]) == ("BUY", "fallback")


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
