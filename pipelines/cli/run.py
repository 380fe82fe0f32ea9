"""Commands that keep running: serve, trade."""

from __future__ import annotations

import typer

from pipelines.cli.output import JsonOption, emit, friendly, say
from tradewind.settings import load_settings


@friendly
def serve(
    port: int = typer.Option(-1, min=-1, max=65535, help="HTTP port; -1: the setting; 0: free."),
) -> None:
    """Serve the champions over HTTP until Ctrl-C. See `/docs` at the printed address."""
    from serving.process import serve as run_server

    settings = load_settings()
    run_server(settings, port=settings.serving.port if port < 0 else port)


@friendly
def trade(
    url: str = typer.Option("", help="Address of serving; default: the setting's host and port."),
    once: bool = typer.Option(False, help="Run one cycle and stop."),
    dry_run: bool = typer.Option(False, help="Print what would be decided; write nothing."),
    as_json: bool = JsonOption,
) -> None:
    """Trade on paper: ask serving each cycle, decide, book. Ctrl-C stops after the cycle."""
    from pipelines.paper import dry_decisions, trade_live

    settings = load_settings()
    address = url or f"http://{settings.serving.host}:{settings.serving.port}"
    if dry_run:
        decisions = dry_decisions(settings, address)
        emit(
            {decision.symbol: decision.model_dump(mode="json") for decision in decisions},
            as_json,
            lambda: [
                say(f"{item.symbol}: {item.action} {item.reasons[-1].text}") for item in decisions
            ]
            and None,
        )
        return
    cycles = trade_live(settings, address, once=once)
    emit({"cycles": cycles}, as_json, lambda: say(f"stopped after {cycles} cycles"))
