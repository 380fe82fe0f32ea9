"""Plan a retraining; prepare, fit and walk forward for one unit."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.units import Unit, plan_units, unit_symbols
from assets.workspace import UnitTask, Workspace, code_fingerprint, in_use, workspace
from tradewind.clock import Clock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_json
from tradewind.settings import Settings

if TYPE_CHECKING:
    from tradewind.market.store import BarStore

EpochLog = Callable[[int, Mapping[str, float]], None]
KEEP_WORK = 3
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Plan:
    """The units of a retraining and the tracking run that holds them together."""

    tasks: tuple[UnitTask, ...]
    parent_run_id: str


def plan_retrain(
    settings: Settings,
    clock: Clock,
    *,
    symbols: Sequence[str] | None = None,
    families: Sequence[str] | None = None,
    units: Sequence[Unit] | None = None,
    days_back: int | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    dagster_run_id: str = "none",
    allow_failed_gates: bool = False,
) -> Plan:
    """Settle what a retraining will do, and open its tracking run.

    Raises
    ------
    TradewindError
        ``unknown_symbol`` / ``bad_input`` for a wrong choice, ``no_bars`` for an empty
        store, ``tracking_unreachable``.
    """
    from registry.tracking import Tracking, git_commit
    from tradewind.clock import last_closed_bar
    from tradewind.features.definitions import feature_version
    from tradewind.market.active import active_set, store_for

    units = plan_units(settings, symbols, families) if units is None else units
    store = store_for(settings)
    step = settings.market.timeframe_ms
    until_ms = last_closed_bar(clock.now_ms(), settings.market.timeframe) + step
    common = {
        "feature_version": feature_version(settings),
        "git_commit": git_commit(),
        "code_fingerprint": code_fingerprint(),
        "dagster_run_id": dagster_run_id,
    }
    choices = {
        "days_back": days_back or settings.training.days_back,
        "epochs": epochs or settings.training.epochs,
        "seed": settings.training.seed if seed is None else seed,
    }
    active = active_set(settings)
    source = "none" if active is None else active.source_name
    prints = {unit: _fingerprint(settings, store, unit, until_ms) for unit in units}
    seen = sorted(set(prints.values()))
    combined = seen[0] if len(seen) == 1 else hashlib.sha256("|".join(seen).encode()).hexdigest()
    tracking = Tracking(settings)
    tracking.close_orphans(older_than_s=24 * 3600)
    with tracking.start_run(
        f"retrain {_day(until_ms)}",
        tags={
            **common,
            "kind": "retrain",
            "family": " ".join(dict.fromkeys(unit.family for unit in units)),
            "model_key": " ".join(dict.fromkeys(unit.key for unit in units)),
            "data_fingerprint": combined,
            "source": source,
        },
        params={**choices, "units": " ".join(unit.name for unit in units)},
    ) as run:
        parent = run.run_id
    tasks = tuple(
        UnitTask(
            family=unit.family,
            key=unit.key,
            data_fingerprint=prints[unit],
            until_ms=until_ms,
            parent_run_id=parent,
            source=source,
            allow_failed_gates=allow_failed_gates,
            **choices,
            **common,
        )
        for unit in units
    )
    return Plan(tasks, parent)


def prepare(settings: Settings, task: UnitTask) -> dict[str, float | str]:
    """Build and store the training set of a unit; returns its figures."""
    from tradewind.market.ingest import store_for
    from tradewind.models.dataset import TrainingSet, build_training_set

    work = workspace(settings, task)
    _forget_old_work(work)
    with work.locked("prepare"):
        if not (work.training_set / "done.json").exists():
            built = build_training_set(
                settings,
                store_for(settings),
                task.until_ms,
                symbols=unit_symbols(settings, task.unit),
                days_back=task.days_back,
            )
            built.save(work.training_set)
            write_json(work.training_set / "done.json", {"rows": len(built.samples)})
    training_set = TrainingSet.load(work.training_set)
    return {
        "rows": len(training_set.samples),
        "start_ms": training_set.start_ms,
        "end_ms": training_set.end_ms,
        "feature_version": training_set.feature_version,
        "data_fingerprint": training_set.data_fingerprint,
        "base_rate": float(training_set.samples.y_up.mean()),
    }


def fit(settings: Settings, task: UnitTask, log: EpochLog | None = None) -> dict[str, float]:
    """Fit a unit, resuming where a killed fit stopped; epochs go to the tracker as they end."""
    from registry.tracking import Tracking
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.training import fit_candidate

    work = workspace(settings, task)
    tracking = Tracking(settings)
    training_set = TrainingSet.load(work.training_set)
    with tracking.start_run(
        f"{task.unit.name} {_day(task.until_ms)}",
        parent_run_id=task.parent_run_id,
        run_id=_known_run(work),
        tags=run_tags(task),
        params={"days_back": task.days_back, "epochs": task.epochs, "seed": task.seed},
    ) as run:
        write_json(work.tracking_run, {"run_id": run.run_id})

        def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            run.log_metrics(dict(metrics), step=epoch)
            if log is not None:
                log(epoch, metrics)

        with work.locked("fit"):
            outcome = fit_candidate(
                settings,
                training_set,
                task.family,
                task.key,
                seed=task.seed,
                epochs=task.epochs,
                workdir=work.root,
                on_epoch=on_epoch,
            )
    return {
        "epochs": outcome.report.epochs,
        "best_epoch": outcome.report.best_epoch,
        **outcome.report.metrics,
    }


def walk_forward(settings: Settings, task: UnitTask, log: EpochLog | None = None) -> int:
    """Emulate the past retrainings of a unit; returns the out-of-sample rows."""
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.walk_forward import run_walk_forward

    work = workspace(settings, task)
    with work.locked("walk_forward"):
        result = run_walk_forward(
            settings,
            TrainingSet.load(work.training_set),
            task.family,
            task.key,
            workdir=work.root,
            on_fold=log,
            epochs=task.epochs,
            seed=task.seed,
        )
    return len(result.ts)


def run_tags(task: UnitTask) -> dict[str, str]:
    """Return the tags that make a run traceable."""
    return {
        "kind": "candidate",
        "family": task.family,
        "model_key": task.key,
        "data_fingerprint": task.data_fingerprint,
        "feature_version": task.feature_version,
        "git_commit": task.git_commit,
        "dagster_run_id": task.dagster_run_id,
        "source": task.source,
    }


def _fingerprint(settings: Settings, store: BarStore, unit: Unit, until_ms: int) -> str:
    """Return the hash of the bars a unit reads, or "unreadable".

    What cannot be read is reported by the unit's own `prepare`, which stops that unit only.
    """
    timeframe = settings.market.timeframe
    used = dict.fromkeys((*unit_symbols(settings, unit), *settings.market.reference_symbols))
    stored = [name for name in used if name in store.symbols(timeframe)]
    try:
        return store.fingerprint(stored, timeframe, until_ms=until_ms)
    except TradewindError as error:
        if error.code is not ErrorCode.CORRUPT_FILE:
            raise
        return UNREADABLE


def _known_run(work: Workspace) -> str | None:
    if not work.tracking_run.exists():
        return None
    return str(json.loads(work.tracking_run.read_text(encoding="utf-8"))["run_id"])


def _forget_old_work(work: Workspace) -> None:
    """Keep the newest few work folders of a unit; the registry has what was released."""
    if not work.root.parent.is_dir():
        return
    others = [path for path in work.root.parent.iterdir() if path != work.root]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[KEEP_WORK - 1 :]:
        if not in_use(path):
            shutil.rmtree(path)


def _day(ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, tz=UTC).strftime("%Y-%m-%d")
