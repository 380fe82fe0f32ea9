"""Commands of the data tier."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from pipelines.cli.output import JsonOption, emit, friendly, say, table
from tradewind.clock import parse_day, utc_text
from tradewind.settings import Settings, load_settings

if TYPE_CHECKING:
    from tradewind.market.ingest import IngestReport, SymbolIngest


def utc(ms: int | None) -> str | None:
    """Return epoch milliseconds as UTC text."""
    return None if ms is None else utc_text(ms)


Symbols = typer.Option(
    [], "--symbols", "--symbol", "-s", help="Only these (BTCUSDT,ETHUSDT); repeatable."
)
Timeframe = typer.Option("", "--timeframe", "-t", help="Length of a bar; default: the setting.")


def names(symbols: list[str]) -> list[str]:
    """Return symbols given one by one, or several with commas between them."""
    return [name.strip() for given in symbols for name in given.split(",") if name.strip()]


def settings_for(timeframe: str) -> Settings:
    """Return the settings, for bars of another length if one is named."""
    return load_settings(**({"market": {"timeframe": timeframe}} if timeframe else {}))


@friendly
def ingest(
    symbols: list[str] = Symbols,
    since: str = typer.Option(
        "",
        help="UTC date (2025-01-31) to read from; default: what is missing of the setting"
        " market.history_days (a folder: of all it has), and what is new.",
    ),
    timeframe: str = Timeframe,
    as_json: bool = JsonOption,
) -> None:
    """Read new closed bars into the store. Safe to repeat: twice changes no byte.

    Bars come from the folder TRADEWIND_DATA when it is set, else from the exchange's
    public API, else from a simulated market that is labelled so.
    """
    from tradewind.ledger.clock import open_clock
    from tradewind.market.ingest import run_ingest

    settings = settings_for(timeframe)
    since_ms = parse_day(since, "--since") if since else None
    report = run_ingest(
        settings, open_clock(settings), symbols=names(symbols) or None, since_ms=since_ms
    )
    emit(asdict(report), as_json, lambda: _print_ingest(report))
    tell_errors({done.symbol: done.error for done in report.symbols})


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
    rows = [view.latest(symbol) for symbol in names(symbols) or settings.market.symbols]
    values = {
        row.symbol: {
            "bar_ts": row.bar_ts,
            "staleness_s": row.staleness_s,
            "feature_version": row.feature_version,
            "fingerprint": row.fingerprint,
            "regime": row.regime,
            "regime_computed": row.regime_computed,
            "regimes": {r.timeframe: r.regime.value for r in row.regimes},
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
        for row in rows:
            states = (f"{r.timeframe} {r.regime.value} ({r.confidence:.2f})" for r in row.regimes)
            say(f"regime of {row.symbol}: {row.regime}; {', '.join(states)}")

    emit(values, as_json, text)


def tell_errors(errors: Mapping[str, str | None]) -> None:
    """Print each symbol's error and end with exit code 1; the other symbols were done."""
    failed = {symbol: error for symbol, error in errors.items() if error}
    for symbol, error in failed.items():
        sys.stderr.write(f"error: {symbol}: {error}\n")
    if failed:
        raise typer.Exit(1)


def _counts(done: SymbolIngest) -> list[int]:
    return [done.added, done.replaced, done.quarantined, done.gaps]


def _print_ingest(report: IngestReport) -> None:
    kind = "SIMULATED bars" if report.simulated else "bars"
    table(
        f"{kind} from {report.source_name} into set {report.set_id}",
        ["symbol", "added", "replaced", "quarantined", "gaps", "last bar (UTC)"],
        [
            [
                done.symbol,
                *([None] * 4 if done.error_code else _counts(done)),
                f"failed: {done.error_code}" if done.error_code else utc(done.last_ts),
            ]
            for done in report.symbols
        ],
    )
    companions = [(done.symbol, series) for done in report.symbols for series in done.series]
    if companions:
        table(
            "beside the bars",
            ["symbol", "kind", "added", "replaced", "unusable", "last (UTC)"],
            [
                [symbol, s.kind, s.added, s.replaced, s.unusable, utc(s.last_ts)]
                for symbol, s in companions
            ],
        )
