"""Commands that only look: status, explain, doctor, ledger check, config show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from pipelines.cli.output import JsonOption, emit, friendly, say, table
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import load_settings

if TYPE_CHECKING:
    from tradewind.ledger import Ledger

LATEST = "latest"
ledger_app = typer.Typer(help="Look into the ledger.", no_args_is_help=True)
config_app = typer.Typer(help="Look at the settings.", no_args_is_help=True)


@friendly
def status(
    as_json: bool = JsonOption,
    strict: bool = typer.Option(False, help="Exit with 1 if anything is down, late or too old."),
) -> None:
    """Show processes, clock, bars, champions, serving and the paper account at a glance.

    Looks at TRADEWIND_HOME, else at a finished demo's home (var/demo), else at var.
    """
    from rich.console import Console

    from pipelines.cli.look_status import print_status
    from pipelines.status import collect
    from pipelines.up.homes import settings_of

    found = collect(settings_of())
    emit(found, as_json, lambda: print_status(found, Console()))
    if strict and found["problems"]:
        raise typer.Exit(1)


@friendly
def explain(
    decision_id: str = typer.Argument(help="Decision id, or `latest`."),
    as_json: bool = JsonOption,
) -> None:
    """Tell the story of a decision: what was seen, why, what was sent, what became of it."""
    from tradewind.ledger import open_ledger

    settings = load_settings()
    with open_ledger(settings) as ledger:
        found = _latest(ledger) if decision_id == LATEST else decision_id
        story = ledger.explain(found)
        decision = ledger.decision(story.decision_id)
    emit(
        {**story.to_dict(), "decision": decision and decision.model_dump(mode="json")},
        as_json,
        lambda: say(story.text()),
    )


def _latest(ledger: Ledger) -> str:
    decisions = ledger.decisions()
    if decisions.is_empty():
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            "the ledger holds no decision yet",
            "Run `tradewind trade --once`, or `tradewind demo`",
        )
    return str(decisions["decision_id"][-1])


@ledger_app.command("check")
@friendly
def ledger_check(as_json: bool = JsonOption) -> None:
    """Check that the books balance; exit code 3 if they do not."""
    from pipelines.paper import check_paper

    result = check_paper(load_settings())
    emit(
        {"ok": result.ok, "lines": list(result.lines)},
        as_json,
        lambda: say("\n".join(result.lines)),
    )
    if not result.ok:
        raise TradewindError(
            ErrorCode.LEDGER_UNBALANCED,
            f"{sum(line.startswith('✗') for line in result.lines)} checks of the ledger failed",
            "Stop the engine, read the lines above, and restore from a backup or correct by hand",
        )


@friendly
def doctor(as_json: bool = JsonOption) -> None:
    """Check that this machine can run everything; exit code 1 if something is missing."""
    from pipelines.doctor import examine

    findings = examine()
    emit(
        {
            "ok": all(item.ok for item in findings),
            "findings": [item.to_dict() for item in findings],
        },
        as_json,
        lambda: table(
            "doctor",
            ["check", "result", "found", "remedy"],
            [
                [
                    item.name,
                    "ok" if item.ok else "FAILED",
                    item.found,
                    "" if item.ok else item.remedy,
                ]
                for item in findings
            ],
        ),
    )
    if not all(item.ok for item in findings):
        raise typer.Exit(1)


@config_app.command("show")
@friendly
def config_show(as_json: bool = JsonOption) -> None:
    """Show the settings in force; passwords in URLs are masked."""
    from pipelines.status import masked_settings

    found = masked_settings(load_settings())
    emit(found, as_json, lambda: table("settings", ["setting", "value"], _flatten(found)))


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[list[object]]:
    rows: list[list[object]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            rows.extend(_flatten(value, f"{prefix}{name}."))
        else:
            rows.append([f"{prefix}{name}", value])
    return rows
