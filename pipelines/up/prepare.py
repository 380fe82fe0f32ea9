"""What must be there before the first server starts: bars, clock, experiment, Dagster's tables.

It runs in a process of its own, which then gives its memory back: `up` itself stays small.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.console import Console

from pipelines.up.runs import close, launched_by
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import MS_PER_DAY, Settings, load_settings

ENDED_WITH_UP = "its process ended together with an earlier `tradewind up`"


def main() -> int:
    """Prepare the home of the environment; print an expected failure as one line."""
    given = argparse.ArgumentParser()
    given.add_argument("--replay-days", type=int, required=True)
    given.add_argument("--dead-code-server", type=int, default=0)
    asked = given.parse_args()
    try:
        prepare(load_settings(), asked.replay_days, asked.dead_code_server, Console())
    except TradewindError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def prepare(settings: Settings, replay_days: int, dead_code_server: int, console: Console) -> None:
    """Make the home ready; what is there already stays as it is.

    Parameters
    ----------
    dead_code_server
        Port of the code server of an `up` that was killed: runs that it launched are over.
    """
    from pipelines.launch import open_instance

    _experiment(settings)
    instance = open_instance(settings)
    for run in launched_by(instance, dead_code_server):
        close(instance, run, ENDED_WITH_UP, console.print)
    if _newest_close(settings) is None:
        _ingest(settings, instance, console)
    if settings.clock == "replay":
        _set_clock(settings, replay_days, console)


def _experiment(settings: Settings) -> None:
    """Create the experiment with artifacts in a folder, where no server stands yet.

    Runs then can be read with the server and without it.
    """
    if settings.mlflow_tracking_uri.startswith("http"):
        return
    from registry.tracking import Tracking

    Tracking(settings)


def _ingest(settings: Settings, instance: Any, console: Console) -> None:
    from pipelines.launch import ingest_symbols
    from tradewind.clock import WallClock
    from tradewind.ledger import open_ledger, set_replay_clock

    with open_ledger(settings) as ledger:
        if settings.clock == "replay":
            set_replay_clock(ledger, WallClock().now_ms())  # every bar has closed by now
    console.print("[bold cyan]▶ ingest[/] the home holds no bars yet: one Dagster run a symbol")
    ingest_symbols(settings, instance, console)


def _newest_close(settings: Settings) -> int | None:
    from pipelines.up.trading import last_close

    return last_close(settings)


def _set_clock(settings: Settings, days: int, console: Console) -> None:
    """Set a clock that never ran: some days before the newest bar, after all models' data."""
    from pipelines.cli.data import utc
    from tradewind.ledger import open_ledger, read_clock, set_replay_clock

    end_ms = _newest_close(settings)
    if end_ms is None:
        raise TradewindError(
            ErrorCode.NO_BARS,
            "the ingestion brought no bars for every traded symbol",
            "Check TRADEWIND_MARKET__SYMBOLS and the source, then start again",
        )
    with open_ledger(settings) as ledger:
        row = read_clock(ledger)
        used = ledger.count_decisions() > 0
        if row is not None and (used or row.market_ms < end_ms):
            console.print(f"replay goes on at {utc(row.at(_wall_ms()))} UTC")
            return
        seen = _newest_data_end(settings)
        start_ms = max(end_ms - days * MS_PER_DAY, seen)
        set_replay_clock(ledger, start_ms)
    console.print(
        f"replay begins at {utc(start_ms)} UTC, the newest bar closes {utc(end_ms)} UTC",
        soft_wrap=True,
        highlight=False,
    )


def _newest_data_end(settings: Settings) -> int:
    """Return where the newest data of any champion ends: a replay before it would be a lie."""
    from registry.tracking import Tracking
    from registry.versions import alias_table, get_version

    tracking = Tracking(settings)
    ends = [
        int(get_version(tracking, name, version=aliases["champion"]).tags["data_end_ms"])
        for name, aliases in alias_table(tracking).items()
        if "champion" in aliases
    ]
    return max(ends, default=0)


def _wall_ms() -> int:
    from tradewind.clock import WallClock

    return WallClock().now_ms()


if __name__ == "__main__":
    raise SystemExit(main())
