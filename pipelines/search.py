"""Run the search job from the command line with a progress bar, and sum it up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.launch import launch, open_instance
from pipelines.progress import progress_bar
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance, EventLogEntry

OP = "search_hyperparameters"


def run_search_job(
    settings: Settings, config: dict[str, Any], *, console: Console
) -> dict[str, Any]:
    """Launch `search` on the shared instance and wait; returns the report's fields.

    Raises
    ------
    TradewindError
        ``bad_input`` with the step's own message when the run failed.
    """
    with progress_bar(console) as bar:
        task = bar.add_task("search", total=config["trials"], note="")

        def on_event(entry: EventLogEntry) -> None:
            if entry.dagster_event is not None or entry.step_key is None:
                return
            bar.update(task, note=entry.user_message[:70])
            if entry.user_message.startswith("trial") and " fold " not in entry.user_message:
                bar.advance(task)
                if not console.is_terminal:
                    console.print(f"  {entry.user_message}", highlight=False, soft_wrap=True)

        instance = open_instance(settings)
        finished = launch(
            instance, "search", run_config={"ops": {OP: {"config": config}}}, on_event=on_event
        )
    if not finished.success:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"search run {finished.run_id} failed: {'; '.join(finished.errors)}",
            "Mend what it names and run it again: it goes on with the trial that it was in",
        )
    return _report_of(instance, finished.run_id)


def print_report(report: dict[str, Any]) -> None:
    """Print the trials, best first, and what the holdout says."""
    from pipelines.cli.output import say, table

    ranked = sorted(report["trials"], key=lambda trial: (trial["status"] != "complete", _at(trial)))
    table(
        f"search of {report['family']} {report['key']}: log_loss less the base rate's",
        ["trial", "status", "score", "auc", "folds", "s", "parameters"],
        [
            [
                str(trial["number"]),
                trial["status"],
                _short(trial["score"]),
                _short(trial["auc"]),
                str(trial["folds"]),
                f"{trial['seconds']:.0f}",
                " ".join(f"{name.split('.')[1]}={value:.4g}" for name, value in _params(trial)),
            ]
            for trial in ranked
        ],
    )
    holdout = report["holdout"]
    say(
        f"holdout, {holdout['rows']:.0f} rows that no trial saw: auc {holdout['auc_best']:.4f} "
        f"(defaults {holdout['auc_defaults']:.4f}), log_loss gain {holdout['gain']:+.6f} "
        f"[{holdout['gain_low']:+.6f}, {holdout['gain_high']:+.6f}]\n{report['verdict']}"
    )
    if report["run_url"]:
        say(report["run_url"])


def _report_of(instance: DagsterInstance, run_id: str) -> dict[str, Any]:
    from dagster import DagsterEventType

    (entry,) = instance.all_logs(run_id, of_type=DagsterEventType.ASSET_OBSERVATION)
    event = entry.get_dagster_event()
    path = Path(str(event.asset_observation_data.asset_observation.metadata["report"].value))
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def _at(trial: dict[str, Any]) -> float:
    return math.inf if trial["score"] is None else float(trial["score"])


def _params(trial: dict[str, Any]) -> list[tuple[str, float]]:
    return sorted(trial["params"].items())


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:+.6f}" if value < 0 else f"{value:.4f}"
