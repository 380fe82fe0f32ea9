"""The engine's kill switch, its emergencies, and the ways back."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.engine_house import FIRST, House, build, entry_decision
from tests.support.trading_day import (
    STEP,
    SYMBOLS,
)
from tradewind.contracts import (
    IntentStatus,
    Leg,
)
from tradewind.ledger import EquityPoint


@pytest.fixture
def house(tmp_path: Path) -> House:
    return build(tmp_path)


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
    house.cycle(29)
    house.script.p_up = {}
    house.cycle(30)  # the entry's cost asks for DEFENSIVE_EXIT, and the quiet hour begins
    house.cycle(31)
    legs = [order.leg for order in house.ledger.working_orders()]
    assert legs.count(Leg.REDUCE) == 1
    assert Leg.EXIT not in legs
    house.ledger.kill_switch.engage("drill", flatten=True)
    house.cycle(32)
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
    assert (state.engaged, state.flatten, state.who) == (True, True, "engine")
    assert "EMERGENCY_SHUTDOWN" in state.reason
    house.cycle(2)
    house.cycle(100)  # the next day
    assert house.ledger.positions() == []
    assert set(house.ledger.decisions(since_ms=FIRST)["refusal"]) == {"kill_switch"}
    assert house.engine().check().ok


def test_an_emergency_flattens_also_where_only_entries_were_stopped(tmp_path: Path) -> None:
    house = build(tmp_path, risk={"daily_loss": 0.00001})
    house.cycle()
    house.ledger.kill_switch.engage("drill", who="ann")
    house.cycle(1)
    state = house.ledger.kill_switch.state()
    assert (state.flatten, state.who) == (True, "engine")
    assert [item.who for item in house.ledger.interventions()] == ["ann", "engine"]


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


def test_a_file_pulls_the_kill_switch(house: House) -> None:
    (house.settings.home / "KILL").write_text("smoke in the server room")
    house.cycle()
    assert "smoke in the server room" in house.ledger.kill_switch.state().reason
    assert set(house.refusals().values()) == {"kill_switch"}
