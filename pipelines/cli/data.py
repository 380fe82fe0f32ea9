"""Commands of the data tier."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from pipelines.cli.output import JsonOption, emit, friendly, say, table
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import load_settings

if TYPE_CHECKING:
    from tradewind.market.ingest import IngestReport


def utc(ms: int | None) -> str | None:
    """Return epoch milliseconds as UTC text."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M")


Symbols = typer.Option([], "--symbol", "-s", help="Only this symbol; repeatable.")


@friendly
def ingest(
    symbols: list[str] = Symbols,
    since: str = typer.Option("", help="UTC date (2025-01-31) to read from; default: resume."),
    as_json: bool = JsonOption,
) -> None:
    """Read new closed bars into the store. Safe to repeat: twice changes no byte.

    Bars come from the folder TRADEWIND_DATA when it is set, else from the exchange's
    public API, else from a simulated market that is labelled so.
    """
    from tradewind.ledger.clock import open_clock
    from tradewind.market.ingest import run_ingest

    settings = load_settings()
    since_ms = parse_date(since) if since else None
    report = run_ingest(settings, open_clock(settings), symbols=symbols or None, since_ms=since_ms)
    emit(asdict(report), as_json, lambda: _print_ingest(report))
    failed = [done for done in report.symbols if done.error]
    for done in failed:
        sys.stderr.write(f"error: {done.symbol}: {done.error}\n")
    if failed:
        raise typer.Exit(1)


@friendly
def features(
    symbols: list[str] = Symbols,
    as_json: bool = JsonOption,
) -> None:
    """Show the features of the newest closed bar, as a model would see them."""
    from tradewind.features.view import FeatureView
    from tradewind.ledger.clock import open_clock
    from tradewind.market.ingest import store_for

    from tradewind.features.definitions import WIDE  # isort: skip

    settings = load_settings()
    view = FeatureView(settings, store_for(settings), open_clock(settings))
    rows = [view.latest(symbol) for symbol in symbols or settings.market.symbols]
    values = {
        row.symbol: {
            "bar_ts": row.bar_ts,
            "staleness_s": row.staleness_s,
            "feature_version": row.feature_version,
            "fingerprint": row.fingerprint,
            "regime": row.regime,
            "regime_computed": row.regime_computed,
            "features": {
                name: (float(value) if value == value else None)
                for name, value in zip(WIDE, row.wide, strict=True)
            },
        }
        for row in rows
    }

    def text() -> None:
        table(
            f"features {rows[0].feature_version}",
            ["feature", *(f"{row.symbol} {utc(row.bar_ts)}" for row in rows)],
            [
                [name, *(f"{row.wide[index]:.6g}" for row in rows)]
                for index, name in enumerate(WIDE)
            ],
        )
        say("regime: neutral, not yet computed" if not rows[0].regime_computed else rows[0].regime)

    emit(values, as_json, text)


def parse_date(text: str) -> int:
    """Return a UTC date as epoch milliseconds."""
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise TradewindError(
            ErrorCode.BAD_INPUT, f"{text!r} is not a date", "Write it as 2025-01-31 (UTC)"
        ) from error
    return int(day.timestamp() * 1000)


def _print_ingest(report: IngestReport) -> None:
    kind = "SIMULATED bars" if report.simulated else "bars"
    table(
        f"{kind} from {report.source_name} into set {report.set_id}",
        ["symbol", "added", "replaced", "quarantined", "gaps", "last bar (UTC)"],
        [
            [
                done.symbol,
                done.added,
                done.replaced,
                done.quarantined,
                done.gaps,
                utc(done.last_ts),
            ]
            for done in report.symbols
        ],
    )
