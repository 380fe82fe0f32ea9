"""The engine that replays at a pace: waits, moves the clock, idles at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from policy.engine import IDLE, REPLAY_ENDED, TRADING, WAITING, run_paced
from tests.support.engine_house import FIRST, House, build
from tests.support.trading_day import STEP
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import LedgerClock

END = FIRST + 3 * STEP


class BothClocks:
    """The ledger's clock, and with it the one that the house was built on."""

    def __init__(self, house: House) -> None:
        self.inner = LedgerClock(house.ledger)
        self.other = house.clock

    def now_ms(self) -> int:
        return self.inner.now_ms()

    def set(self, ms: int) -> None:
        self.inner.set(ms)
        self.other.set(ms)


class Run:
    """A paced replay in this thread, stopped by what it tells."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.told: list[tuple[str, str]] = []
        self.stop = threading.Event()
        self.clock = BothClocks(house)

    def __call__(
        self,
        until: Callable[[str, str], bool],
        missing: Callable[[], str | None] = lambda: None,
        pace_s: float = 0,
    ) -> None:
        """Run until something is told."""

        def tell(state: str, detail: str) -> None:
            self.told.append((state, detail))
            if until(state, detail):
                self.stop.set()

        engine = self.house.engine()
        engine.clock = self.clock
        run_paced(
            engine,
            self.clock,
            pace_s=pace_s,
            last_close=lambda: END,
            missing=missing,
            tell=tell,
            stop=self.stop,
        )
        self.stop.clear()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("policy.engine.IDLE_S", 0.01)
    house = build(tmp_path)
    found = Run(house)
    found.clock.set(FIRST)
    return found


def test_it_goes_to_the_last_bar_and_idles_there(run: Run) -> None:
    run(lambda state, _: state == IDLE)
    assert [state for state, _ in run.told] == [TRADING] * 3 + [IDLE]
    assert run.told[-1] == (IDLE, REPLAY_ENDED)
    assert run.clock.now_ms() == END
    assert run.house.engine().check().ok


def test_it_goes_on_with_the_bar_at_which_it_was_stopped(run: Run) -> None:
    seen = iter([False, True])
    run(lambda state, _: state == TRADING and next(seen))
    assert run.clock.now_ms() == FIRST + STEP  # stopped before the clock went on
    before = run.house.ledger.count_decisions()
    run(lambda state, _: state == IDLE)
    assert run.clock.now_ms() == END
    bars = run.house.ledger.decisions(symbol="BTCUSDT")["bar_ts"].to_list()
    assert bars == sorted(set(bars))  # no bar twice
    assert len(bars) == 4
    assert before < run.house.ledger.count_decisions()


def test_the_clock_stands_still_while_something_is_missing(run: Run) -> None:
    answers = iter(["no champion yet"] * 3)
    run(lambda state, _: state == TRADING, lambda: next(answers, None))
    assert run.told[:3] == [(WAITING, "no champion yet")] * 3
    assert run.clock.now_ms() == FIRST
    # One decision a symbol: waiting made none.
    assert run.house.ledger.count_decisions() == len(run.house.settings.market.symbols)


def test_a_bar_takes_its_pace(run: Run) -> None:
    began = time.monotonic()
    run(lambda state, _: state == IDLE, pace_s=0.3)
    assert 0.9 <= time.monotonic() - began < 5


def test_a_ledger_that_is_busy_is_waited_for(run: Run) -> None:
    failures = iter([ErrorCode.LEDGER_UNAVAILABLE])

    def fail(name: str) -> None:
        if name == "equity:after" and (code := next(failures, None)):
            raise TradewindError(code, "as told", "none")

    run.house.at = fail
    run(lambda state, _: state == IDLE)
    assert [state for state, _ in run.told] == [WAITING] + [TRADING] * 3 + [IDLE]
    assert "as told" in run.told[0][1]


def test_a_second_engine_may_not_move_the_clock(run: Run) -> None:
    with (
        run.house.engine().running(),
        pytest.raises(TradewindError, match="already_running"),
    ):
        run(lambda _state, _detail: True)
    assert run.clock.now_ms() == FIRST


def test_a_slow_pace_is_told_again_as_a_sign_of_life(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policy.engine.SIGN_OF_LIFE_S", 0.05)
    run(lambda _state, _detail: run.clock.now_ms() > FIRST, pace_s=1)
    first_bar = [words for words in run.told if words[0] == TRADING]
    assert len(first_bar) >= 3
    assert set(first_bar) == {(TRADING, "replaying, a bar every 1 s")}
    assert run.clock.now_ms() == FIRST + STEP  # the replay moved on all the same


@pytest.mark.parametrize("pace_s", [0, 1.5])
def test_a_ledger_that_is_away_is_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, pace_s: float
) -> None:
    """For several turns no write is possible; only a lost lease would end the engine.

    Without a pace it is away when the clock is to move, with one while the engine holds.
    """
    monkeypatch.setattr("policy.engine.SIGN_OF_LIFE_S", 0.02)
    db = run.house.ledger.db
    write, left = db.write, [5]

    def failing() -> AbstractContextManager[Connection]:
        if run.told and left[0]:
            left[0] -= 1
            raise TradewindError(ErrorCode.LEDGER_UNAVAILABLE, "no route to host", "none")
        return write()

    monkeypatch.setattr(db, "write", failing)
    run(lambda _state, _detail: run.clock.now_ms() > FIRST, pace_s=pace_s)
    assert left == [0]
    assert run.told[0][0] == TRADING
    assert "no route to host" in run.told[1][1]
    assert run.clock.now_ms() == FIRST + STEP
    assert run.house.engine().check().ok
