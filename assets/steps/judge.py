"""Calibrate, evaluate, gate and register the candidate of a unit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.steps.train import run_tags
from assets.workspace import UnitTask, Workspace, workspace
from tradewind.files import write_json
from tradewind.settings import Settings

if TYPE_CHECKING:
    from registry.tracking import Tracking
    from registry.versions import RegisteredVersion
    from tradewind.models.bundle import ModelBundle
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.evaluation import EvaluationReport
    from tradewind.models.gates import GateReport


@dataclass(frozen=True)
class Judgement:
    """A registered candidate and what its gates said."""

    name: str
    version: int
    run_id: str
    passed: bool
    gates: list[dict[str, Any]]
    metrics: dict[str, float | None]
    pictures: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def evaluate(settings: Settings, task: UnitTask) -> Judgement:
    """Turn a finished fit into a registered version with figures, pictures and gates."""
    from registry.tracking import Tracking
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.pictures import save_pictures
    from tradewind.models.walk_forward import run_walk_forward

    work = workspace(settings, task)
    training_set = TrainingSet.load(work.training_set)
    bundle = _bundle(settings, task, training_set, work)
    out_of_sample = run_walk_forward(
        settings,
        training_set,
        task.family,
        task.key,
        workdir=work.root,
        epochs=task.epochs,
        seed=task.seed,
    )
    report, gates = _judge(settings, task, training_set, bundle, out_of_sample, work)
    write_json(work.report, report.to_json())
    pictures = save_pictures(report, work.pictures)
    tracking = Tracking(settings)
    run_id = str(json.loads(work.tracking_run.read_text(encoding="utf-8"))["run_id"])
    metrics = report.metrics()
    with tracking.start_run(task.unit.name, run_id=run_id, tags=run_tags(task)) as run:
        run.log_metrics({name: value for name, value in metrics.items() if value is not None})
        run.log_artifact(work.report, "evaluation")
        for picture in pictures:
            run.log_artifact(picture, "pictures")
        version = _register(tracking, task, work, bundle, training_set, gates, run_id)
    return Judgement(
        name=version.name,
        version=version.version,
        run_id=run_id,
        passed=gates.passed,
        gates=[asdict(gate) for gate in gates.gates],
        metrics=metrics,
        pictures=[str(path) for path in pictures],
    )
