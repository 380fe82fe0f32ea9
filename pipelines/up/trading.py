"""The engine of `up`: waits for what it needs, says so, trades, and never gives up by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import structlog

from pipelines.up.health import ENGINE_FILE
from tradewind.client import ServingClient
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_json
from tradewind.settings import Settings

log = structlog.get_logger(__name__)

LOOK_S = 1.0
TOLD_AGAIN_S = 5.0
"""The same words are written again after this long, as a sign of life."""
LOADING = "Wait"
"""How serving's hint begins while it has not read the registry yet."""
OTHER_ENGINE = "another engine trades this account"


@dataclass
class Told:
    """What the engine does, in a file for `status` and for whoever watches the engine."""

    home: Path
    _last: tuple[str, str] = ("", "")
    _at: float = field(default=float("-inf"))

    def __call__(self, state: str, detail: str) -> None:
        """Write what is done; a log line where it is new."""
        now = time.monotonic()
        fresh = (state, detail) != self._last
        if not fresh and now - self._at < TOLD_AGAIN_S:
            return
        if fresh:
            log.info("engine", state=state, detail=detail)
        self._last, self._at = (state, detail), now
        content = {
            "state": state,
            "detail": detail,
            "pid": os.getpid(),
            "wall_ms": time.time_ns() // 1_000_000,
        }
        try:
            write_json(self.home / ENGINE_FILE, content)
        except TradewindError as error:
            if error.code is not ErrorCode.DISK_FULL:
                raise
            log.error("engine", state=state, detail=error.detail)


def attend(settings: Settings, url: str, pace_s: float) -> None:
    """Trade until stopped; wait, and say for what, while something is missing.

    A ledger, disk or exchange that does not answer is waited for as well, for ever.

    On a replay the clock is moved bar by bar, a bar every ``pace_s`` seconds.
    """
    from policy.engine import RETRIED, WAITING

    told = Told(settings.home.absolute())
    stopping = threading.Event()
    with _until_told(stopping), ServingClient(url, settings=settings.serving, timeout_s=2) as asked:
        while not stopping.is_set():
            try:
                wanted = _missing_at_start(settings, asked)
                if wanted is None:
                    _trade(settings, url, pace_s, asked, told, stopping)
                    continue
            except TradewindError as error:
                if error.code is ErrorCode.ALREADY_RUNNING:
                    wanted = f"{OTHER_ENGINE}: {error.detail}"
                elif error.code in RETRIED:
                    # An outage, however long: positions that are open wait for this engine.
                    wanted = str(error)
                else:
                    raise
            told(WAITING, wanted)
            stopping.wait(LOOK_S)


def missing(settings: Settings, asked: ServingClient) -> str | None:
    """Return why no prediction can be had now, in words; None when serving is ready."""
    if asked.ready():
        return None
    try:
        problem = asked.status()["not_ready"]
    except TradewindError as error:
        return f"serving does not answer ({error.code.value})"
    if problem is None:
        return None  # it has become ready between the two questions
    words = {
        ErrorCode.NO_CHAMPION.value: "no champion yet",
        ErrorCode.MODEL_EXPIRED.value: "the champion has expired",
    }.get(problem["error"])
    if words is not None and not problem["hint"].startswith(LOADING):
        place = settings.links.dagster_url
        where = f" at {place}/" if place else ""
        return f"{words} ({problem['detail']}): launch `retrain`{where} or run `tradewind train`"
    return f"serving is not ready: {problem['detail']}"


def last_close(settings: Settings) -> int | None:
    """Return when the newest bar that every traded symbol has closes; None before the first."""
    from tradewind.market.ingest import store_for

    store, market = store_for(settings), settings.market
    ends = [store.last_ts(symbol, market.timeframe) for symbol in market.symbols]
    held = [end for end in ends if end is not None]
    return min(held) + market.timeframe_ms if len(held) == len(ends) else None


def _missing_at_start(settings: Settings, asked: ServingClient) -> str | None:
    from tradewind.ledger import open_ledger, read_clock

    if last_close(settings) is None:
        return "no bars yet: run `tradewind ingest`, or the job `ingest`"
    with open_ledger(settings) as ledger:
        if settings.clock == "replay" and read_clock(ledger) is None:
            return "the replay's clock was never set: run `tradewind clock set`"
        if settings.clock == "wall" and ledger.positions():
            return None  # open positions are looked after, with serving or without
    return missing(settings, asked)


def _trade(
    settings: Settings,
    url: str,
    pace_s: float,
    asked: ServingClient,
    told: Told,
    stopping: threading.Event,
) -> None:
    from pipelines.paper import paper_engine
    from policy.engine import run_live, run_paced
    from tradewind.ledger import LedgerClock

    with paper_engine(settings, url) as engine:
        if settings.clock == "wall":
            run_live(engine, tell=told, stop=stopping)
            return
        clock = LedgerClock(engine.ledger)
        engine.clock = clock
        run_paced(
            engine,
            clock,
            pace_s=pace_s,
            last_close=lambda: last_close(settings),
            missing=lambda: missing(settings, asked),
            tell=told,
            stop=stopping,
        )


@contextlib.contextmanager
def _until_told(stopping: threading.Event) -> Iterator[None]:
    def wish(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, wish) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
