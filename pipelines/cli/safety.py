"""Commands that stop trading and let it go on: the kill switch and the peak of equity."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pipelines.cli.output import JsonOption, emit, friendly, say
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings, load_settings

if TYPE_CHECKING:
    from tradewind.ledger import Ledger

kill_app = typer.Typer(
    help="Stop new trades at once, and let them go on: who, why and when are recorded.",
    no_args_is_help=True,
)

WhyOption = typer.Option(..., "--why", help="The reason; recorded with your name and the time.")


@kill_app.command("on")
@friendly
def on(
    why: str = WhyOption,
    flatten: bool = typer.Option(False, "--flatten", help="Close every position too."),
    as_json: bool = JsonOption,
) -> None:
    """Engage the kill switch: no new entry from the engine's next cycle on."""
    from tradewind.ledger import open_ledger

    settings = load_settings()
    _require_books(settings)
    with open_ledger(settings) as ledger:
        ledger.kill_switch.engage(why, flatten=flatten, who=getpass.getuser())
        _tell(settings, ledger, as_json)


@kill_app.command("lift")
@friendly
def lift(why: str = WhyOption, as_json: bool = JsonOption) -> None:
    """Lift the kill switch; refused while the file KILL stands in the home folder."""
    from tradewind.ledger import open_ledger

    settings = load_settings()
    file = _kill_file(settings)
    if file.exists():
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"the file {file} exists, so the engine would engage the kill switch again",
            f"Remove {file}, then lift it",
        )
    with open_ledger(settings) as ledger:
        if not ledger.kill_switch.state().engaged:
            raise TradewindError(
                ErrorCode.BAD_INPUT, "the kill switch is not on", "Nothing needs to be lifted"
            )
        ledger.kill_switch.lift(why, who=getpass.getuser())
        _tell(settings, ledger, as_json)


@kill_app.command("show")
@friendly
def show(as_json: bool = JsonOption) -> None:
    """Show the kill switch, the peak's beginning, and what was done by hand so far."""
    from tradewind.ledger import open_ledger

    settings = load_settings()
    with open_ledger(settings) as ledger:
        _tell(settings, ledger, as_json)


@kill_app.command("reset-peak")
@friendly
def reset_peak(why: str = WhyOption, as_json: bool = JsonOption) -> None:
    """Let the peak of equity, which the drawdown limit looks at, count from now on."""
    from tradewind.ledger import open_clock, open_ledger

    settings = load_settings()
    with open_ledger(settings) as ledger:
        now_ms = open_clock(settings, ledger).now_ms()
        ledger.reset_peak(now_ms, who=getpass.getuser(), why=why)
        _tell(settings, ledger, as_json)


def _require_books(settings: Settings) -> None:
    """Refuse a home that does not exist: most often it is another folder's that is meant."""
    url = settings.ledger_database_url
    home = Path(url.removeprefix("sqlite:///")).parent
    if url.startswith("sqlite:///") and not home.is_dir():
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"there is no ledger below {home}: no engine trades in this home",
            "Export TRADEWIND_HOME (or TRADEWIND_LEDGER_URL) of the engine that is to stop",
        )


def _kill_file(settings: Settings) -> Path:
    from policy.engine import KILL_FILE

    return settings.home / KILL_FILE


def _tell(settings: Settings, ledger: Ledger, as_json: bool) -> None:
    from tradewind.ledger import engine_alive

    state, file = ledger.kill_switch.state(), _kill_file(settings)
    history = ledger.interventions()
    resets = [item for item in history if item.kind == "peak_reset"]
    value: dict[str, Any] = {
        "engine_alive": engine_alive(ledger),
        "engaged": state.engaged,
        "flatten": state.flatten,
        "who": state.who,
        "why": state.reason,
        "changed_ms": state.changed_ms,
        "file": str(file) if file.exists() else None,
        "peak_since_ms": resets[-1].market_ms if resets else None,
        "history": [asdict(item) for item in history],
    }
    emit(value, as_json, lambda: say("\n".join(_lines(value))))


def _lines(value: dict[str, Any]) -> list[str]:
    word = "on, closing positions" if value["flatten"] else "on"
    lines = [f"kill switch: {word if value['engaged'] else 'off'}"]
    if not value["engine_alive"]:
        lines.append("no engine runs on these books now")
    if value["file"]:
        lines.append(f"file: {value['file']} (engages it at the engine's next cycle)")
    since = value["peak_since_ms"]
    lines.append(f"peak of equity counts from: {'the start' if since is None else _utc(since)}")
    lines.extend(
        f"{_utc(item['wall_ms'])} {item['kind']} by {item['who']}: {item['why']}"
        for item in value["history"]
    )
    return lines


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
