"""Run the retrain job from the command line with a progress bar, and sum it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console

from assets.units import plan_units
from pipelines.launch import launch, open_instance
from pipelines.progress import progress_bar
from tradewind.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance, EventLogEntry

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
    step_seconds: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    def print(self) -> None:
        """Print a table of the candidates."""
        from pipelines.cli.output import table

        table(
            f"retrain run {self.run_id}",
            ["version", "alias", "gates", "auc", "log_loss", "wf_ece", "missed"],
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
    given = {"days_back": days_back, "epochs": epochs, "seed": seed}
    config |= {name: value for name, value in given.items() if value is not None}
    console = console or Console(quiet=quiet)
    with progress_bar(console) as bar:
        task = bar.add_task("retrain", total=1 + STEPS_A_UNIT * len(units), note="")

        def on_event(entry: EventLogEntry) -> None:
            event = entry.dagster_event
            if event is None:
                if entry.step_key is not None:
                    bar.update(task, note=entry.user_message[:70])
                    if not console.is_terminal:
                        console.print(f"  {entry.user_message}", highlight=False, soft_wrap=True)
            elif event.is_step_success or event.is_step_skipped:
                bar.advance(task)

        instance = open_instance(settings)
        finished = launch(
            instance,
            "retrain",
            run_config={"ops": {"plan_units": {"config": config}}},
            on_event=on_event,
        )
    return RetrainOutcome(
        run_id=finished.run_id,
        success=finished.success,
        candidates=_candidates(settings, instance, finished.run_id),
        errors=list(finished.errors),
        step_seconds=_step_seconds(instance, finished.run_id),
    )


def _step_seconds(instance: DagsterInstance, run_id: str) -> dict[str, float]:
    """Return how long each step took."""
    return {
        step.step_key: round(step.end_time - step.start_time, 1)
        for step in instance.get_run_step_stats(run_id)
        if step.start_time is not None and step.end_time is not None
    }


def known_outcome(values: dict[str, Any]) -> RetrainOutcome:
    """Return what `RetrainOutcome.to_dict` gave."""
    candidates = [Candidate(**item) for item in values["candidates"]]
    return RetrainOutcome(**{**values, "candidates": candidates})


def _candidates(settings: Settings, instance: DagsterInstance, run_id: str) -> list[Candidate]:
    """Return the versions that the run's materialisations name, as the registry knows them."""
    import json

    from registry.tracking import Tracking
    from registry.versions import get_version

    labels = _registered_labels(instance, run_id)
    if not labels:
        return []
    tracking = Tracking(settings)
    found = []
    for label in labels:
        name, number = label.rsplit("/", 1)
        version = get_version(tracking, name, version=int(number))
        found.append(
            Candidate(
                name=version.name,
                version=version.version,
                alias=next(iter(version.aliases), None),
                gates=version.gates,
                metrics=dict(version.metrics),
                failed=json.loads(version.tags.get("gate_reasons", "[]")),
            )
        )
    return found


def _registered_labels(instance: DagsterInstance, run_id: str) -> list[str]:
    from dagster import DagsterEventType

    labels = []
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.get_dagster_event()
        if event.asset_key is not None and event.asset_key.path[-1] == "evaluation":
            metadata = event.step_materialization_data.materialization.metadata
            labels.append(str(metadata["version"].value))
    return sorted(labels)


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
