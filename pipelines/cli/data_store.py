"""Commands on what is stored: status, gaps, repair, export, upkeep."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pipelines.cli.data import Symbols, Timeframe, names, settings_for, tell_errors, utc
from pipelines.cli.output import JsonOption, emit, friendly, say, table
from tradewind.clock import DAY, parse_day, utc_text
from tradewind.settings import load_settings

if TYPE_CHECKING:
    from tradewind.market.status import DataStatus, SeriesStatus
    from tradewind.market.upkeep import UpkeepReport

data_app = typer.Typer(help="Look at the stored data, repair it, export it.", no_args_is_help=True)
DryRun = typer.Option(False, "--dry-run", help="Only say what would be done.")
ExportFile = typer.Argument(help="Where to write; .parquet or .csv decides the format.")
SHOWN_CHANGES = 20


@data_app.command()
@friendly
def status(
    symbols: list[str] = Symbols,
    as_json: bool = JsonOption,
) -> None:
    """Show each stored series: its span, rows, gaps, how late it is, what was refused."""
    from tradewind.ledger.clock import open_clock
    from tradewind.market.status import data_status

    settings = load_settings()
    wanted = names(symbols)
    found = data_status(settings, open_clock(settings), wanted)
    emit(asdict(found), as_json, lambda: _print_status(found, wanted))
    tell_errors({f"{s.symbol} {s.timeframe or s.kind}": s.error for s in found.series})


@data_app.command()
@friendly
def gaps(
    symbols: list[str] = Symbols,
    as_json: bool = JsonOption,
) -> None:
    """List the holes: confirmed ones are the exchange's own, others may still be filled."""
    from tradewind.market.ingest import store_for

    store = store_for(load_settings())
    wanted = names(symbols)
    rows = [
        row for row in store.gaps().iter_rows(named=True) if not wanted or row["symbol"] in wanted
    ]

    def text() -> None:
        if not rows:
            say("no gaps are recorded")
            return
        table(
            f"{len(rows)} gaps, {sum(row['bars'] for row in rows)} bars, of set {store.set_id}",
            ["symbol", "of", "from (UTC)", "to (UTC)", "missing", "confirmed"],
            [
                [
                    row["symbol"],
                    row["timeframe"],
                    utc(row["from_ts"]),
                    utc(row["to_ts"]),
                    row["bars"],
                    "yes" if row["confirmed"] else "no",
                ]
                for row in rows
            ],
        )

    emit({"set_id": store.set_id, "gaps": rows}, as_json, text)


@data_app.command()
@friendly
def refused(
    symbols: list[str] = Symbols,
    as_json: bool = JsonOption,
) -> None:
    """List the bars that were refused (NaN, high below low, off the grid, …), and why."""
    from tradewind.market.ingest import store_for

    store, wanted = store_for(load_settings()), names(symbols)
    rows: list[dict[str, Any]] = [
        {name: _finite(value) for name, value in row.items()}
        for row in store.quarantined().sort("symbol", "timeframe", "ts").iter_rows(named=True)
        if not wanted or row["symbol"] in wanted
    ]

    def text() -> None:
        if not rows:
            say("no bar was refused")
            return
        table(
            f"{len(rows)} bars refused, of set {store.set_id}",
            ["symbol", "of", "opens (UTC)", "reason", "open, high, low, close; volume"],
            [
                [
                    row["symbol"],
                    row["timeframe"],
                    utc(row["ts"]),
                    row["reason"],
                    f"{row['open']} {row['high']} {row['low']} {row['close']}; {row['volume']}",
                ]
                for row in rows
            ],
        )

    emit({"set_id": store.set_id, "refused": rows}, as_json, text)


@data_app.command()
@friendly
def repair(
    symbols: list[str] = Symbols,
    timeframe: str = Timeframe,
    last: int = typer.Option(
        0, min=0, help="Newest bars to compare; default: the setting market.repair_bars."
    ),
    dry_run: bool = DryRun,
    as_json: bool = JsonOption,
) -> None:
    """Ask the source again for every gap and the last bars; store what is new or differs."""
    from tradewind.ledger.clock import open_clock
    from tradewind.market.repair import run_repair

    settings = settings_for(timeframe)
    report = run_repair(
        settings,
        open_clock(settings),
        symbols=names(symbols) or None,
        last_bars=last or None,
        dry_run=dry_run,
    )

    def text() -> None:
        verb = "would change" if dry_run else "changed"
        table(
            f"what {verb} in set {report.set_id}, by {report.source_name}",
            ["symbol", "added", "replaced", "gaps before", "gaps after"],
            [[d.symbol, d.added, d.replaced, d.gaps_before, d.gaps_after] for d in report.symbols],
        )

    emit(asdict(report), as_json, text)
    tell_errors({done.symbol: done.error for done in report.symbols})


@data_app.command()
@friendly
def export(
    file: Path = ExportFile,
    symbol: str = typer.Option(..., "--symbol", "-s", help="Symbol to export."),
    kind: str = typer.Option("bars", help="bars, funding, open_interest or long_short_ratio."),
    timeframe: str = Timeframe,
    since: str = typer.Option("", help="First UTC date (2025-01-31); default: all."),
    until: str = typer.Option("", help="UTC date before which to end; default: now."),
    as_json: bool = JsonOption,
) -> None:
    """Write a symbol's rows to one file; only what has closed at market time."""
    from tradewind.ledger.clock import open_clock
    from tradewind.market.export import export_rows

    settings = settings_for(timeframe)
    done = export_rows(
        settings,
        open_clock(settings),
        file,
        symbol=symbol,
        kind=kind,
        start_ms=parse_day(since, "--since") if since else None,
        until_ms=parse_day(until, "--until") if until else None,
    )
    span = f"{utc(done.first_ts)} to {utc(done.last_ts)} UTC" if done.rows else "no rows there"
    emit(asdict(done), as_json, lambda: say(f"{done.rows} rows, {span}, written to {done.file}"))


@data_app.command()
@friendly
def upkeep(
    dry_run: bool = DryRun,
    as_json: bool = JsonOption,
) -> None:
    """Drop months older than the settings retention.* keep, and compact the others."""
    from tradewind.ledger.clock import open_clock
    from tradewind.market.upkeep import run_upkeep

    settings = load_settings()
    report = run_upkeep(settings, open_clock(settings), dry_run=dry_run)
    emit({**asdict(report), "saved": report.saved}, as_json, lambda: _print_upkeep(report))
    tell_errors({f"partition {place}": error for place, error in enumerate_errors(report)})


def _finite(value: Any) -> Any:
    """Return the value as JSON can hold it: NaN and infinity as words."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def enumerate_errors(report: UpkeepReport) -> list[tuple[int, str]]:
    """Return the errors with numbers: a partition has no shorter name than its error."""
    return list(enumerate(report.errors, start=1))


def _print_nothing(found: DataStatus, wanted: list[str]) -> None:
    what = f"nothing of {', '.join(wanted)}" if wanted else "nothing"
    say(f"{what} is stored in set {found.set_id}; run `tradewind ingest`")
    _print_others(found)


def _print_others(found: DataStatus) -> None:
    """Name the sets that are stored beside the one in use: no other command shows them."""
    if found.other_sets:
        say(f"stored beside it: {', '.join(found.other_sets)}; the last ingestion's set is in use")


def _print_status(found: DataStatus, wanted: list[str]) -> None:
    if not found.series:
        _print_nothing(found, wanted)
        return
    table(
        f"set {found.set_id} at market time {utc(found.now_ms)} UTC",
        ["symbol", "kind", "span (UTC)", "rows", "gaps", "age", "refused"],
        [_status_row(series) for series in found.series],
    )
    say(f"stored in {found.place}")
    _print_others(found)


def _status_row(series: SeriesStatus) -> list[object]:
    kind = _kind(series)
    if series.error:
        return [series.symbol, kind, "unreadable", None, None, None, None]
    holes = None
    if series.gaps is not None:
        holes = f"{series.gaps} ({series.missing} bars)" if series.gaps else "0"
    span = None
    if series.first_ts is not None and series.last_ts is not None:
        span = f"{utc_text(series.first_ts, DAY)} {utc_text(series.last_ts, DAY)}"
    refused = series.quarantined if series.timeframe else None
    return [series.symbol, kind, span, series.rows, holes, _age(series.staleness_s), refused]


def _kind(series: SeriesStatus) -> str:
    if series.timeframe:
        return f"bars {series.timeframe}"
    return KIND_WORDS.get(series.kind) or series.series.replace("_", " ")


def _age(staleness_s: float | None) -> str | None:
    from pipelines.status import in_words

    if staleness_s is None:
        return None
    return f"{in_words(staleness_s)} late" if staleness_s else "fresh"


KIND_WORDS = {
    "funding": "funding",
    "open_interest": "open int.",
    "long_short_ratio": "long/short",
    "mark": "mark",
}


def _print_upkeep(report: UpkeepReport) -> None:
    verb = "would be" if report.dry_run else "were"
    if not report.changes:
        say(f"set {report.set_id}: nothing to drop and nothing to compact")
    else:
        table(
            f"{len(report.changes)} partitions of set {report.set_id} {verb} changed,"
            f" {report.saved:,} bytes freed",
            ["symbol", "kind", "month", "action", "bytes"],
            [
                [c.symbol, c.kind, c.month, c.action, c.saved]
                for c in report.changes[:SHOWN_CHANGES]
            ],
        )
        if len(report.changes) > SHOWN_CHANGES:
            say(f"and {len(report.changes) - SHOWN_CHANGES} more; --json lists all")
    for kind in report.kept_for_models:
        say(f"{kind}: {report.needed_days} days are kept, since training reads them")
