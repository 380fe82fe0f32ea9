"""Put the paper engine together: ledger, paper broker, features, and serving over HTTP."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings

if TYPE_CHECKING:
    from policy.engine import Engine
    from tradewind.contracts import Decision
    from tradewind.ledger import LedgerCheck

LAST_STEP = "equity:after"
"""The step that ends every cycle."""

Progress = Callable[[int, str], None]
"""Called with the bars that are done and a note."""


@contextmanager
def paper_engine(
    settings: Settings, url: str, at: Callable[[str], None] = lambda step: None
) -> Iterator[Engine]:
    """Open the engine on the settings' ledger, bars and clock; it asks serving at ``url``.

    ``at`` is called with the name of each step of a cycle.
    """
    from policy.brokers.paper import PaperBroker
    from policy.engine import Engine
    from policy.forecasts import open_serving
    from tradewind.features.view import FeatureView
    from tradewind.ledger import open_clock, open_ledger
    from tradewind.market.ingest import store_for

    store = store_for(settings)
    with open_ledger(settings) as ledger:
        clock = open_clock(settings, ledger)
        broker = PaperBroker(settings, ledger, store, clock)
        source = open_serving(settings, url)
        try:
            view = FeatureView(settings, store, clock)
            yield Engine(settings, ledger, broker, clock, source, view, at=at)
        finally:
            source.client.close()


def trade_live(settings: Settings, url: str, *, once: bool = False) -> int:
    """Trade until stopped, or for one cycle; return how many cycles were run.

    Raises
    ------
    TradewindError
        ``serving_unreachable`` when serving does not answer at the start,
        ``already_running`` while another engine lives on these books.
    """
    from policy.engine import run_live

    _require_serving(settings, url)
    steps_done: Counter[str] = Counter()
    with paper_engine(settings, url, lambda step: steps_done.update([step])) as engine:
        if once:
            with engine.running() as steps:
                engine.cycle(steps)
        else:
            run_live(engine)
    return steps_done[LAST_STEP]


def replay(
    settings: Settings, url: str, start_ms: int, end_ms: int, progress: Progress | None = None
) -> int:
    """Step the replay clock from ``start_ms`` to ``end_ms``, one cycle a bar.

    After a kill it goes on from the ledger's clock.
    """
    from policy.engine import run_replay
    from tradewind.ledger import LedgerClock

    with paper_engine(settings, url) as engine:
        clock = LedgerClock(engine.ledger)
        engine.clock = clock

        def shown(done: int, _total: int) -> None:
            if progress is not None:
                account = engine.ledger.cash()
                open_now = len(engine.ledger.positions())
                progress(done, f"cash {account:.2f}, {open_now} open")

        return run_replay(engine, clock, start_ms, end_ms, shown)


def dry_decisions(settings: Settings, url: str) -> list[Decision]:
    """Return what a cycle would decide now; it runs on a copy of the ledger.

    Raises
    ------
    TradewindError
        ``serving_unreachable``; ``bad_setting`` for a ledger that is not a SQLite file.
    """
    from tradewind.clock import last_closed_bar

    _require_serving(settings, url)
    with tempfile.TemporaryDirectory(prefix="tradewind-dry-") as folder:
        copy = _copied_ledger(settings, Path(folder))
        with paper_engine(copy, url) as engine:
            now = engine.clock.now_ms()
            with engine.running() as steps:
                steps.run(now)
            last = last_closed_bar(now, settings.market.timeframe)
            rows = engine.ledger.decisions(since_ms=last, until_ms=now)
            found = [engine.ledger.decision(item) for item in rows["decision_id"]]
    mine = settings.engine.strategy
    return [item for item in found if item is not None and item.strategy == mine]


def last_decision_ts(settings: Settings) -> int:
    """Return the bar of the strategy's newest decision, -1 before the first."""
    from tradewind.ledger import open_ledger

    with open_ledger(settings) as ledger:
        bars = ledger.decisions().filter(strategy=settings.engine.strategy)["bar_ts"]
    return int(bars[-1]) if len(bars) else -1


def decisions_after(settings: Settings, bar_ts: int) -> list[Decision]:
    """Return the strategy's decisions on bars after ``bar_ts``, oldest first."""
    from tradewind.ledger import open_ledger

    with open_ledger(settings) as ledger:
        rows = ledger.decisions(since_ms=bar_ts + 1).filter(strategy=settings.engine.strategy)
        found = [ledger.decision(item) for item in rows["decision_id"]]
    return [item for item in found if item is not None]


def check_paper(settings: Settings) -> LedgerCheck:
    """Compare the books with themselves and with the paper broker's own."""
    from policy.brokers.paper import PaperBroker
    from tradewind.ledger import BrokerBook, open_clock, open_ledger
    from tradewind.market.ingest import store_for

    with open_ledger(settings) as ledger:
        if ledger.initial_cash() == 0:
            return ledger.check()  # nothing was ever traded: there is no broker to agree with
        broker = PaperBroker(settings, ledger, store_for(settings), open_clock(settings, ledger))
        positions = {item.symbol: item.quantity for item in broker.positions()}
        return ledger.check(
            BrokerBook(
                cash=broker.balance(), positions=positions, client_ids=tuple(broker.client_ids())
            )
        )


def report(settings: Settings, start_ms: int, end_ms: int) -> dict[str, Any]:
    """Return the figures of the paper account over a stretch, after all costs."""
    from policy.report import paper_report
    from tradewind.ledger import fill_outcomes, open_ledger
    from tradewind.market.ingest import store_for

    with open_ledger(settings) as ledger:
        fill_outcomes(settings, ledger, store_for(settings), end_ms)
        found = paper_report(settings, ledger, store_for(settings), start_ms, end_ms)
    check = check_paper(settings)
    return {**found, "ledger_balances": check.ok, "ledger_check": list(check.lines)}


def entries_at_defaults(settings: Settings, start_ms: int, end_ms: int) -> int:
    """Return how many stored decisions the default threshold and edge rule would let enter.

    The threshold is that of each decision's own regime and volatility. Positions that the
    default settings would not have opened are not undone, so this is an upper bound of what
    passes those two rules.
    """
    from tradewind.ledger import open_ledger

    with open_ledger(settings) as ledger:
        rows = ledger.decisions(since_ms=start_ms - settings.market.timeframe_ms, until_ms=end_ms)
        mine = rows.filter(strategy=settings.engine.strategy)["decision_id"]
        return sum(_enters_at_defaults(item) for item in map(ledger.decision, mine) if item)


def _enters_at_defaults(decision: Decision) -> bool:
    """Return whether the default threshold and edge rule let this decision's inputs enter."""
    from tradewind.settings import ThresholdSettings
    from tradewind.trading.thresholds import (
        RegimeView,
        direction,
        entry_threshold,
        side_probability,
    )

    found, inputs = decision.prediction, decision.inputs
    # A decision refused before it came to its costs has no edge to judge.
    if found is None or "net_edge" not in inputs:
        return False
    side = direction(found.p_up)
    regime, volatility = RegimeView(found.regime), float(inputs["volatility"])
    least = entry_threshold(ThresholdSettings(), regime, volatility)
    reached = side is not None and side_probability(found.p_up, side) >= least
    return reached and float(inputs["net_edge"]) > 0


def _require_serving(settings: Settings, url: str) -> None:
    from tradewind.client import ServingClient

    with ServingClient(url, settings=settings.serving) as client:
        client.status()


def _copied_ledger(settings: Settings, folder: Path) -> Settings:
    import sqlite3

    url = settings.ledger_database_url
    if not url.startswith("sqlite:///"):
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"ledger_url = {url.split('://')[0]}://…: a dry run copies a SQLite ledger only",
            "Run it against a copy of the database, with TRADEWIND_LEDGER_URL",
        )
    source, target = Path(url.removeprefix("sqlite:///")), folder / "ledger.db"
    if source.exists():
        with sqlite3.connect(source) as held, sqlite3.connect(target) as copy:
            held.backup(copy)
            copy.execute("DELETE FROM leases")  # a running engine's lease is not the copy's
        held.close()
        copy.close()
    return settings.model_copy(update={"ledger_url": f"sqlite:///{target}"})
