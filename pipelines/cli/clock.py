"""Commands of the replay clock, which tells every process what time the market has."""

from __future__ import annotations

import typer

from pipelines.cli.output import JsonOption, emit, friendly, say
from tradewind.clock import SECOND, parse_moment, utc_text
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import load_settings

clock_app = typer.Typer(help="Look at the clock, or set that of a replay.", no_args_is_help=True)


@clock_app.command("show")
@friendly
def show(as_json: bool = JsonOption) -> None:
    """Show what time the platform believes it is."""
    from tradewind.ledger.clock import open_clock

    settings = load_settings()
    now_ms = open_clock(settings).now_ms()
    emit(
        {"mode": settings.clock, "now_ms": now_ms},
        as_json,
        lambda: say(f"{settings.clock}: {_text(now_ms)}"),
    )


@clock_app.command("set")
@friendly
def set_to(
    time: str = typer.Argument(help="UTC time, e.g. 2025-10-01T00:00"),
    speed: float = typer.Option(0, min=0, help="0 holds it; 900 runs a bar of 15m a second."),
    as_json: bool = JsonOption,
) -> None:
    """Set the clock of a replay for every process; needs TRADEWIND_CLOCK=replay."""
    from tradewind.ledger import engine_alive, open_ledger, set_replay_clock

    settings = load_settings()
    if settings.clock != "replay":
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"clock = {settings.clock!r} cannot be set",
            "Set TRADEWIND_CLOCK=replay for every process of this home",
        )
    at_ms = parse_moment(time)
    with open_ledger(settings) as ledger:
        if engine_alive(ledger):
            raise TradewindError(
                ErrorCode.ALREADY_RUNNING,
                "an engine trades this account and moves the clock itself",
                "Stop `tradewind up` or `tradewind trade` first",
            )
        set_replay_clock(ledger, at_ms, speed)
    emit(
        {"mode": settings.clock, "now_ms": at_ms, "speed": speed},
        as_json,
        lambda: say(f"{settings.clock}: {_text(at_ms)}, speed {speed:g}"),
    )


def _text(ms: int) -> str:
    return f"{utc_text(ms, SECOND)} UTC"
