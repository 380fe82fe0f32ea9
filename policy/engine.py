"""The engine: one process, one cycle after another, safe to kill at any instruction."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

import structlog

from policy.brokers.base import Broker
from policy.cycle import Cycle
from policy.forecasts import PredictionSource
from policy.portfolio import FeatureSource
from policy.sending import Hook, book_of, nothing
from tradewind.clock import Clock, last_closed_bar
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import BrokerBook, Lease, Ledger, LedgerCheck, read_clock
from tradewind.settings import Settings

log = structlog.get_logger(__name__)

POLICY_SECTIONS = (
    "market",
    "training",
    "serving",
    "thresholds",
    "sizing",
    "risk",
    "costs",
    "engine",
)
RETRIED = frozenset(
    {ErrorCode.LEDGER_UNAVAILABLE, ErrorCode.DISK_FULL, ErrorCode.EXCHANGE_UNREACHABLE}
)
KILL_FILE = "KILL"
WAITING, TRADING, IDLE = "waiting", "trading", "idle"
REPLAY_ENDED = "replay has reached the last bar"
SIGN_OF_LIFE_S = 10.0
"""How often an engine that waits repeats what it does, at least."""
IDLE_S = 1.0
"""How often an engine that has nothing to do looks again."""
Progress = Callable[[int, int], None]
Tell = Callable[[str, str], None]
"""Called with what the engine does (`waiting`, `trading`, `idle`) and why, in words."""


def _untold(_state: str, _detail: str) -> None:
    """Tell nobody."""


class _Teller:
    """Tells, and repeats the last words as a sign of life."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._last = (IDLE, "")

    def __call__(self, state: str, detail: str) -> None:
        self._last = (state, detail)
        self._tell(state, detail)

    def again(self) -> None:
        """Repeat what was told last."""
        self._tell(*self._last)


class SettableClock(Clock, Protocol):
    """A replay's clock: `LedgerClock`, or `ManualClock` in one process."""

    def set(self, ms: int) -> None:
        """Move market time."""
        ...


@dataclass(frozen=True)
class CycleReport:
    """What a cycle did."""

    now_ms: int
    decisions: int
    duration_s: float


class Engine:
    """Decisions in motion.

    Parameters
    ----------
    broker
        Where orders go; its word is the truth.
    predictions, features
        Serving's answers and the feature rows they are checked against.
    at
        Hook of the crash tests, called with each step's name.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        broker: Broker,
        clock: Clock,
        predictions: PredictionSource,
        features: FeatureSource,
        *,
        at: Hook = nothing,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.broker = broker
        self.clock = clock
        self.lease = Lease(ledger, settings.engine.lease_s)
        self._parts = predictions, features, at

    @contextmanager
    def running(self, prepare: Callable[[], None] = lambda: None) -> Iterator[Cycle]:
        """Hold the lease and open the account; a second engine is refused.

        Parameters
        ----------
        prepare
            Called under the lease before anything else, such as setting a replay's clock.

        Raises
        ------
        TradewindError
            ``already_running`` while another engine lives on these books.
        """
        with self.lease:
            prepare()
            now = self.clock.now_ms()
            self.ledger.open_account(self.settings.engine.initial_cash, now)
            values = self.settings.model_dump(mode="json", include=set(POLICY_SECTIONS))
            version = self.ledger.record_settings(values, now)
            predictions, features, at = self._parts
            yield Cycle(self.settings, self.ledger, self.broker, predictions, features, version, at)

    def cycle(self, steps: Cycle) -> CycleReport:
        """Run one cycle at the clock's time; needs the lease."""
        started = time.monotonic()
        self.lease.renew()
        self._look_for_kill_file()
        now = self.clock.now_ms()
        decisions = steps.run(now)
        return CycleReport(now, decisions, time.monotonic() - started)

    def _look_for_kill_file(self) -> None:
        path = self.settings.home / KILL_FILE
        if path.exists() and not self.ledger.kill_switch.state().engaged:
            words = path.read_text(encoding="utf-8", errors="replace").strip()
            self.ledger.kill_switch.engage(f"file {path}: {words or 'no reason given'}")

    def check(self) -> LedgerCheck:
        """Compare the ledger's books with themselves and with the broker's."""
        cash, positions = book_of(self.broker)
        return self.ledger.check(BrokerBook(cash=cash, positions=positions))


def run_replay(
    engine: Engine,
    clock: SettableClock,
    start_ms: int,
    end_ms: int,
    progress: Progress | None = None,
) -> int:
    """Step the replay clock bar by bar, one cycle a bar; return how many cycles were run.

    After a kill it goes on from the ledger's clock, with the bar at which it stopped: the
    cycle of that bar is run again and only completes what is missing.

    Parameters
    ----------
    start_ms, end_ms
        Market times; each cycle runs at a bar's close within [start, end].
    progress
        Called with (bars done, bars in all) after every cycle.
    """
    step = engine.settings.market.timeframe_ms
    first = -(-start_ms // step) * step
    total = max(0, (end_ms - first) // step + 1)
    now, done = first, 0

    def take_up() -> None:
        # Only under the lease: another engine's clock is not ours to move.
        nonlocal now
        now = _resumed(engine, first, end_ms)
        clock.set(now)

    with engine.running(take_up) as steps:
        while now <= end_ms:
            clock.set(now)
            engine.cycle(steps)
            done += 1
            if progress is not None:
                progress((now - first) // step + 1, total)
            now += step
    return done


def _resumed(engine: Engine, first: int, end_ms: int) -> int:
    """Return where a replay goes on: the ledger's held clock where it lies in the stretch."""
    step = engine.settings.market.timeframe_ms
    stored = read_clock(engine.ledger)
    if stored is not None and stored.speed == 0 and first < stored.market_ms <= end_ms:
        return stored.market_ms // step * step
    return first


def run_paced(
    engine: Engine,
    clock: SettableClock,
    *,
    pace_s: float,
    last_close: Callable[[], int | None],
    missing: Callable[[], str | None],
    tell: Tell = _untold,
    stop: threading.Event | None = None,
) -> None:
    """Replay bar by bar at a pace that a person can follow, until stopped.

    The clock stands still while something is missing, and at the newest bar; it goes on by
    itself. It is in the ledger and moves only after a bar's cycle, so a kill loses nothing.

    Parameters
    ----------
    pace_s
        Seconds a bar takes; 0: as fast as possible.
    last_close
        Market time at which the newest stored bar closes; None without bars.
    missing
        What the engine cannot trade without now, in words; None when all is there.
    tell
        Called at every turn.
    """
    step = engine.settings.market.timeframe_ms
    stopping, tell = stop or threading.Event(), _Teller(tell)
    with _signals(stopping), engine.running() as steps:
        while not stopping.is_set():
            wanted = missing()
            if wanted is not None:
                tell(WAITING, wanted)
                _hold(engine, stopping, tell, IDLE_S)
                continue
            report = _attempted(engine, steps, tell)
            if report is None:
                _hold(engine, stopping, tell, IDLE_S)
                continue
            close = (report.now_ms // step + 1) * step
            end = last_close()
            if end is None or close > end:
                tell(IDLE, REPLAY_ENDED)
                _hold(engine, stopping, tell, IDLE_S)
                continue
            tell(TRADING, f"replaying, a bar every {pace_s:g} s")
            _hold(engine, stopping, tell, max(0.0, pace_s - report.duration_s))
            if not stopping.is_set():
                _moved(clock, close, tell)


def _moved(clock: SettableClock, ms: int, tell: Tell) -> None:
    """Move the clock; where the ledger does not answer, the bar's cycle is run again first."""
    try:
        clock.set(ms)
    except TradewindError as error:
        if error.code not in RETRIED:
            raise
        tell(WAITING, str(error))


def _hold(engine: Engine, stopping: threading.Event, tell: _Teller, seconds: float) -> None:
    """Wait, keeping the lease and telling so: a slow pace must not look like a dead engine.

    A ledger that does not answer is waited for; only a lost lease ends the engine.
    """
    deadline = time.monotonic() + seconds
    slice_s = min(engine.settings.engine.lease_s / 3, SIGN_OF_LIFE_S)
    while (left := deadline - time.monotonic()) > 0 and not stopping.wait(min(left, slice_s)):
        try:
            engine.lease.renew()
        except TradewindError as error:
            if error.code not in RETRIED:
                raise
            tell(WAITING, str(error))
        else:
            if left > slice_s:
                tell.again()


def _attempted(engine: Engine, steps: Cycle, tell: Tell) -> CycleReport | None:
    """Run a cycle; None where the ledger or the exchange did not answer: it is tried again."""
    try:
        report = engine.cycle(steps)
    except TradewindError as error:
        if error.code not in RETRIED:
            raise
        log.error("cycle failed", code=error.code.value, detail=error.detail)
        tell(WAITING, str(error))
        return None
    log.info("cycle", now_ms=report.now_ms, decisions=report.decisions)
    return report


def run_live(engine: Engine, *, tell: Tell = _untold, stop: threading.Event | None = None) -> None:
    """Run a cycle every ``engine.cycle_s``, or as soon as a bar has closed, until stopped.

    SIGINT and SIGTERM end it after the cycle under way. A cycle that fails because the ledger
    or the exchange does not answer is told in the log and tried again: it is as safe as one
    that was killed there. Any other error ends the engine.
    """
    stopping, tell = stop or threading.Event(), _Teller(tell)
    with _signals(stopping), engine.running() as steps:
        while not stopping.is_set():
            if _attempted(engine, steps, tell) is not None:
                tell(TRADING, "on live bars")
            _wait(engine, stopping, tell)


def _wait(engine: Engine, stopping: threading.Event, tell: _Teller) -> None:
    """Wait for the next cycle's turn, or for a bar that closes before it."""
    engine_settings, timeframe = engine.settings.engine, engine.settings.market.timeframe
    told = time.monotonic()
    deadline = told + engine_settings.cycle_s
    bar = last_closed_bar(engine.clock.now_ms(), timeframe)
    while not stopping.wait(engine_settings.poll_s) and (now := time.monotonic()) < deadline:
        if last_closed_bar(engine.clock.now_ms(), timeframe) != bar:
            return
        if now - told > SIGN_OF_LIFE_S:
            told = now
            tell.again()


@contextmanager
def _signals(stopping: threading.Event) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into a wish to stop, where this thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def wish(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, wish) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
