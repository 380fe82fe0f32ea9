"""Plan a retraining; prepare, fit and walk forward for one unit."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.steps.record import (
    CONTEXTS,
    RETRAINS_TAG,
    STAGE_TAG,
    log_changed,
    place,
    retrain_params,
    slices_of,
    unit_params,
    unit_tags,
    walked_slice,
)
from assets.units import Unit, plan_units, unit_symbols
from assets.workspace import UnitTask, Workspace, code_fingerprint, in_use, workspace
from tradewind.clock import Clock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_json
from tradewind.settings import Settings

if TYPE_CHECKING:
    from registry.tracking import Tracking
    from tradewind.market.store import BarStore
    from tradewind.models.base import FitReport

EpochLog = Callable[[int, Mapping[str, float]], None]
RunLog = Callable[[str, str | None], None]
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
    trigger: str = "manual",
    reason: str = "",
) -> Plan:
    """Settle what a retraining will do, and open its tracking run.

    ``trigger`` says what asked for it (manual, schedule, a sensor's name), ``reason`` why, in
    words; both are tags of every run that comes of it.

    Raises
    ------
    TradewindError
        ``unknown_symbol`` / ``bad_input`` for a wrong choice, ``no_bars`` for an empty
        store, ``tracking_unreachable``.
    """
    from registry.names import minute, relocatable, retrain_name
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
        "trigger": trigger,
        "reason": reason,
    }
    choices = {
        "days_back": days_back or settings.training.days_back,
        "epochs": epochs or settings.training.epochs,
        "seed": settings.training.seed if seed is None else seed,
    }
    active = active_set(settings)
    source = "none" if active is None else relocatable(active.source_name)
    prints = {unit: _fingerprint(settings, store, unit, until_ms) for unit in units}
    seen = sorted(set(prints.values()))
    combined = seen[0] if len(seen) == 1 else hashlib.sha256("|".join(seen).encode()).hexdigest()
    tracking = Tracking(settings)
    tracking.close_orphans(older_than_s=24 * 3600)
    with tracking.start_run(
        retrain_name(time.time_ns() // 1_000_000, len(units)),
        tags={
            **common,
            "kind": "retrain",
            "reason": reason or "none",
            STAGE_TAG: "planned",
            "units": len(units),
            "symbols": " ".join(_all_symbols(settings, units)),
            "profile": settings.profile.value,
            "data_until": f"until {minute(until_ms)} UTC",
            "family": " ".join(dict.fromkeys(unit.family for unit in units)),
            "model_key": " ".join(dict.fromkeys(unit.key for unit in units)),
            "data_fingerprint": combined,
            "source": source,
        },
        params={
            **retrain_params(settings, choices),
            "units": " ".join(unit.name for unit in units),
        },
        description=f"Planned: {', '.join(unit.name for unit in units)}. {reason}",
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


def fit(
    settings: Settings,
    task: UnitTask,
    log: EpochLog | None = None,
    on_run: RunLog | None = None,
) -> dict[str, float | str]:
    """Fit a unit, resuming where a killed fit stopped; epochs go to the tracker as they end.

    Each epoch is logged once: a resumed fit tells its earlier ones again, and ``log`` is told
    those only that the run did not have.

    ``on_run`` is told the tracking run's id, and its page where known, before the first epoch.

    The result holds ``mlflow_url``, the run's page, where its address is known.
    """
    from registry.datasets import log_datasets
    from registry.links import run_url
    from registry.names import span_text, unit_name
    from registry.series import SeriesLog
    from registry.tracking import Tracking
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.training import fit_candidate

    work = workspace(settings, task)
    tracking = Tracking(settings)
    training_set = TrainingSet.load(work.training_set)
    started = time.monotonic()
    # Under the lock before the run is opened: two that start at once would open one each.
    with work.locked("fit"):
        known = _ensure_run(settings, task, work, tracking)
        parent, retrains = place(tracking, known, task)
        with tracking.start_run(
            unit_name(task.family, task.key),
            parent_run_id=parent,
            run_id=known,
            tags={
                **unit_tags(settings, task),
                RETRAINS_TAG: retrains,
                "data_span": span_text(training_set.start_ms, training_set.end_ms),
            },
            params=unit_params(settings, task),
        ) as run:
            write_json(work.tracking_run, {"run_id": run.run_id})
            url = run_url(settings, tracking.experiment_id, run.run_id)
            if on_run is not None:
                on_run(run.run_id, url)

            series = SeriesLog(run)

            def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
                if series(epoch, metrics) and log is not None:
                    log(epoch, metrics)

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
            if not outcome.reused:
                seconds = round(time.monotonic() - started, 3)
                log_changed(run, {**_best(outcome.report), "fit_seconds": seconds})
                run.set_tags({STAGE_TAG: "fitted"})
            parts = {name: outcome.slice(name) for name in CONTEXTS}
            log_datasets(run, slices_of(settings, task, training_set, parts))
    return {
        "epochs": outcome.report.epochs,
        "best_epoch": outcome.report.best_epoch,
        **outcome.report.metrics,
        **({"mlflow_url": url} if url else {}),
    }


def walk_forward(settings: Settings, task: UnitTask, log: EpochLog | None = None) -> int:
    """Emulate the past retrainings of a unit; returns the out-of-sample rows.

    Each fold is a run nested in the unit's; one that was logged before is not logged again.
    """
    from registry.datasets import log_datasets
    from registry.folds import FoldLog
    from registry.names import unit_name
    from registry.tracking import Tracking
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.walk_forward import run_walk_forward

    work = workspace(settings, task)
    training_set = TrainingSet.load(work.training_set)
    tracking, tags = Tracking(settings), unit_tags(settings, task)
    known = _ensure_run(settings, task, work, tracking)
    with (
        work.locked("walk_forward"),
        tracking.start_run(unit_name(task.family, task.key), run_id=known, tags=tags) as run,
    ):
        result = run_walk_forward(
            settings,
            training_set,
            task.family,
            task.key,
            workdir=work.root,
            on_fold=log,
            on_result=FoldLog(tracking, run.run_id, tags),
            epochs=task.epochs,
            seed=task.seed,
        )
        log_datasets(run, [walked_slice(settings, task, training_set, result)])
    return len(result.ts)


def _best(report: FitReport) -> dict[str, float]:
    """Return the figures at the best epoch: a series shows the last one only."""
    best = {"best_epoch": float(report.best_epoch)}
    loss = report.metrics.get("valid_log_loss")
    return best if loss is None else {**best, "best_valid_log_loss": loss}


def _all_symbols(settings: Settings, units: Sequence[Unit]) -> list[str]:
    return list(dict.fromkeys(name for unit in units for name in unit_symbols(settings, unit)))


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


def _ensure_run(settings: Settings, task: UnitTask, work: Workspace, tracking: Tracking) -> str:
    """Return the unit's tracking run, made by whichever step comes first.

    Fit and walk-forward start side by side; each would otherwise open a run of its own.
    """
    from registry.names import unit_name

    with work.locked("tracking"):
        known = _known_run(work)
        if known is not None:
            return known
        with tracking.start_run(
            unit_name(task.family, task.key),
            parent_run_id=task.parent_run_id,
            tags={**unit_tags(settings, task), RETRAINS_TAG: task.parent_run_id},
            params=unit_params(settings, task),
        ) as run:
            write_json(work.tracking_run, {"run_id": run.run_id})
        return run.run_id


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
