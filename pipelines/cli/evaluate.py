"""The command `tradewind evaluate`: every retraining of the past again, judged honestly."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from pydantic import ValidationError

from pipelines.cli.output import JsonOption, emit, friendly, say
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_bytes
from tradewind.settings import Section, Settings, load_settings

if TYPE_CHECKING:
    from assets.steps.history import BarsFrom

S = TypeVar("S", bound=Section)
OPTIONS = {
    "since": "--since",
    "refit_days": "--refit-days",
    "deep_refit_months": "--refit-months",
    "days_back_max": "--days-back",
    "horizon": "--horizon",
    "seed": "--seed",
}
Symbols = typer.Option([], "--symbol", "-s", help="Only this symbol; repeatable.")
Families = typer.Option([], "--family", "-f", help="Only this family, in this order; repeatable.")
Report = typer.Option(None, help="Write the HTML report there as well.")


@friendly
def evaluate(
    symbols: list[str] = Symbols,
    families: list[str] = Families,
    since: str = typer.Option("", help="First UTC day judged (2025-01-01); default: the setting."),
    refit_days: int = typer.Option(0, min=0, help="Days between refits of trees; 0: the setting."),
    refit_months: int = typer.Option(
        0, min=0, max=12, help="Months between refits of deep families; 0: the setting."
    ),
    days_back: int = typer.Option(0, min=0, help="Days a refit looks back; 0: the setting."),
    horizon: int = typer.Option(0, min=0, help="Bars ahead that labels look; 0: the setting."),
    seed: int = typer.Option(-1, min=-1, help="Seed of fits and intervals; -1: the setting."),
    per_symbol: bool = typer.Option(False, help="A model for each symbol; default: one for all."),
    bars: str = typer.Option("auto", help="store, folder (TRADEWIND_DATA) or auto."),
    shuffle_labels: bool = typer.Option(
        False, help="Leak canary: deal the labels out anew; every AUC must then be 0.5."
    ),
    report: Path | None = Report,
    track: bool = typer.Option(True, help="Record it in MLflow."),
    dry_run: bool = typer.Option(False, help="Say what it would cost, and stop."),
    as_json: bool = JsonOption,
) -> None:
    """Walk forward over the whole history and compare families, ensemble and baselines.

    Each retraining of the past is done again and judged on what followed it. Finished folds
    are kept: the same command continues.
    """
    from assets.steps.history import HistoryChoices
    from pipelines.evaluation import run_evaluation

    chosen = _chosen(load_settings(), since, refit_days, refit_months, days_back, horizon, seed)
    choices = HistoryChoices(
        symbols=tuple(symbols),
        families=tuple(families),
        per_symbol=per_symbol,
        bars=_bars(bars),
        shuffle_labels=shuffle_labels,
    )
    outcome = run_evaluation(chosen, choices, dry_run=dry_run, track=track, quiet=as_json)
    if report is not None and outcome.result is not None:
        write_bytes(report, outcome.result.report.read_bytes())
    emit(outcome.to_dict(), as_json, outcome.print)
    broken = outcome.result is not None and _leaks(outcome.result.canaries, shuffle_labels)
    if broken:
        say("error: a leak canary failed; see the report")
        raise typer.Exit(1)


def _leaks(canaries: Mapping[str, Any], shuffled: bool) -> bool:
    return not canaries["slices"]["ok"] or (shuffled and not canaries["coin_flips"]["ok"])


def _bars(text: str) -> BarsFrom:
    if text not in ("auto", "store", "folder"):
        raise TradewindError(
            ErrorCode.BAD_INPUT, f"--bars {text!r} is unknown", "Use auto, store or folder"
        )
    return text  # type: ignore[return-value]  # checked above


def _chosen(
    settings: Settings,
    since: str,
    refit_days: int,
    refit_months: int,
    days_back: int,
    horizon: int,
    seed: int,
) -> Settings:
    rolling: dict[str, Any] = {
        "since": _day(since) if since else None,
        "refit_days": refit_days or None,
        "deep_refit_months": refit_months or None,
        "days_back_max": days_back or None,
    }
    fitting = {"horizon": horizon or None, "seed": seed if seed >= 0 else None}
    return settings.model_copy(
        update={
            "evaluation": _with(settings.evaluation, rolling),
            "training": _with(settings.training, fitting),
        }
    )


def _with(section: S, given: Mapping[str, Any]) -> S:
    """Return a section of the settings with what was given, held to the same limits."""
    update = {name: value for name, value in given.items() if value is not None}
    try:
        return type(section).model_validate({**section.model_dump(), **update})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"{OPTIONS.get(name, name)} {first['input']!r}: {first['msg'].lower()}",
            "Give another value, or none for that of the settings",
        ) from error


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise TradewindError(
            ErrorCode.BAD_INPUT, f"--since {text!r} is not a date", "Write it as 2025-01-31 (UTC)"
        ) from error
