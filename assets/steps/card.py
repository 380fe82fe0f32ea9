"""The model card: what a person should know before using a registered version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.steps.record import dagster_link, interval
from assets.workspace import UnitTask
from tradewind.settings import Settings

if TYPE_CHECKING:
    from tradewind.models.base import Samples
    from tradewind.models.bundle import BundleMeta
    from tradewind.models.gates import GateReport

DESCRIPTION_LIMIT = 5000
"""Characters of a version's description that MLflow's database keeps."""
CARD_FILE = "model_card.md"
PATHS = {"lightgbm": "predict", "transformer": "predict_deep"}
"""Families with an endpoint of their own; the ensemble speaks for the others."""
QUALITY = (("auc", 4), ("log_loss", 5), ("brier", 5), ("ece", 4), ("accuracy", 4))
RIVALS = ("base_rate", "momentum", "logistic")
REST = f"\n\n… the whole card is the run's artifact `{CARD_FILE}`."


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from; ``metrics`` include those of symbols."""

    settings: Settings
    task: UnitTask
    meta: BundleMeta
    gates: GateReport
    metrics: Mapping[str, float | None]
    slices: Mapping[str, Samples]
    calibrator: str
    run_id: str
    run_page: str | None


def model_card(facts: CardFacts) -> str:
    """Return the whole card as Markdown."""
    parts = (_head(facts), _data(facts), _figures(facts), _gates(facts), _use(facts))
    return "\n\n".join("\n".join(part) for part in (*parts, _symbols(facts)) if part)


def description(card: str) -> str:
    """Return the card, cut at a line where it is longer than a description may be."""
    if len(card) <= DESCRIPTION_LIMIT:
        return card
    kept = card[: DESCRIPTION_LIMIT - len(REST)].rpartition("\n")[0]
    return kept.rstrip() + REST


def model_description(meta: BundleMeta) -> str:
    """Return what all versions of a registered model have in common."""
    return (
        f"**{meta.family}** for {', '.join(meta.symbols)}: calibrated probability that the close "
        f"{meta.horizon} bars of {meta.timeframe} ahead is higher, with its uncertainty.\n\n"
        "Aliases: `champion` serves, `challenger` answers in its shadow, `canary` takes a share, "
        "`previous` is what a rollback returns to. Each version's description is its model card; "
        "its source run has the pictures. For research and paper trading."
    )


def _head(facts: CardFacts) -> list[str]:
    meta, task = facts.meta, facts.task
    run = f"[run]({facts.run_page})" if facts.run_page else f"run `{facts.run_id}`"
    return [
        f"# {task.unit.name}",
        f"Probability that the close {meta.horizon} bars of {meta.timeframe} ahead is higher, "
        f"by {meta.family} for {', '.join(meta.symbols)}. Figures are of rows it never saw.",
        "",
        f"Made by MLflow {run}, {dagster_link(facts.settings, task.dagster_run_id)}, "
        f"commit `{task.git_commit[:12]}`; {task.trigger}"
        f"{': ' + task.reason if task.reason else ''}.",
        "",
        "**Intended use**: one opinion among several for paper and shadow trading of these "
        "symbols, behind the platform's thresholds, sizing and risk limits.  ",
        "**Not intended**: other symbols, timeframes or horizons; unattended trading with real "
        "money; any use of p_up without its uncertainty.",
    ]


def _data(facts: CardFacts) -> list[str]:
    from registry.names import span_text

    rows = [
        f"| {name} | {len(part)} | {span_text(int(part.ts.min()), int(part.ts.max()))} |"
        for name, part in facts.slices.items()
    ]
    meta = facts.meta
    return [
        "## Data",
        f"Bars from **{facts.task.source}**, {meta.timeframe}; fingerprint "
        f"`{meta.data_fingerprint[:20]}`; features `{meta.feature_version}` "
        f"({len(meta.wide_names)} wide columns, window {meta.window} bars). Seed {meta.seed}; "
        f"calibrator {facts.calibrator}.",
        "",
        "| slice | rows | first … last bar |",
        "| --- | --- | --- |",
        *rows,
    ]


def _figures(facts: CardFacts) -> list[str]:
    metrics = facts.metrics
    lines = [
        "## Figures against baselines",
        "| metric | model | base rate | momentum | logistic | walk-forward |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, digits in QUALITY:
        rivals = " | ".join(interval(metrics, f"{name}_{rival}", digits) for rival in RIVALS)
        walked = interval(metrics, f"wf_{name}", digits)
        lines.append(f"| {name} | {interval(metrics, name, digits)} | {rivals} | {walked} |")
    level = f"{facts.settings.gates.confidence_level:.0%}"
    return [
        *lines,
        "",
        f"Intervals: {level}, moving-block bootstrap. Log-loss minus the base rate's: "
        f"test {interval(metrics, 'log_loss_minus_base_rate', 5)}, "
        f"walk-forward {interval(metrics, 'wf_log_loss_minus_base_rate', 5)}.",
        f"After costs, walk-forward: Sharpe {interval(metrics, 'wf_sharpe', 2)}, net return "
        f"{interval(metrics, 'wf_net_return', 4)}, {interval(metrics, 'wf_trades', 0)} trades.",
        f"Uncertainty: abstains on {interval(metrics, 'abstain_share', 3)} of rows; mean "
        f"epistemic_p {interval(metrics, 'epistemic_p_mean', 4)}; the most confident 5 % are "
        f"right in {interval(metrics, 'confident_5pct_accuracy', 3)}.",
        f"Intervals of mu: meant to hold {interval(metrics, 'conformal_level', 2)} of returns; "
        f"on test rows they hold {interval(metrics, 'conformal_coverage', 3)}, walk-forward "
        f"{interval(metrics, 'wf_conformal_coverage', 3)}; mean width "
        f"{interval(metrics, 'conformal_width', 4)}. Inputs outside the training range: "
        f"{interval(metrics, 'out_of_range_share', 4)} of rows.",
    ]


def _gates(facts: CardFacts) -> list[str]:
    verdict = "passed" if facts.gates.passed else "failed"
    return [
        f"## Gates {verdict}",
        *(
            f"- {'✓' if gate.passed else '✗'} {gate.name}: {gate.text}"
            for gate in facts.gates.gates
        ),
    ]


def _use(facts: CardFacts) -> list[str]:
    name, symbol = facts.task.unit.name, facts.meta.symbols[0]
    path = PATHS.get(facts.task.family, "predict_ensemble")
    return [
        "## Load and query",
        f"`mlflow.pyfunc.load_model('models:/{name}@champion')`, or once it has an alias, over "
        f"HTTP: `curl 'http://127.0.0.1:8000/ml/{path}?symbol={symbol}'`.",
        "## Limitations",
        "Historical figures promise nothing. Markets change: it is stale after "
        f"{facts.settings.registry.max_model_age_days:g} days or on a drift alarm. The spread "
        "over passes is no detector of inputs unlike the training data: answers name such "
        "inputs (`out_of_range`), and the policy holds on them.",
    ]


def _symbols(facts: CardFacts) -> list[str]:
    names = sorted({name.split("/")[0] for name in facts.metrics if "/" in name})
    if not names:
        return []
    return ["## Each symbol", *_symbol_rows(facts.metrics, names)]


def _symbol_rows(metrics: Mapping[str, float | None], names: list[str]) -> Iterator[str]:
    yield "| symbol | auc | log_loss | base rate's | ece |"
    yield "| --- | --- | --- | --- | --- |"
    for name in names:
        yield (
            f"| {name} | {interval(metrics, f'{name}/auc')} "
            f"| {interval(metrics, f'{name}/log_loss', 5)} "
            f"| {interval(metrics, f'{name}/log_loss_base_rate', 5)} "
            f"| {interval(metrics, f'{name}/ece')} |"
        )
