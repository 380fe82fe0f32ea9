"""Run the evaluation over the whole history from the command line, with a progress bar."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from pipelines.progress import progress_bar
from tradewind.contracts import POOLED
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tradewind.models.rolling.cost import WalkCost
    from tradewind.models.rolling.evaluate import Evaluation
    from tradewind.models.rolling.history import BarsFrom
    from tradewind.models.rolling.walk import FoldNews

COLUMNS = (
    ("auc", "auc", 4),
    ("low", "auc_low", 4),
    ("high", "auc_high", 4),
    ("log_loss", "log_loss", 5),
    ("ece", "ece", 4),
    ("right", "accuracy", 3),
    ("sharpe", "sharpe", 2),
    ("drawdown", "max_drawdown", 3),
    ("5 % right", "confident_5pct_accuracy", 3),
    ("bps", "confident_5pct_gross_bps", 1),
)
"""Heading, figure and digits of the table on the terminal; the report has all of them."""
SINGLE_S = 0.2
"""A fold that took less was read again, not run: it says nothing of the time that is left."""


@dataclass(frozen=True)
class EvaluationOutcome:
    """What a run found, or would cost."""

    costs: list[WalkCost]
    evaluation: Evaluation | None
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        from tradewind.models.rolling.record import summary

        found = {"facts": self.facts, "costs": [asdict(cost) for cost in self.costs]}
        return found if self.evaluation is None else {**found, **summary(self.evaluation)}

    def print(self) -> None:
        """Print the tables."""
        from pipelines.cli.evaluate import print_costs
        from pipelines.cli.output import say, table

        if self.evaluation is None:
            print_costs(self.costs)
            say("nothing was fitted (--dry-run)")
            return
        found = self.evaluation.figures["same"]
        for scope in next(iter(found.values())):
            table(
                f"{scope}: the same rows for all",
                ["forecaster", "rows", *(heading for heading, _, _ in COLUMNS)],
                [
                    [
                        name,
                        parts[scope]["rows"],
                        *(_cell(parts[scope], metric, digits) for _, metric, digits in COLUMNS),
                    ]
                    for name, parts in found.items()
                ],
            )
        against = self.evaluation.against.get("ensemble_minus_best_member")
        if against:
            say(
                f"ensemble minus best member ({against['best_member']}): "
                f"{against['value']:+.5f} [{against['value_low']:+.5f}, "
                f"{against['value_high']:+.5f}] nats; not worse: {against['not_worse']}"
            )


def run_evaluation(
    settings: Settings,
    *,
    symbols: Sequence[str] = (),
    families: Sequence[str] = (),
    per_symbol: bool = False,
    bars: str = "auto",
    shuffle_labels: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    console: Console | None = None,
) -> EvaluationOutcome:
    """Evaluate in this process; finished folds are kept under ``home/evaluation``."""
    from tradewind.ledger.clock import open_clock
    from tradewind.models.rolling.cost import walk_cost
    from tradewind.models.rolling.evaluate import evaluate_history
    from tradewind.models.rolling.history import FOLDER, load_history, shuffled_labels

    if bars not in ("auto", "store", "folder"):
        raise TradewindError(
            ErrorCode.BAD_INPUT, f"--bars {bars!r} is unknown", "Use auto, store or folder"
        )
    console = console or Console(quiet=quiet, stderr=True)
    console.print("reading the history …", highlight=False)
    chosen = tuple(symbols or settings.market.symbols)
    history = load_history(settings, open_clock(settings), chosen, bars=cast("BarsFrom", bars))
    settings = history.settings
    training_set = history.training_set
    if shuffle_labels:
        training_set = shuffled_labels(training_set, settings.training.seed)
    wanted = tuple(families or settings.training.families)
    keys = list(chosen) if per_symbol else [POOLED]
    costs = [cost for family in wanted for cost in walk_cost(settings, training_set, family, keys)]
    facts: dict[str, Any] = {
        "bars_from": history.source,
        "symbols": list(chosen),
        "families": list(wanted),
        "rows": len(training_set.samples),
        "start_ms": training_set.start_ms,
        "end_ms": training_set.end_ms,
        "feature_version": training_set.feature_version,
        "data_fingerprint": training_set.data_fingerprint,
        "horizon": training_set.horizon,
        "shuffled_labels": shuffle_labels,
        "pooled": not per_symbol,
        "evaluation": settings.evaluation.model_dump(mode="json"),
    }
    if dry_run:
        return EvaluationOutcome(costs, None, facts)
    with progress_bar(console) as bar:
        hearer = _Hearer(console, bar, {(cost.family, cost.key): cost.seconds for cost in costs})
        evaluation = evaluate_history(
            settings,
            training_set,
            wanted,
            pooled=not per_symbol,
            workdir=settings.home / FOLDER,
            on_fold=hearer.heard,
        )
    return EvaluationOutcome(costs, evaluation, facts)


class _Hearer:
    """Shows each fold: a bar a family with the time left, plain lines without a terminal."""

    def __init__(
        self, console: Console, bar: Progress, expected: dict[tuple[str, str], float]
    ) -> None:
        self.console, self.bar, self.expected = console, bar, expected
        self.tasks: dict[tuple[str, str], TaskID] = {}
        self.spent: dict[tuple[str, str], list[float]] = {}
        self.last = time.monotonic()

    def heard(self, news: FoldNews) -> None:
        key = (news.family, news.key)
        if key not in self.tasks:
            self.tasks[key] = self.bar.add_task(" ".join(key), total=news.total, note="")
        now = time.monotonic()
        took, self.last = now - self.last, now
        spent = self.spent.setdefault(key, [])
        if took >= SINGLE_S:
            spent.append(took)
        note = _figures(news)
        left = news.total - news.number
        if spent and left:
            note += f" · {_duration(sum(spent) / len(spent) * left)} left"
        self.bar.update(self.tasks[key], completed=news.number, note=note)
        if not self.console.is_terminal:
            self.console.print(
                f"  {news.family} {news.key} {news.number}/{news.total} {note}",
                highlight=False,
                soft_wrap=True,
            )


def _figures(news: FoldNews) -> str:
    if news.result is None:
        return ""
    metrics = news.result.metrics
    return (
        f"auc {metrics['auc']:.4f} log_loss {metrics['log_loss']:.4f} "
        f"(base rate {metrics['log_loss_base_rate']:.4f}) {news.result.seconds:.0f} s"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _cell(figures: dict[str, Any], name: str, digits: int) -> str | None:
    value = figures.get(name)
    return None if value is None else f"{value:.{digits}f}"
