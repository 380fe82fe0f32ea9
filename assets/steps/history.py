"""Evaluate families over the whole history: plan, walk, judge, report, record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tradewind.clock import Clock
from tradewind.contracts import POOLED
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_bytes, write_json
from tradewind.settings import Settings

if TYPE_CHECKING:
    from tradewind.models.dataset import TrainingSet
    from tradewind.models.rolling.cost import WalkCost
    from tradewind.models.rolling.evaluate import Evaluation
    from tradewind.models.rolling.history import History
    from tradewind.models.rolling.verdict import Finding
    from tradewind.models.rolling.walk import FoldNews

BarsFrom = Literal["auto", "store", "folder"]
RESULTS = "results"
FIGURES_FILE = "evaluation.json"
PICTURES_FOLDER = "pictures"
NOT_READ = {
    "families",
    "pooled_families",
    "days_back",
    "split",
    "walk_forward_folds",
    "fold_days",
    "deep_folds",
}
"""Training settings that an evaluation over the history does not go by."""


@dataclass(frozen=True)
class HistoryChoices:
    """What to evaluate; empty symbols and families mean those of the settings."""

    symbols: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    per_symbol: bool = False
    bars: BarsFrom = "auto"
    shuffle_labels: bool = False


@dataclass(frozen=True, eq=False)
class HistoryPlan:
    """A settled evaluation: the rows, the models, what it will cost, and what to tell of it."""

    settings: Settings
    history: History
    training_set: TrainingSet
    families: tuple[str, ...]
    pooled: bool
    costs: tuple[WalkCost, ...]
    facts: dict[str, Any]

    @property
    def token(self) -> str:
        """Return the name of this evaluation: the hash of what was asked of which rows."""
        text = json.dumps(self.facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def workdir(self) -> Path:
        """Return where finished folds are kept."""
        from tradewind.models.rolling.history import FOLDER

        return self.settings.home / FOLDER

    @property
    def folder(self) -> Path:
        """Return where the results of this evaluation are written."""
        return self.workdir / RESULTS / self.token


@dataclass(frozen=True, eq=False)
class HistoryResult:
    """A finished evaluation and its files; ``run_id`` is None where none was recorded."""

    plan: HistoryPlan
    evaluation: Evaluation
    findings: tuple[Finding, ...]
    canaries: dict[str, Any]
    report: Path
    pictures: dict[str, Path]
    run_id: str | None = None
    run_url: str | None = None
    report_url: str | None = None
    values: dict[str, Any] = field(default_factory=dict)


def plan_history(settings: Settings, clock: Clock, choices: HistoryChoices) -> HistoryPlan:
    """Read the rows and settle what will be walked; nothing is fitted.

    Raises
    ------
    TradewindError
        ``unknown_symbol``, ``bad_setting`` (an unknown family, no folder), ``no_bars``,
        ``not_enough_bars``.
    """
    from tradewind.models.families import forecaster_class
    from tradewind.models.rolling.cost import walk_cost
    from tradewind.models.rolling.evaluate import in_ensemble
    from tradewind.models.rolling.history import load_history, shuffled_labels

    symbols = tuple(dict.fromkeys(choices.symbols or settings.market.symbols))
    families = tuple(dict.fromkeys(choices.families or settings.training.families))
    for family in families:
        forecaster_class(family)
    history = load_history(settings, clock, symbols, bars=choices.bars)
    settings, training_set = history.settings, history.training_set
    if choices.shuffle_labels:
        training_set = shuffled_labels(training_set, settings.training.seed)
    keys = list(symbols) if choices.per_symbol else [POOLED]
    return HistoryPlan(
        settings=settings,
        history=history,
        training_set=training_set,
        families=families,
        pooled=not choices.per_symbol,
        costs=tuple(
            cost
            for family in families
            for cost in walk_cost(
                settings,
                training_set,
                family,
                keys,
                record=in_ensemble(settings, family, families),
            )
        ),
        facts=_facts(settings, history, symbols, families, choices),
    )


def evaluate_plan(
    plan: HistoryPlan,
    *,
    on_fold: Callable[[FoldNews], None] | None = None,
    track: bool = True,
    dagster_run_id: str = "none",
) -> HistoryResult:
    """Walk, judge, write the report, and record it all in MLflow unless ``track`` is off.

    A repeat reads the finished folds and ends with the same figures, files and run.

    Raises
    ------
    TradewindError
        As the families' fits; ``tracking_unreachable``, before anything is fitted;
        ``already_running`` when another process walks the same family in this home.
    """
    from assets.steps.history_log import REPORT_FILE, HistoryLog
    from tradewind.models.rolling.canaries import coin_flips, lookahead, slices_apart
    from tradewind.models.rolling.evaluate import evaluate_history
    from tradewind.models.rolling.pictures import save_evaluation_pictures
    from tradewind.models.rolling.record import clean, summary
    from tradewind.models.rolling.report import render
    from tradewind.models.rolling.verdict import findings

    settings = plan.settings
    seen = lookahead(settings, plan.history.store, plan.facts["symbols"], plan.history.until_ms)
    if not seen["ok"]:
        raise _looks_ahead(seen)
    log = HistoryLog(plan, dagster_run_id) if track else None
    hooks = [hook for hook in (on_fold, log) if hook is not None]

    def heard(news: FoldNews) -> None:
        for hook in hooks:
            hook(news)

    with log.running() if log else _nothing():
        found = evaluate_history(
            settings,
            plan.training_set,
            plan.families,
            pooled=plan.pooled,
            workdir=plan.workdir,
            on_fold=heard,
        )
        canaries = {
            "lookahead": seen,
            "slices": slices_apart(settings, found.walks),
            "coin_flips": coin_flips(found.figures["same"], settings.gates.confidence_level),
        }
        said = findings(settings, found)
        pictures = save_evaluation_pictures(settings, found, plan.folder / PICTURES_FOLDER)
        values = clean(
            {
                "facts": plan.facts,
                "costs": [asdict(cost) for cost in plan.costs],
                "findings": [asdict(part) for part in said],
                "canaries": canaries,
                **summary(found),
            }
        )
        html = render(settings, found, said, canaries, plan.facts, pictures)
        write_json(plan.folder / FIGURES_FILE, values)
        write_bytes(plan.folder / REPORT_FILE, html.encode())
        if log is not None:
            log.record(found, plan.folder)
    return HistoryResult(
        plan=plan,
        evaluation=found,
        findings=tuple(said),
        canaries=canaries,
        report=plan.folder / REPORT_FILE,
        pictures=pictures,
        run_id=log.run_id if log else None,
        run_url=log.run_url if log else None,
        report_url=log.report_url if log else None,
        values=values,
    )


def _facts(
    settings: Settings,
    history: History,
    symbols: Sequence[str],
    families: Sequence[str],
    choices: HistoryChoices,
) -> dict[str, Any]:
    from registry.tracking import git_commit
    from tradewind.models.families import family_settings
    from tradewind.models.rolling.folds import fold_settings

    built, sized, serving = history.training_set, fold_settings(settings), settings.serving
    read = {
        section: values
        for family in families
        for section, values in family_settings(family, sized).items()
    }
    return {
        "bars_from": history.source,
        "symbols": list(symbols),
        "families": list(families),
        "pooled": not choices.per_symbol,
        "shuffled_labels": choices.shuffle_labels,
        "rows": len(built.samples),
        "start_ms": built.start_ms,
        "end_ms": built.end_ms,
        "timeframe": built.timeframe,
        "horizon": built.horizon,
        "feature_version": built.feature_version,
        "data_fingerprint": built.data_fingerprint,
        "git_commit": git_commit(),
        "seed": settings.training.seed,
        "evaluation": settings.evaluation.model_dump(mode="json"),
        "training": sized.training.model_dump(mode="json", exclude=NOT_READ),
        **read,
        "calibration": settings.calibration.model_dump(mode="json"),
        "vote": serving.vote.model_dump(mode="json"),
        "base_threshold": serving.base_threshold,
        "epistemic_p_limit": serving.epistemic_p_limit,
        "confidence_level": settings.gates.confidence_level,
        "volatility_target": settings.thresholds.volatility_target,
        "costs": settings.costs.model_dump(mode="json"),
    }


def _looks_ahead(seen: Mapping[str, Any]) -> TradewindError:
    bad = {symbol: part["offending"] for symbol, part in seen["symbols"].items() if not part["ok"]}
    return TradewindError(
        ErrorCode.BAD_INPUT,
        f"features look ahead: {bad} change when the bars after them are removed",
        "Correct their definition: an evaluation of them would mean nothing",
    )


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()
