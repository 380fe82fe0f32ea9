"""The main job as one command."""

from __future__ import annotations

import typer

from pipelines.cli.output import friendly


@friendly
def demo(
    replay_days: int = typer.Option(0, min=0, help="Days to trade; 0: the profile's (5 or 28)."),
    fresh: bool = typer.Option(False, help="Forget an earlier demo instead of continuing it."),
    summary: str = typer.Option("summary.json", help="Where to write the summary."),
) -> None:
    """Run everything once: ingest, train, calibrate, gate, promote, serve, trade on paper.

    Trades a replayed stretch of bars that no model saw, and leaves the newest nine days for
    `tradewind up`. A killed demo continues where it stopped when the same command runs again.
    """
    from pathlib import Path

    from pipelines.demo import run_demo

    run_demo(replay_days=replay_days, fresh=fresh, summary=Path(summary))
