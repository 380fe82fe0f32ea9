"""One clock, one engine, one switch for all processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.support.synthetic import START_MS
from tradewind.clock import WallClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import (
    Lease,
    Ledger,
    LedgerClock,
    engine_alive,
    open_clock,
    read_clock,
    set_replay_clock,
)
from tradewind.ledger.clock import ClockRow
from tradewind.ledger.lease import process_identity
from tradewind.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from tradewind.ledger import Lease, Ledger
Lease(Ledger(sys.argv[1]), 3600).acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_every_process_sees_the_clock_that_was_set(ledger: Ledger) -> None:
    clock, other = LedgerClock(ledger), LedgerClock(ledger)
    set_replay_clock(ledger, START_MS)
    assert (clock.now_ms(), other.now_ms()) == (START_MS, START_MS)
    clock.set(START_MS + 900_000)
    assert other.now_ms() == START_MS + 900_000


def test_a_replay_may_run_fast() -> None:
    row = ClockRow(market_ms=START_MS, wall_ms=1000, speed=900)
    assert row.at(1000) == START_MS
    assert row.at(2000) == START_MS + 900_000
    assert row.at(0) == START_MS  # another process's wall a little behind


def test_a_running_clock_moves(ledger: Ledger) -> None:
    set_replay_clock(ledger, START_MS, speed=1000)
    clock = LedgerClock(ledger)
    first = clock.now_ms()
    time.sleep(0.02)
    assert clock.now_ms() >= first + 10_000


def test_a_slow_read_of_the_old_clock_is_not_believed_afterwards(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_replay_clock(ledger, START_MS)
    clock = LedgerClock(ledger)
    reading, was_set = threading.Event(), threading.Event()

    def slow(given: Ledger) -> ClockRow | None:
        row = read_clock(given)
        reading.set()
        assert was_set.wait(10)
        return row

    monkeypatch.setattr("tradewind.ledger.clock.read_clock", slow)
    reader = threading.Thread(target=clock.now_ms)
    reader.start()
    assert reading.wait(10)
    set_replay_clock(ledger, START_MS + 900_000)
    was_set.set()
    reader.join()
    assert clock.now_ms() == START_MS + 900_000


def test_a_clock_that_was_never_set_is_said(ledger: Ledger) -> None:
    assert read_clock(ledger) is None
    with pytest.raises(TradewindError, match="never set"):
        LedgerClock(ledger).now_ms()
    with pytest.raises(TradewindError, match="neither may be negative"):
        set_replay_clock(ledger, -1)


def test_the_settings_choose_the_clock(make_settings: Callable[..., Settings]) -> None:
    assert isinstance(open_clock(make_settings()), WallClock)
    assert isinstance(open_clock(make_settings(clock="replay")), LedgerClock)


def test_a_second_engine_is_refused_until_the_first_ends(ledger: Ledger) -> None:
    with Lease(ledger, 30):
        assert engine_alive(ledger)
        with pytest.raises(TradewindError, match="another engine holds these books") as caught:
            Lease(ledger, 30).acquire()
        assert caught.value.code is ErrorCode.ALREADY_RUNNING
    assert not engine_alive(ledger)
    Lease(ledger, 30).acquire()


def test_a_killed_engine_is_taken_over_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'l.db'}"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, url], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with Ledger(url) as ledger:
        with pytest.raises(TradewindError, match=f"pid {process.pid}"):
            Lease(ledger, 30).acquire()
        process.send_signal(signal.SIGKILL)
        while process_identity(process.pid) is not None:  # until the kernel has ended it
            time.sleep(0.005)
        Lease(ledger, 30).acquire()  # not reaped yet: a zombie holds nothing
        process.communicate()
        assert engine_alive(ledger)


def test_a_number_given_to_a_new_process_does_not_revive_a_lease(ledger: Ledger) -> None:
    Lease(ledger, 3600).acquire()
    with ledger.db.write() as connection:
        connection.execute(text("UPDATE leases SET process = 'an older one'"))
    Lease(ledger, 30).acquire()


def test_another_hosts_lease_ends_with_its_time(ledger: Ledger) -> None:
    Lease(ledger, 3600).acquire()
    with ledger.db.write() as connection:
        connection.execute(text("UPDATE leases SET host = 'elsewhere', pid = 1"))
    with pytest.raises(TradewindError, match="on elsewhere"):
        Lease(ledger, 30).acquire()
    with ledger.db.write() as connection:
        connection.execute(text("UPDATE leases SET expires_ms = 1"))
    Lease(ledger, 30).acquire()


def test_a_lost_lease_stops_its_holder(ledger: Ledger) -> None:
    lease = Lease(ledger, 30)
    lease.acquire()
    lease.renew()
    with ledger.db.write() as connection:
        connection.execute(text("UPDATE leases SET holder = 'another'"))
    with pytest.raises(TradewindError, match="has lost its lease"):
        lease.renew()
    lease.release()
    assert engine_alive(ledger)  # what is not ours is not released


def test_the_kill_switch_outlives_the_process(ledger_url: str) -> None:
    with Ledger(ledger_url) as ledger:
        assert not ledger.kill_switch.state().engaged
        ledger.kill_switch.engage("drill", flatten=True)
    with Ledger(ledger_url) as ledger:
        state = ledger.kill_switch.state()
        assert (state.engaged, state.flatten, state.reason) == (True, True, "drill")
        assert state.who == "engine"
        ledger.kill_switch.lift("drill over", who="ann")
        assert not ledger.kill_switch.state().engaged


def test_who_did_what_by_hand_and_why_is_recorded(ledger: Ledger) -> None:
    ledger.kill_switch.engage("smoke", flatten=True, who="ann")
    ledger.kill_switch.engage("still smoke", who="bob")
    state = ledger.kill_switch.state()
    assert (state.flatten, state.who) == (True, "bob"), "a second one weakens nothing"
    ledger.kill_switch.lift("smoke is gone", who="ann")
    ledger.kill_switch.engage("again", who="ann")
    assert not ledger.kill_switch.state().flatten
    told = [(item.kind, item.who, item.why) for item in ledger.interventions()]
    assert told == [
        ("kill_on", "ann", "smoke"),
        ("kill_on", "bob", "still smoke"),
        ("kill_lift", "ann", "smoke is gone"),
        ("kill_on", "ann", "again"),
    ]
    assert all(item.wall_ms > START_MS for item in ledger.interventions("kill_on"))


@pytest.mark.parametrize(("who", "why"), [("", "a reason"), ("ann", " ")])
def test_nothing_is_done_by_hand_without_name_and_reason(
    ledger: Ledger, who: str, why: str
) -> None:
    for act in (
        lambda: ledger.kill_switch.engage(why, who=who),
        lambda: ledger.kill_switch.lift(why, who=who),
        lambda: ledger.reset_peak(START_MS, who=who, why=why),
    ):
        with pytest.raises(TradewindError, match="says nothing"):
            act()
    assert not ledger.kill_switch.state().engaged
    assert ledger.interventions() == []
