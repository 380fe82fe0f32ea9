"""What a retraining writes into MLflow beside figures: tags, parameters, notes, data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from assets.units import unit_symbols
from assets.workspace import UnitTask
from tradewind.settings import Settings

if TYPE_CHECKING:
    from registry.datasets import DatasetSlice
    from registry.tracking import RunHandle, Tracking
    from registry.versions import RegisteredVersion
    from tradewind.models.base import Samples
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.gates import GateReport
    from tradewind.models.walk_forward import OutOfSample

LAUNCHER_TAGS = ("dagster/sensor_name", "dagster/schedule_name")
REASON_TAG = "tradewind/reason"
RETRAINS_TAG = "retrains"
STAGE_TAG = "stage"
UNIT_KIND = "candidate"
JUDGED_STAGES = ("judged", "promoted")
COMMON_PARAMS = (
    "horizon",
    "split",
    "walk_forward_folds",
    "fold_days",
    "deep_folds",
    "bootstrap_samples",
    "judge_passes",
    "judge_stride",
    "calibrate_stride",
)
DEEP_PARAMS = ("max_epoch_samples", "batch_size", "learning_rate", "dropout")
CONTEXTS = {"train": "train", "valid": "validation", "calib": "calibration", "test": "test"}


def asked_by(run_tags: Mapping[str, str]) -> tuple[str, str]:
    """Return what launched a Dagster run (a sensor, a schedule, or "manual"), and its reason."""
    names = (run_tags[name] for name in LAUNCHER_TAGS if name in run_tags)
    return next(names, "manual"), run_tags.get(REASON_TAG, "")


def unit_tags(settings: Settings, task: UnitTask) -> dict[str, str]:
    """Return the tags that make a unit's run traceable and the run table readable."""
    return {
        "kind": UNIT_KIND,
        "family": task.family,
        "model_key": task.key,
        "symbols": " ".join(unit_symbols(settings, task.unit)),
        "profile": settings.profile.value,
        "trigger": task.trigger,
        "reason": task.reason or "none",
        "data_fingerprint": task.data_fingerprint,
        "feature_version": task.feature_version,
        "git_commit": task.git_commit,
        "dagster_run_id": task.dagster_run_id,
        "source": task.source,
    }


def retrain_params(settings: Settings, choices: Mapping[str, int]) -> dict[str, object]:
    """Return what every unit of a retraining is given."""
    training = settings.training
    return {
        **choices,
        "timeframe": settings.market.timeframe,
        "features.window": settings.features.window,
        **{f"training.{name}": getattr(training, name) for name in COMMON_PARAMS},
    }


def unit_params(settings: Settings, task: UnitTask) -> dict[str, object]:
    """Return every setting that defines the fit, named by its path in the settings."""
    from tradewind.models.families import family_settings, forecaster_class

    params = retrain_params(
        settings, {"days_back": task.days_back, "epochs": task.epochs, "seed": task.seed}
    )
    if forecaster_class(task.family).reads_wide:
        params["training.bag"] = settings.training.bag
    else:
        params |= {f"training.{name}": getattr(settings.training, name) for name in DEEP_PARAMS}
    for section, values in family_settings(task.family, settings).items():
        params |= {f"{section}.{name}": value for name, value in values.items()}
    return params


def place(tracking: Tracking, known: str | None, task: UnitTask) -> tuple[str | None, str]:
    """Return the parent of a unit's run, and the list of retrainings that it is part of.

    A retraining that finds work half done takes its run over; one that finds it judged leaves
    the run where it was made, and only counts it.
    """
    from registry.tracking import listed

    if known is None:
        return task.parent_run_id, task.parent_run_id
    tags = tracking.run_tags(known)
    own = listed(tags.get(RETRAINS_TAG, ""), task.parent_run_id)
    return (None if tags.get(STAGE_TAG) in JUDGED_STAGES else task.parent_run_id), own


def log_changed(run: RunHandle, metrics: Mapping[str, float | None]) -> None:
    """Log the figures that the run does not show already: a step run again adds no points."""
    shown = run.tracking.run_metrics(run.run_id)
    run.log_metrics(
        {
            name: value
            for name, value in metrics.items()
            if value is not None and shown.get(name) != value
        }
    )


def slices_of(
    settings: Settings, task: UnitTask, training_set: TrainingSet, parts: Mapping[str, Samples]
) -> list[DatasetSlice]:
    """Return the data sets of a fit: train, validation, calibration and test rows."""
    return [
        _slice(settings, task, training_set, CONTEXTS[name], len(rows), rows.ts, rows.symbols)
        for name, rows in parts.items()
    ]


def walked_slice(
    settings: Settings, task: UnitTask, training_set: TrainingSet, rows: OutOfSample
) -> DatasetSlice:
    """Return the data set of all walk-forward test rows."""
    return _slice(settings, task, training_set, "walk_forward", len(rows.ts), rows.ts, rows.symbols)


def _slice(
    settings: Settings,
    task: UnitTask,
    training_set: TrainingSet,
    context: str,
    rows: int,
    ts: Any,
    symbols: tuple[str, ...],
) -> DatasetSlice:
    from registry.datasets import DatasetSlice

    return DatasetSlice(
        context=context,
        key=task.key,
        store=f"{settings.market.set_id}/{settings.market.timeframe}",
        source=task.source,
        fingerprint=task.data_fingerprint,
        feature_version=task.feature_version,
        symbols=symbols,
        columns=training_set.samples.wide_names,
        rows=rows,
        start_ms=int(ts.min()),
        end_ms=int(ts.max()),
    )


def verdict_tags(gates: GateReport) -> dict[str, str]:
    """Return the gates as tags: the verdict, how many passed, and the names of the others."""
    import json

    failed = [gate.name for gate in gates.gates if not gate.passed]
    return {
        "gates": "failed" if failed else "passed",
        "gates_passed": f"{len(gates.gates) - len(failed)} of {len(gates.gates)}",
        "gates_failed": " ".join(failed) or "none",
        "gate_reasons": json.dumps(gates.reasons),
    }


def unit_note(
    settings: Settings,
    task: UnitTask,
    gates: GateReport,
    metrics: Mapping[str, float | None],
    version: RegisteredVersion,
) -> str:
    """Return the note of a unit's run: the result in two lines, gates, links."""
    passed = sum(gate.passed for gate in gates.gates)
    ticks = " · ".join(f"{'✓' if gate.passed else '✗'} {gate.name}" for gate in gates.gates)
    return "\n".join(
        [
            f"**{task.family} {task.key}**: {_result(metrics)}  ",
            f"Gates {'passed' if gates.passed else 'FAILED'} ({passed} of {len(gates.gates)}): "
            f"{ticks}",
            "",
            f"- registered as {version_link(settings, version.name, version.version)}",
            f"- launched by {dagster_link(settings, task.dagster_run_id)} "
            f"({task.trigger}{': ' + task.reason if task.reason else ''})",
            "- pictures, report and model card: the Artifacts tab; folds: the nested runs",
            *(f"- ✗ {reason}" for reason in gates.reasons),
        ]
    )


def summarise(settings: Settings, tracking: Tracking, parent_run_id: str) -> None:
    """Write what became of the units so far onto the retraining's run."""
    from registry.tracking import NOTE_TAG, RunHandle

    units = tracking.search(
        f"tags.`{RETRAINS_TAG}` LIKE '%{parent_run_id}%' AND tags.`kind` = '{UNIT_KIND}'"
    )
    judged = [run for run in units if run.data.tags.get(STAGE_TAG) in JUDGED_STAGES]
    passed = [run for run in judged if run.data.tags.get("gates") == "passed"]
    tags = tracking.run_tags(parent_run_id)
    planned = int(tags.get("units", len(units)))
    failed = sorted(
        {f"{_unit(run)}: {run.data.tags['gates_failed']}" for run in judged}
        - {f"{_unit(run)}: none" for run in judged}
    )
    lines = [
        f"**{len(judged)} of {planned} units judged, {len(passed)} passed every gate.**  ",
        f"{tags.get('trigger', 'manual')}, "
        f"{dagster_link(settings, tags.get('dagster_run_id', 'none'))}, bars {tags['data_until']}",
        "",
        "| unit | auc | log-loss − base rate | walk-forward ece | gates | version | alias |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_row(settings, run) for run in sorted(judged, key=_unit)),
    ]
    run = RunHandle(tracking, parent_run_id)
    run.set_tags(
        {
            NOTE_TAG: "\n".join(lines),
            "gates_passed": f"{len(passed)} of {planned}",
            "gates_failed": "; ".join(failed) or "none",
            STAGE_TAG: "judged" if len(judged) == planned else "running",
        }
    )
    log_changed(
        run,
        {
            "units": float(planned),
            "units_judged": float(len(judged)),
            "units_passed": float(len(passed)),
        },
    )
    tracking.end_again(parent_run_id)


def dagster_link(settings: Settings, dagster_run_id: str) -> str:
    """Return a link to the Dagster run, its bare id where no address is known."""
    from registry.links import dagster_run_url

    url = dagster_run_url(settings, dagster_run_id)
    known = dagster_run_id != "none" and url
    return f"[Dagster run]({url})" if known else f"Dagster run `{dagster_run_id}`"


def version_link(settings: Settings, name: str, version: int) -> str:
    """Return a link to a registered version, its label where no address is known."""
    from registry.links import version_url

    url = version_url(settings, name, version)
    return f"[{name}/{version}]({url})" if url else f"`{name}/{version}`"


def interval(metrics: Mapping[str, float | None], name: str, digits: int = 4) -> str:
    """Return a figure with its interval as text, "–" where there is none."""
    value, low, high = (metrics.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    sign = "+" if "_minus_" in name else ""
    if low is None or high is None:
        return f"{value:{sign}.{digits}f}"
    return f"{value:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def _result(metrics: Mapping[str, float | None]) -> str:
    return (
        f"auc {interval(metrics, 'auc')}, log-loss minus the base rate's "
        f"{interval(metrics, 'log_loss_minus_base_rate', 5)}, "
        f"walk-forward auc {interval(metrics, 'wf_auc')}, ece {interval(metrics, 'wf_ece')}"
    )


def _unit(run: Any) -> str:
    return f"{run.data.tags['family']} {run.data.tags['model_key']}"


def _row(settings: Settings, run: Any) -> str:
    tags, metrics = run.data.tags, run.data.metrics
    name, _, number = tags.get("version", "none/0").rpartition("/")
    return (
        f"| {_unit(run)} | {interval(metrics, 'auc')} "
        f"| {interval(metrics, 'log_loss_minus_base_rate', 5)} | {interval(metrics, 'wf_ece')} "
        f"| {tags.get('gates_passed', '–')} | {version_link(settings, name, int(number))} "
        f"| {tags.get('alias', '–')} |"
    )
