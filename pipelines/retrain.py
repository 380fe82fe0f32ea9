"""Run the retrain job from the command line with a progress bar, and sum it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console

from assets.units import plan_units
from pipelines.launch import Finished, launch, open_instance
from pipelines.progress import progress_bar
from tradewind.settings import Settings

if TYPE_CHECKING:
    from dagster import EventLogEntry

STEPS_A_UNIT = 6


@dataclass(frozen=True)
class Candidate:
    """A version that the run registered."""

    name: str
    version: int
    alias: str | None
    gates: str
    metrics: dict[str, float | None]
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RetrainOutcome:
    """How a retraining ended."""

    run_id: str
    success: bool
    candidates: list[Candidate]
    errors: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    def print(self) -> None:
        """Print a table of the candidates and what failed."""
        from pipelines.cli.output import say, table

        table(
            f"retrain run {self.run_id}",
            ["version", "alias", "gates", "auc", "log_loss", "ece", "missed"],
            [
                [
                    f"{item.name}/{item.version}",
                    item.alias,
                    item.gates,
                    *(_short(item.metrics.get(name)) for name in ("auc", "log_loss", "wf_ece")),
                    "; ".join(item.failed),
                ]
                for item in self.candidates
            ],
        )
        for error in self.errors:
            say(f"failed: {error}")


def run_retrain(
    settings: Settings,
    *,
    symbols: Sequence[str] = (),
    families: Sequence[str] = (),
    days_back: int | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    allow_failed_gates: bool = False,
    quiet: bool = False,
    console: Console | None = None,
) -> RetrainOutcome:
    """Launch `retrain` on the shared instance and wait, showing steps and epochs."""
    units = plan_units(settings, symbols, families)
    config: dict[str, Any] = {
        "symbols": list(symbols),
        "families": list(families),
        "allow_failed_gates": allow_failed_gates,
    }
    for name, value in (("days_back", days_back), ("epochs", epochs), ("seed", seed)):
        if value is not None:
            config[name] = value
    console = console or Console(quiet=quiet)
    with progress_bar(console) as bar:
        task = bar.add_task("retrain", total=1 + STEPS_A_UNIT * len(units), note="")

        def on_event(entry: EventLogEntry) -> None:
            event = entry.dagster_event
            if event is None:
                if entry.step_key is not None:
                    bar.update(task, note=entry.user_message[:70])
                    if not console.is_terminal:
                        console.print(f"  {entry.user_message}", highlight=False)
            elif event.is_step_success or event.is_step_skipped:
                bar.advance(task)

        finished = launch(
            open_instance(settings),
            "retrain",
            run_config={"ops": {"plan_units": {"config": config}}},
            on_event=on_event,
        )
    return RetrainOutcome(
        run_id=finished.run_id,
        success=finished.success,
        candidates=_candidates(settings, finished),
        errors=list(finished.errors),
    )


def _candidates(settings: Settings, finished: Finished) -> list[Candidate]:
    import json

    from registry.tracking import Tracking
    from registry.versions import list_versions

    found = []
    for version in list_versions(Tracking(settings)):
        if version.tags.get("dagster_run_id") != finished.run_id:
            continue
        reasons = json.loads(version.tags.get("gate_reasons", "[]"))
        found.append(
            Candidate(
                name=version.name,
                version=version.version,
                alias=next(iter(version.aliases), None),
                gates=version.gates,
                metrics=dict(version.metrics),
                failed=reasons,
            )
        )
    return found


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
