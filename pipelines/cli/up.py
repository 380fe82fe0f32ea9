"""Everything at once, and the logs of its processes."""

from __future__ import annotations

import sys

import typer

from pipelines.cli.output import friendly
from pipelines.cli.run import PACE_S
from tradewind.errors import ErrorCode, TradewindError

REPLAY_DAYS = 14
FOLLOW_S = 0.3
LINES = 50


@friendly
def up(
    replay: bool | None = typer.Option(
        None,
        "--replay/--live",
        help="Replay stored bars, or follow the wall clock; default: replay when the bars come "
        "from a folder, a demo or a simulated market.",
    ),
    pace: float = typer.Option(
        PACE_S, min=0, help="Seconds a replayed bar takes; 0: as fast as possible."
    ),
    replay_days: int = typer.Option(
        REPLAY_DAYS, min=1, help="First start: days before the newest bar where the replay begins."
    ),
) -> None:
    """Run MLflow, Dagster, serving and the paper engine until Ctrl-C, and watch them.

    Uses TRADEWIND_HOME, else a finished demo's home (var/demo), else var. A process that dies
    is started again and named; a second start resumes.
    """
    from pipelines.demo_summary import wide_console
    from pipelines.up.run import Asked, run_up

    asked = Asked(
        mode=None if replay is None else ("replay" if replay else "wall"),
        pace_s=pace,
        replay_days=replay_days,
    )
    status = run_up(asked, wide_console())
    if status:
        raise typer.Exit(status)


@friendly
def logs(
    name: str = typer.Argument(help="A process, as `tradewind status` names it, or `up`."),
    follow: bool = typer.Option(False, "--follow", "-f", help="Go on printing until Ctrl-C."),
    lines: int = typer.Option(LINES, "--lines", "-n", min=1, help="How many of the last lines."),
) -> None:
    """Print the log of a process that `tradewind up` runs, or ran."""
    from pipelines.up.homes import choose_home
    from pipelines.up.logs import follow as followed
    from pipelines.up.logs import tail
    from pipelines.up.state import folder_of, log_of

    home = choose_home()
    path = log_of(home, name)
    if not path.exists():
        known = sorted(item.stem for item in (folder_of(home) / "logs").glob("*.log"))
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"there is no log of {name!r} in {home}",
            f"Name one of: {', '.join(known)}" if known else "Run `tradewind up` first",
        )
    if not follow:
        sys.stdout.write("".join(f"{line}\n" for line in tail(path, lines)))
        return
    for text in followed(path, lines, FOLLOW_S):
        sys.stdout.write(text)
        sys.stdout.flush()
