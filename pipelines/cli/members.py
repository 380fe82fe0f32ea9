"""Commands of the ensemble's members: their states, why, and a person's word on them."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from pipelines.cli.output import JsonOption, emit, friendly, say, table
from tradewind.clock import utc_text
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings, load_settings

if TYPE_CHECKING:
    from tradewind.ledger import Ledger, MemberChange, MemberState

members_app = typer.Typer(
    help="The ensemble's members: their states and why; disable one, or let it speak.",
    invoke_without_command=True,
)
NameArgument = typer.Argument(help="Member, e.g. lightgbm.BTCUSDT or transformer.POOLED")
ReasonOption = typer.Option(..., "--reason", help="The reason; recorded with your name.")
HISTORY = 20


@members_app.callback()
@friendly
def show(
    context: typer.Context,
    history: int = typer.Option(HISTORY, min=0, help="Newest changes to show."),
    as_json: bool = JsonOption,
) -> None:
    """Show every known member with its state, the figures behind it, and what changed."""
    from tradewind.ledger import open_ledger

    if context.invoked_subcommand is not None:
        return
    with open_ledger(load_settings()) as ledger:
        _tell(ledger, history, as_json)


@members_app.command("disable")
@friendly
def disable(
    name: str = NameArgument, reason: str = ReasonOption, as_json: bool = JsonOption
) -> None:
    """Take a member out of the vote; the supervisor does not let it back."""
    _word("disabled", name, reason, as_json)


@members_app.command("enable")
@friendly
def enable(
    name: str = NameArgument, reason: str = ReasonOption, as_json: bool = JsonOption
) -> None:
    """Let a member vote whatever the supervisor finds."""
    _word("enabled", name, reason, as_json)


@members_app.command("release")
@friendly
def release(
    name: str = NameArgument, reason: str = ReasonOption, as_json: bool = JsonOption
) -> None:
    """Lift your word: the member keeps its state, and the supervisor judges it again."""
    _word("", name, reason, as_json)


@members_app.command("judge")
@friendly
def judge(as_json: bool = JsonOption) -> None:
    """Let the supervisor judge now, as the Dagster job `supervise` does."""
    from assets.steps.supervise import supervise
    from tradewind.ledger import open_clock, open_ledger

    settings = load_settings()
    with open_ledger(settings) as ledger:
        supervise(settings, ledger, open_clock(settings, ledger).now_ms())
        _tell(ledger, HISTORY, as_json)


def _word(state: str, name: str, reason: str, as_json: bool) -> None:
    """Store a person's word on a member that this installation may have."""
    from tradewind.ledger import MemberStatus, open_clock, open_ledger
    from tradewind.ledger.members import parse_member

    settings = load_settings()
    family, key = parse_member(name)
    _check(settings, family, key)
    with open_ledger(settings) as ledger:
        known = {(item.family, item.key): item for item in ledger.members()}
        before = known.get((family, key))
        if not state and (before is None or not before.held):
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"nobody holds {family}.{key}: there is nothing to release",
                "Look at `tradewind members`",
            )
        ledger.set_member(
            family,
            key,
            MemberStatus(state) if state or before is None else before.state,
            who=getpass.getuser(),
            why=reason,
            market_ms=open_clock(settings, ledger).now_ms(),
            held=bool(state),
        )
        _tell(ledger, HISTORY, as_json)


def _check(settings: Settings, family: str, key: str) -> None:
    from tradewind.contracts import POOLED
    from tradewind.models.ensemble import voting_families

    families, keys = voting_families(settings), (*settings.market.symbols, POOLED)
    if family not in families or key not in keys:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"{family}.{key} is no member of an ensemble here",
            f"Families that vote: {', '.join(families)}; keys: {', '.join(keys)}",
        )


def _tell(ledger: Ledger, history: int, as_json: bool) -> None:
    members = ledger.members()
    changes = ledger.member_changes(limit=history) if history else []
    value: dict[str, Any] = {
        "members": [asdict(item) | {"name": item.name} for item in members],
        "history": [{"before": item.before, **asdict(item.after)} for item in changes],
    }
    emit(value, as_json, lambda: _print(members, changes))


def _print(members: list[MemberState], changes: list[MemberChange]) -> None:
    if not members:
        say("no member was judged yet, so all of them vote: run `tradewind members judge`")
        return
    columns = ["member", "state", "by", "since (UTC)", "reason", "retrain"]
    table("members of the ensemble", columns, [_cells(item) for item in members])
    for item in members:
        say(f"{item.name}: {item.why}")
    if changes:
        table(
            "changes, newest first",
            ["member", "at (UTC)", "from", "to", "by", "reason"],
            [
                [
                    item.after.name,
                    utc_text(item.after.since_ms),
                    item.before.value,
                    item.after.state.value,
                    _who(item.after),
                    item.after.code.value,
                ]
                for item in changes
            ],
        )
        for change in changes:
            say(f"{utc_text(change.after.since_ms)} {change.after.name}: {change.after.why}")


def _cells(item: MemberState) -> list[str]:
    return [
        item.name,
        item.state.value,
        _who(item),
        utc_text(item.since_ms),
        item.code.value,
        "asked" if item.retrain else "no",
    ]


def _who(item: MemberState) -> str:
    return f"{item.who} (holds)" if item.held else item.who
