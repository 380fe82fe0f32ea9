"""Run the evaluation over the whole history from the command line, with a progress bar."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.progress import progress_bar
from tradewind.settings import Settings

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from assets.steps.history import HistoryChoices, HistoryPlan, HistoryResult
    from tradewind.models.rolling.walk import FoldNews

COLUMNS = (
    ("auc", "auc", 4),
    ("low", "auc_low", 3),
    ("high", "auc_high", 3),
    ("loss", "log_loss", 5),
    ("ece", "ece", 4),
    ("sharpe", "sharpe", 2),
    ("5 % bps", "confident_5pct_gross_bps", 1),
)
"""Heading, figure and digits of the table on a terminal; the report has all of them."""
READ_AGAIN_S = 0.5
"""A fold that took less was read, not run: it says nothing of the time that is left."""


@dataclass(frozen=True)
class EvaluationOutcome:
    """What a run found, or would cost."""

    plan: HistoryPlan
    result: HistoryResult | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        if self.result is None:
            return {
                "facts": self.plan.facts,
                "costs": [asdict(cost) for cost in self.plan.costs],
            }
        links = {
            "report": str(self.result.report),
            "mlflow_run_id": self.result.run_id,
            "mlflow_url": self.result.run_url,
        }
        return {**links, **self.result.values}

    def print(self) -> None:
        """Print the costs, or the comparison and the verdict."""
        from pipelines.cli.output import say

        if self.result is None:
            _print_costs(self.plan)
            return
        found = self.result.evaluation.figures["same"]
        for scope in next(iter(found.values())):
            _print_scope(scope, {name: parts[scope] for name, parts in found.items()})
        for finding in self.result.findings:
            say(f"{finding.title}: {finding.text}")
        say(f"report: {self.result.report}")
        if self.result.run_id:
            say(f"MLflow run: {self.result.run_url or self.result.run_id}")


def run_evaluation(
    settings: Settings,
    choices: HistoryChoices,
    *,
    dry_run: bool = False,
    track: bool = True,
    quiet: bool = False,
    console: Console | None = None,
) -> EvaluationOutcome:
    """Evaluate in this process; finished folds are kept under ``home/evaluation``."""
    from assets.steps.history import evaluate_plan, plan_history
    from tradewind.ledger.clock import open_clock

    console = console or Console(quiet=quiet, stderr=True)
    console.print("reading the history …", highlight=False)
    plan = plan_history(settings, open_clock(settings), choices)
    if dry_run:
        return EvaluationOutcome(plan, None)
    with progress_bar(console) as bar:
        shown = Progression(console, bar)
        return EvaluationOutcome(plan, evaluate_plan(plan, on_fold=shown.heard, track=track))


class Progression:
    """Shows each fold: a bar a family with the time left, plain lines without a terminal."""

    def __init__(self, console: Console, bar: Progress) -> None:
        self.console, self.bar = console, bar
        self.tasks: dict[tuple[str, str], TaskID] = {}
        self.spent: dict[tuple[str, str], list[float]] = {}
        self.last = time.monotonic()

    def heard(self, news: FoldNews) -> None:
        """Show a fold that has ended."""
        key = (news.family, news.key)
        if key not in self.tasks:
            self.tasks[key] = self.bar.add_task(" ".join(key), total=news.total, note="")
        now = time.monotonic()
        took, self.last = now - self.last, now
        spent = self.spent.setdefault(key, [])
        if took >= READ_AGAIN_S:
            spent.append(took)
        left = news.total - news.number
        note = _figures(news)
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


def _print_costs(plan: HistoryPlan) -> None:
    from pipelines.cli.output import say, table

    table(
        f"what it would take: {plan.facts['rows']} rows",
        ["family", "key", "folds", "fit, first", "fit, last", "judged", "alike", "seconds"],
        [list(asdict(cost).values()) for cost in plan.costs],
    )
    total = sum(cost.seconds for cost in plan.costs)
    say(f"about {_duration(total)} on one core (an estimate); nothing was fitted (--dry-run)")


def _print_scope(scope: str, figures: dict[str, dict[str, Any]]) -> None:
    from pipelines.cli.output import table

    rows = next(iter(figures.values()))["rows"]
    table(
        f"{scope}: the same {rows} rows for all",
        ["forecaster", *(heading for heading, _, _ in COLUMNS)],
        [
            [name, *(_cell(own, figure, digits) for _, figure, digits in COLUMNS)]
            for name, own in figures.items()
        ],
    )


def _cell(figures: dict[str, Any], name: str, digits: int) -> str | None:
    value = figures.get(name)
    return None if value is None else f"{value:.{digits}f}"
