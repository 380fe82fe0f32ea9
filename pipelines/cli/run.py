"""Commands that keep running: serve, trade."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from pipelines.cli.output import JsonOption, emit, friendly, say
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import load_settings

if TYPE_CHECKING:
    from tradewind.contracts import Decision

PACE_S = 5.0
"""Seconds a replayed bar takes: slow enough to read along."""
NOTHING_NEW = "no decision was made: no bar has closed since the last; `tradewind ingest` reads new"


@friendly
def serve(
    port: int = typer.Option(-1, min=-1, max=65535, help="HTTP port; -1: the setting; 0: free."),
) -> None:
    """Serve the champions over HTTP until Ctrl-C. See `/ml/docs` at the printed address."""
    from serving.launch import serve as run_server
    from serving.launch import wait_for_port

    settings = load_settings()
    if port >= 0:
        from pipelines.servers import free_port

        chosen = settings.serving.model_copy(update={"port": port or free_port()})
        settings = settings.model_copy(update={"serving": chosen})
    wait_for_port(settings.serving.host, settings.serving.port)
    say(f"serving at http://{settings.serving.host}:{settings.serving.port} (Ctrl-C stops it)")
    run_server(settings)


@friendly
def trade(
    url: str = typer.Option("", help="Address of serving; default: the setting's host and port."),
    once: bool = typer.Option(False, help="Run one cycle and stop."),
    dry_run: bool = typer.Option(False, help="Print what would be decided; write nothing."),
    attend: bool = typer.Option(
        False, help="Wait for bars, a champion and serving; move a replay's clock bar by bar."
    ),
    pace: float = typer.Option(
        PACE_S, min=0, help="With --attend: seconds a replayed bar takes; 0: as fast as possible."
    ),
    as_json: bool = JsonOption,
) -> None:
    """Trade on paper: ask serving each cycle, decide, book. Ctrl-C stops after the cycle."""
    from pipelines.paper import (
        decisions_after,
        dry_decisions,
        last_decision_ts,
        trade_live,
    )

    settings = load_settings()
    address = url or f"http://{settings.serving.host}:{settings.serving.port}"
    if attend:
        if once or dry_run:
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                "--attend trades until it is stopped and fits neither --once nor --dry-run",
                "Leave one of them out",
            )
        from pipelines.up.trading import attend as trade_attended

        trade_attended(settings, address, pace)
        return
    if dry_run:
        decisions = dry_decisions(settings, address)
        emit(
            {decision.symbol: decision.model_dump(mode="json") for decision in decisions},
            as_json,
            lambda: say("\n".join(map(_line, decisions)) or NOTHING_NEW),
        )
        return
    before = last_decision_ts(settings)
    cycles = trade_live(settings, address, once=once)
    made = decisions_after(settings, before)
    news = "\n".join(_line(decision) for decision in made) or NOTHING_NEW
    emit(
        {"cycles": cycles, "decisions": {item.symbol: item.action.value for item in made}},
        as_json,
        lambda: say(f"{news if once else ''}\nstopped after {cycles} cycles".strip()),
    )


def _line(decision: Decision) -> str:
    why = decision.reasons[-1].text if decision.reasons else "no reason given"
    return f"{decision.symbol}: {decision.action.value}, {why}"
