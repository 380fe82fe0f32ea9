"""Search for hyperparameters that forecast better, judged where no trial has looked.

A trial is a whole walk-forward with its own settings. Its score is the mean log-loss less the
base rate's on the same out-of-sample rows: below zero is skill. The newest days are cut off
before the first trial; the best trial and the defaults meet there once, at the end, because the
best of many trials looks better on the days it was chosen on than it is.

Trials are kept in a journal (one JSON line an event). A killed search goes on with the trial it
was in, whose finished folds are read again, and ends as one that was never killed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import FloatArray
from tradewind.models.bootstrap import Interval, TimeBootstrap
from tradewind.models.dataset import TrainingSet
from tradewind.models.families import forecaster_class
from tradewind.models.metrics import auc, row_log_loss
from tradewind.models.walk_forward import OutOfSample, run_walk_forward
from tradewind.settings import MS_PER_DAY, Settings

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

Params = dict[str, float | int]

JOURNAL = "journal.jsonl"
WORK = "trials"


class Range(NamedTuple):
    """What a hyperparameter may be; ``path`` is its setting, ``section.name``."""

    path: str
    low: float
    high: float
    log: bool = True


BOOSTED_SPACE = (
    Range("boosted.learning_rate", 0.005, 0.1),
    Range("boosted.num_leaves", 4, 63),
    Range("boosted.min_leaf_share", 0.002, 0.1),
    Range("boosted.feature_fraction", 0.2, 1.0, log=False),
    Range("boosted.bagging_fraction", 0.3, 0.95, log=False),
    Range("boosted.lambda_l2", 0.1, 100.0),
)
DEEP_SPACE = (
    Range("training.learning_rate", 5e-5, 2e-3),
    Range("training.dropout", 0.05, 0.5, log=False),
    Range("deep.weight_decay", 1e-3, 0.3),
)


@dataclass(frozen=True)
class TrialResult:
    """One trial that is over.

    ``score`` is the mean log-loss less the base rate's; of a pruned trial, over the folds it
    was granted. ``status`` is complete, pruned or failed (``error`` says why, ``score`` is NaN).
    """

    number: int
    params: Params
    score: float
    auc: float
    rows: int
    folds: int
    status: str
    error: str
    started_ms: int
    seconds: float


@dataclass(frozen=True)
class SearchResult:
    """How a search ended.

    ``holdout_gain`` is the mean log-loss of the defaults less that of the best trial on the
    newest days, which no trial saw: above zero, the best is better there too. ``holdout_auc``
    has (best, defaults).
    """

    family: str
    key: str
    trials: tuple[TrialResult, ...]
    best: TrialResult
    holdout_start_ms: int
    holdout_rows: int
    holdout_gain: Interval
    holdout_auc: tuple[float, float]


TrialHook = Callable[[TrialResult], None]
FoldHook = Callable[[int, int, float], None]
"""Called with trial number, fold number and the running score."""


def space_of(family: str) -> tuple[Range, ...]:
    """Return what is searched for a family."""
    return BOOSTED_SPACE if forecaster_class(family).reads_wide else DEEP_SPACE


def with_params(settings: Settings, params: Params) -> Settings:
    """Return ``settings`` with some of them replaced, by ``section.name``."""
    changed: dict[str, dict[str, Any]] = {}
    for path, value in params.items():
        section, name = path.split(".")
        changed.setdefault(section, {})[name] = value
    return settings.model_copy(
        update={
            section: type(getattr(settings, section)).model_validate(
                {**getattr(settings, section).model_dump(), **values}
            )
            for section, values in changed.items()
        }
    )


def default_params(settings: Settings, family: str) -> Params:
    """Return the settings as they are, in the terms of the search."""
    found: Params = {}
    for item in space_of(family):
        section, name = item.path.split(".")
        found[item.path] = getattr(getattr(settings, section), name)
    return found


def run_search(
    settings: Settings,
    training_set: TrainingSet,
    family: str,
    key: str,
    *,
    workdir: Path,
    trials: int | None = None,
    holdout_days: int | None = None,
    on_trial: TrialHook | None = None,
    on_fold: FoldHook | None = None,
) -> SearchResult:
    """Run or go on with a search; trials that are over are told again, first.

    Raises
    ------
    TradewindError
        ``not_enough_bars`` when the days before the holdout leave no room for a fold;
        ``bad_input`` when every trial failed.
    """
    wanted = settings.search.trials if trials is None else trials
    days = settings.search.holdout_days if holdout_days is None else holdout_days
    end_ms = int(training_set.samples.ts[-1]) + settings.market.timeframe_ms
    start_ms = end_ms - days * MS_PER_DAY
    seen = _before(settings, training_set, start_ms)
    study = _open(settings, family, workdir / JOURNAL)
    told: list[TrialResult] = []

    def tell(trial: FrozenTrial) -> None:
        told.append(_result(len(told) + 1, trial))
        if on_trial is not None:
            on_trial(told[-1])

    for trial in study.trials:
        if "seconds" in trial.user_attrs and trial.state.is_finished():
            tell(trial)
    while len(told) < wanted:
        tell(_run_trial(settings, study, seen, family, key, workdir / WORK, on_fold))
    complete = [trial for trial in told if trial.status == "complete"]
    if not complete:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"all {len(told)} trials of {family} {key} failed or were pruned: {told[-1].error}",
            "Mend the cause that the trials name, delete the search's folder and start again",
        )
    best = min(complete, key=lambda trial: trial.score)
    gain, aucs, rows = _on_holdout(
        settings, training_set, family, key, best, start_ms, days, workdir
    )
    return SearchResult(family, key, tuple(told), best, start_ms, rows, gain, aucs)


def _before(settings: Settings, training_set: TrainingSet, start_ms: int) -> TrainingSet:
    """Return the rows whose label was known when the holdout began."""
    step = settings.market.timeframe_ms
    horizon_ms = (settings.training.horizon + 1) * step
    samples = training_set.samples
    kept = samples.subset(samples.ts + horizon_ms <= start_ms)
    if not len(kept):
        raise TradewindError(
            ErrorCode.NOT_ENOUGH_BARS,
            f"no labelled row lies before the holdout of {len(samples)} rows",
            "Lower search.holdout_days, or raise training.days_back",
        )
    return replace(training_set, samples=kept, end_ms=int(kept.ts[-1]) + horizon_ms)


def _open(settings: Settings, family: str, journal: Path) -> Study:
    """Open the study, its journal mended after a kill, the defaults its first trial."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=family,
        storage=JournalStorage(JournalFileBackend(str(journal))),
        load_if_exists=True,
        direction="minimize",
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=settings.search.startup_trials,
            n_warmup_steps=settings.search.prune_after_folds,
        ),
    )
    if not study.trials:
        study.enqueue_trial(default_params(settings, family))
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        # Its process died: the same values again, as a trial of their own.
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params or trial.system_attrs.get("fixed_params", {}))
    return study


def _run_trial(
    settings: Settings,
    study: Study,
    seen: TrainingSet,
    family: str,
    key: str,
    workdir: Path,
    on_fold: FoldHook | None,
) -> FrozenTrial:
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    over = sum("seconds" in trial.user_attrs for trial in study.trials)
    # Seeded by how many are over: a search that was killed draws what it would have drawn.
    study.sampler = TPESampler(
        seed=settings.training.seed + over, n_startup_trials=settings.search.startup_trials
    )
    trial = study.ask(_distributions(settings, family))
    running = _Running(trial, over + 1, on_fold)
    trial.set_user_attr("started_ms", time.time_ns() // 1_000_000)
    started = time.monotonic()
    state, score = TrialState.COMPLETE, None
    try:
        found = run_walk_forward(
            with_params(settings, trial.params),
            seen,
            family,
            key,
            workdir=workdir,
            on_fold=running,
        )
        score = float(_excess(found).mean())
        trial.set_user_attr("auc", auc(found.p_up, found.y))
    except _HopelessError:
        state = TrialState.PRUNED
    except TradewindError as error:
        state = TrialState.FAIL
        trial.set_user_attr("error", str(error))
    trial.set_user_attr("rows", running.rows)
    trial.set_user_attr("folds", running.folds)
    trial.set_user_attr("running", running.score if running.rows else None)
    trial.set_user_attr("seconds", round(time.monotonic() - started, 3))
    return study.tell(trial, score, state=state)


class _HopelessError(Exception):
    """A trial is worse so far than half of the others were by then."""


class _Running:
    """The score over the folds so far; stops a trial that has no prospect."""

    def __init__(self, trial: Trial, number: int, on_fold: FoldHook | None) -> None:
        self.trial = trial
        self.number = number
        self.on_fold = on_fold
        self.rows, self.folds, self.total = 0, 0, 0.0

    @property
    def score(self) -> float:
        return self.total / self.rows

    def __call__(self, fold: int, figures: Any) -> None:
        count = int(figures["rows"])
        self.total += count * (figures["log_loss"] - figures["log_loss_base_rate"])
        self.rows, self.folds = self.rows + count, fold
        self.trial.report(self.score, fold)
        if self.on_fold is not None:
            self.on_fold(self.number, fold, self.score)
        # The first trial is the yardstick: it always runs to its end.
        if self.number > 1 and self.trial.should_prune():
            raise _HopelessError


def _distributions(settings: Settings, family: str) -> dict[str, Any]:
    """Return the space in Optuna's terms; a default outside its range widens it."""
    from optuna.distributions import FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    defaults = default_params(settings, family)
    for item in space_of(family):
        default = defaults[item.path]
        low, high = min(item.low, default), max(item.high, default)
        if isinstance(default, int):
            found[item.path] = IntDistribution(int(low), int(high), log=item.log)
        else:
            found[item.path] = FloatDistribution(low, high, log=item.log)
    return found


def _result(number: int, trial: FrozenTrial) -> TrialResult:
    from optuna.trial import TrialState

    kept = trial.user_attrs
    names = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
    score = trial.value if trial.state is TrialState.COMPLETE else kept["running"]
    return TrialResult(
        number=number,
        params=dict(trial.params),
        score=math.nan if score is None else float(score),
        auc=float(kept.get("auc", math.nan)),
        rows=int(kept["rows"]),
        folds=int(kept["folds"]),
        status=names.get(trial.state, "failed"),
        error=str(kept.get("error", "")),
        started_ms=int(kept["started_ms"]),
        seconds=float(kept["seconds"]),
    )


def _on_holdout(
    settings: Settings,
    training_set: TrainingSet,
    family: str,
    key: str,
    best: TrialResult,
    start_ms: int,
    days: int,
    workdir: Path,
) -> tuple[Interval, tuple[float, float], int]:
    """Return the gain of the best over the defaults, both AUCs and the rows of the holdout."""
    folds = math.ceil(days / settings.training.fold_days)
    found = []
    for params in (best.params, {}):
        chosen = with_params(settings, {**params, "training.walk_forward_folds": folds})
        walked = run_walk_forward(chosen, training_set, family, key, workdir=workdir / "holdout")
        inside = walked.ts >= start_ms
        found.append((walked.ts[inside], walked.p_up[inside], walked.y[inside]))
    (ts, p_best, y), (_, p_default, _) = found
    drawn = TimeBootstrap(
        ts,
        samples=settings.training.bootstrap_samples,
        block_ms=settings.training.horizon * settings.market.timeframe_ms,
    )
    gain = drawn.paired(row_log_loss(p_default, y), row_log_loss(p_best, y))
    return gain, (auc(p_best, y), auc(p_default, y)), len(ts)


def _excess(found: OutOfSample) -> FloatArray:
    return row_log_loss(found.p_up, found.y) - row_log_loss(found.base_rate, found.y)
