"""Commands of the models, from training to what came of their answers."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer

from pipelines.cli.output import JsonOption, emit, friendly, say, table
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import load_settings

Symbols = typer.Option([], "--symbol", "-s", help="Only this symbol; repeatable.")
Families = typer.Option([], "--family", "-f", help="Only this family; repeatable.")
Name = typer.Argument(help="Registered model, e.g. tradewind.lightgbm.BTCUSDT")


@friendly
def train(
    symbols: list[str] = Symbols,
    families: list[str] = Families,
    days_back: int = typer.Option(0, min=0, help="Days of labelled bars; 0: the setting."),
    epochs: int = typer.Option(0, min=0, help="Epochs of deep families; 0: the setting."),
    seed: int = typer.Option(-1, min=-1, help="Seed; -1: the setting."),
    allow_failed_gates: bool = typer.Option(
        False, help="Paper only: with no champion at all, serve the best candidate regardless."
    ),
    dry_run: bool = typer.Option(False, help="Say what would be trained, and stop."),
    as_json: bool = JsonOption,
) -> None:
    """Launch the Dagster job `retrain`: fit, calibrate, gate, register, promote.

    A killed training continues where it stopped when the same command runs again.
    """
    from assets.units import plan_units

    settings = load_settings()
    units = [unit.name for unit in plan_units(settings, symbols, families)]
    if dry_run:
        emit({"units": units}, as_json, lambda: say("\n".join(units)))
        return
    from pipelines.retrain import run_retrain

    outcome = run_retrain(
        settings,
        symbols=symbols,
        families=families,
        days_back=days_back or None,
        epochs=epochs or None,
        seed=None if seed < 0 else seed,
        allow_failed_gates=allow_failed_gates,
        quiet=as_json,
    )
    emit(outcome.to_dict(), as_json, outcome.print)
    for error in outcome.errors:
        sys.stderr.write(f"error: {error}\n")
    if not outcome.success:
        raise typer.Exit(1)


@friendly
def search(
    family: str = typer.Option("lightgbm", "--family", "-f", help="Family to search for."),
    symbol: str = typer.Option("", "--symbol", "-s", help="One symbol's own model; else pooled."),
    trials: int = typer.Option(0, min=0, help="Trials in all; 0: the setting search.trials."),
    days_back: int = typer.Option(0, min=0, help="Days of labelled bars; 0: the setting."),
    holdout_days: int = typer.Option(0, min=0, help="Newest days that no trial sees; 0: setting."),
    dry_run: bool = typer.Option(False, help="Show the space and stop."),
    as_json: bool = JsonOption,
) -> None:
    """Launch the Dagster job `search`: other hyperparameters, each a run nested in MLflow.

    A search that was stopped goes on; with more --trials it goes further.
    """
    from tradewind.models.search import default_params, space_of

    settings = load_settings()
    if dry_run:
        now = default_params(settings, family)
        space = {item.path: [item.low, item.high] for item in space_of(family)}
        emit(
            {"space": space, "now": now},
            as_json,
            lambda: table(
                f"search of {family}",
                ["setting", "from", "to", "now"],
                [[name, *map(str, ends), str(now[name])] for name, ends in space.items()],
            ),
        )
        return
    from rich.console import Console

    from pipelines.search import print_report, run_search_job

    config: dict[str, Any] = {
        "family": family,
        "symbol": symbol,
        "trials": trials or settings.search.trials,
        **({"days_back": days_back} if days_back else {}),
        **({"holdout_days": holdout_days} if holdout_days else {}),
    }
    report = run_search_job(settings, config, console=Console(quiet=as_json))
    emit(report, as_json, lambda: print_report(report))


@friendly
def evaluate_champions(
    symbols: list[str] = Symbols, families: list[str] = Families, as_json: bool = JsonOption
) -> None:
    """Measure each champion on bars newer than everything it was made from."""
    _show_champions("evaluate", symbols, families, as_json)


@friendly
def drift(
    symbols: list[str] = Symbols, families: list[str] = Families, as_json: bool = JsonOption
) -> None:
    """Measure PSI of each champion's features and predictions over the last days."""
    _show_champions("drift", symbols, families, as_json)


@friendly
def recalibrate(
    symbols: list[str] = Symbols, families: list[str] = Families, as_json: bool = JsonOption
) -> None:
    """Refit each champion's calibrator on its last answers; a new version if it is better."""
    _show_champions("recalibrate", symbols, families, as_json)


@friendly
def review(
    symbols: list[str] = Symbols,
    families: list[str] = Families,
    dry_run: bool = typer.Option(False, help="Say what would be compared; spends no look."),
    as_json: bool = JsonOption,
) -> None:
    """Compare each challenger with its champion on bars new to both; the alias follows.

    Clearly better: it becomes champion. Clearly worse: it loses its alias. Else both stay.
    """
    _show_champions("dry review" if dry_run else "review", symbols, families, as_json)


@friendly
def outcomes(as_json: bool = JsonOption) -> None:
    """Fill in what became of predictions, and measure every version that made them.

    Figures are over rolling windows (`live_metrics.window_days`), by version and alias; each
    new UTC midnight is logged to MLflow once.
    """
    from assets.steps.live_metrics import fill_and_measure

    report, added, now_ms = fill_and_measure(load_settings())
    told = {
        "outcomes": added,
        "now_ms": now_ms,
        "live": report.rows(),
        "unregistered": list(report.unknown),
    }
    emit(told, as_json, lambda: _print_live(report.rows(), report.unknown, added))


def _print_live(rows: list[dict[str, Any]], unknown: Sequence[str], added: int) -> None:
    say(f"{added} new outcomes")
    for version, alias in dict.fromkeys((row["version"], row["alias"]) for row in rows):
        own = [row for row in rows if (row["version"], row["alias"]) == (version, alias)]
        names = [name for name in own[0] if name not in ("version", "alias", "window_days")]
        table(
            f"{version} as {alias}",
            ["figure", *(f"{row['window_days']} d" for row in own)],
            [[name, *(_short(row[name]) for row in own)] for name in names],
        )
    for label in unknown:
        say(f"{label} answered and is not registered: it is left out")


@friendly
def promote(
    name: str = Name,
    version: int = typer.Argument(min=1, help="Version number."),
    to: str = typer.Option("champion", help="champion, challenger or canary"),
    why: str = typer.Option(..., help="The reason; recorded with the change."),
    as_json: bool = JsonOption,
) -> None:
    """Point an alias at a version whose gates passed; the old champion becomes `previous`."""
    from registry.aliases import promote as move
    from registry.tracking import Tracking

    if to not in ("champion", "challenger", "canary"):
        raise TradewindError(
            ErrorCode.BAD_INPUT, f"--to {to!r} is no alias", "Use champion, challenger or canary"
        )
    change = move(
        Tracking(load_settings()),
        name,
        version,
        who=getpass.getuser(),
        why=why,
        to=to,  # type: ignore[arg-type]  # checked above
    )
    emit(asdict(change), as_json, lambda: say(f"{name}: {change.alias} is {change.to_version}"))


@friendly
def rollback(
    name: str = Name,
    why: str = typer.Option(..., help="The reason; recorded with the change."),
    as_json: bool = JsonOption,
) -> None:
    """Swap champion and previous; serving follows within seconds."""
    from registry.aliases import rollback as move
    from registry.tracking import Tracking

    change = move(Tracking(load_settings()), name, who=getpass.getuser(), why=why)
    emit(asdict(change), as_json, lambda: say(f"{name}: champion is {change.to_version}"))


def _show_champions(look: str, symbols: list[str], families: list[str], as_json: bool) -> None:
    from functools import partial

    from assets.steps import live
    from assets.steps.recalibrate import recalibrate_champion
    from assets.steps.review import review_challenger
    from assets.units import plan_units
    from tradewind.ledger.clock import open_clock

    settings = load_settings()
    units = plan_units(settings, symbols, families)
    looks: dict[str, live.Look] = {
        "evaluate": live.evaluate_champion,
        "drift": live.drift_of_champion,
        "recalibrate": partial(recalibrate_champion, who=getpass.getuser()),
        "review": partial(review_challenger, who=getpass.getuser()),
        "dry review": partial(review_challenger, dry_run=True),
    }
    found: dict[str, Any] = {}
    reasons: dict[str, list[str]] = {}
    errors: dict[str, TradewindError] = {}
    for unit, seen in live.look_at(settings, open_clock(settings), units, looks[look]):
        if isinstance(seen, TradewindError):
            errors[unit.name] = seen
        else:
            found[unit.name] = {"version": seen.version, **seen.figures}
            reasons[unit.name] = [gate["text"] for gate in seen.gates if not gate["passed"]]
    worst = live.worst_of(list(errors.values()), len(units))
    if not found and worst is not None:
        raise worst
    told = {
        name: figures | ({"gate_reasons": reasons[name]} if reasons[name] else {})
        for name, figures in found.items()
    }
    said = {name: error.body() for name, error in errors.items()}
    emit({**told, **said}, as_json, lambda: _print_champions(look, found, reasons, errors))
    if worst is not None:
        raise typer.Exit(1)


def _print_champions(
    look: str,
    found: dict[str, dict[str, Any]],
    reasons: dict[str, list[str]],
    errors: dict[str, TradewindError],
) -> None:
    names = list(dict.fromkeys(key for figures in found.values() for key in figures))
    table(
        f"{look} of the {'challengers' if 'review' in look else 'champions'}",
        ["figure", *found],
        [[name, *(_short(figures.get(name)) for figures in found.values())] for name in names],
    )
    for name, texts in reasons.items():
        for text in texts:
            say(f"{name}: {text}")
    for name, error in errors.items():
        say(f"{name}: {error}")


def _short(value: object) -> str | None:
    if value is None:
        return None
    return f"{value:.4f}" if isinstance(value, float) else str(value)
