"""What an evaluation says, in plain words: is there skill, and does any of it survive costs?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tradewind.models.backtest import MIN_TRADES, round_trip
from tradewind.models.rolling.evaluate import Evaluation
from tradewind.models.rolling.figures import BPS
from tradewind.models.rolling.pooling import ENSEMBLE
from tradewind.settings import Settings

Tone = Literal["good", "bad", "plain"]
ECE_GOAL = 0.04
"""Of the specification; the gate is `calibration.ece_gate`."""
SURE = 0.95
"""Deflated Sharpe ratio from which luck is an unlikely explanation."""


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict; ``tone`` says whether it speaks for the models."""

    title: str
    tone: Tone
    text: str


def findings(settings: Settings, evaluation: Evaluation) -> list[Finding]:
    """Return the verdict, the most important sentence first."""
    found = {name: parts["pooled"] for name, parts in evaluation.figures["same"].items()}
    models = {name: found[name] for name, rows in evaluation.same.items() if _is_model(rows.kind)}
    parts = [
        _net_edge(models, evaluation.luck),
        _confident(settings, models),
        _skill(models, evaluation.against),
        _ensemble(evaluation.against),
        _calibrated(settings, models),
        _uncertain(settings, models),
        _luck(evaluation.luck),
    ]
    return [part for part in parts if part is not None]


def _is_model(kind: str) -> bool:
    return kind != "baseline"


def _net_edge(models: Mapping[str, Mapping[str, Any]], luck: Mapping[str, Any]) -> Finding:
    traded = {n: f for n, f in models.items() if f["trades"] >= MIN_TRADES}
    sure = [
        name
        for name, figures in traded.items()
        if figures["sharpe_low"] > 0 and figures["deflated_sharpe"] >= SURE
    ]
    if sure:
        said = ", ".join(f"{n} (Sharpe {_range(traded[n], 'sharpe', 2)})" for n in sure)
        return Finding(
            "Net edge",
            "good",
            f"After costs and deflated by {luck['trials']} trials, these earned more than luck "
            f"explains: {said}.",
        )
    if not traded:
        return Finding(
            "Net edge",
            "bad",
            f"None: no model was sure enough at the base threshold for {MIN_TRADES} trades in "
            "the whole span, so nothing was earned.",
        )
    best = max(traded, key=lambda name: float(traded[name]["sharpe"]))
    figures = traded[best]
    return Finding(
        "Net edge",
        "bad",
        f"None that can be told from luck. The best model by Sharpe ratio at the base threshold, "
        f"{best}, made {figures['trades']:.0f} trades of {figures['mean_net_bps']:+.1f} bps each "
        f"after costs: Sharpe {_range(figures, 'sharpe', 2)}, and the probability that the true "
        f"ratio beats the luckiest of {luck['trials']} trials is {figures['deflated_sharpe']:.0%}.",
    )


def _confident(settings: Settings, models: Mapping[str, Mapping[str, Any]]) -> Finding:
    cost = round_trip(settings) * BPS
    best = max(models, key=lambda name: float(models[name]["confident_5pct_gross_bps"]))
    figures = models[best]
    low = figures["confident_5pct_gross_bps_low"]
    if low is None:
        return Finding(
            "The surest 5 %",
            "plain",
            f"The most confident 5 % are fewer than {MIN_TRADES} rows: too few to judge.",
        )
    covered = low > cost
    chosen = f" ({best} earned most of {len(models)} models, a choice made in hindsight)"
    return Finding(
        "The surest 5 %",
        "good" if covered else "bad",
        f"The most confident 5 % of {best}'s forecasts{chosen if len(models) > 1 else ''} were "
        f"right {_range(figures, 'confident_5pct_accuracy', 3)} of the time and earned "
        f"{_range(figures, 'confident_5pct_gross_bps', 1)} bps gross, against {cost:.1f} bps of "
        f"round-trip costs: the interval's lower end is {'above' if covered else 'below'} them.",
    )


def _skill(models: Mapping[str, Mapping[str, Any]], against: Mapping[str, Any]) -> Finding:
    better = [name for name in models if against[f"{name}_minus_base_rate"]["value_high"] < 0]
    ranked = [name for name in models if models[name]["auc_low"] > 0.5]
    said = "; ".join(f"{name} AUC {_range(models[name], 'auc', 4)}" for name in models)
    return Finding(
        "Skill before costs",
        "good" if better else "bad",
        f"{said}. The AUC interval lies above 0.5 for {_names(ranked)}; log-loss is "
        f"significantly better than the base rate's for {_names(better)}.",
    )


def _ensemble(against: Mapping[str, Any]) -> Finding | None:
    gap = against.get(f"{ENSEMBLE}_minus_best_member")
    if gap is None:
        return None
    return Finding(
        "Ensemble",
        "good" if gap["not_worse"] else "bad",
        f"Log-loss of the ensemble minus that of {gap['best_member']}, the best voting member in "
        f"hindsight: {gap['value']:+.5f} [{gap['value_low']:+.5f}, {gap['value_high']:+.5f}] "
        f"nats, {'not worse' if gap['not_worse'] else 'not shown to be no worse'} by the limit "
        "of 0.001.",
    )


def _calibrated(settings: Settings, models: Mapping[str, Mapping[str, Any]]) -> Finding:
    gate, rows = settings.calibration.ece_gate, settings.calibration.min_gate_rows
    said = "; ".join(
        f"{name} {figures['ece']:.4f} (a perfect model: {figures['ece_perfect']:.4f}, with "
        f"overlapping labels {figures['ece_perfect_overlapping']:.4f})"
        for name, figures in models.items()
    )
    enough = all(figures["rows"] >= rows for figures in models.values())
    worst = max(float(figures["ece"]) for figures in models.values())
    note = "" if enough else f" Fewer than {rows} rows: too few to judge calibration."
    return Finding(
        "Calibration",
        "plain" if not enough else "good" if worst <= ECE_GOAL else "bad",
        f"ECE over {settings.calibration.ece_bins} equal-mass bins: {said}. Goal {ECE_GOAL}, "
        f"gate {gate}.{note}",
    )


def _uncertain(settings: Settings, models: Mapping[str, Mapping[str, Any]]) -> Finding:
    told = [name for name, f in models.items() if f["error_rank_correlation_low"] > 0]
    said = "; ".join(
        f"{name} {figures['error_rank_correlation']:.3f}, abstains {figures['abstain_share']:.1%}"
        for name, figures in models.items()
    )
    return Finding(
        "Uncertainty",
        "good" if len(told) == len(models) else "bad",
        f"Rank correlation of stated uncertainty and error: {said}. It rises with the error "
        f"beyond doubt for {_names(told)} (limit of epistemic_p "
        f"{settings.serving.epistemic_p_limit}).",
    )


def _luck(luck: Mapping[str, Any]) -> Finding | None:
    tested = luck["overfitting"]
    if tested is None:
        return None
    return Finding(
        "Choosing by backtest",
        "good" if max(tested["probability"], tested["loss_probability"]) < 0.5 else "bad",
        f"The best of {tested['strategies']} strategies in one half of the time is below the "
        f"median of the other half with probability {tested['probability']:.0%} (PBO over "
        f"{tested['splits']} splits; one half is pure noise), and loses money there with "
        f"probability {tested['loss_probability']:.0%}.",
    )


def _range(figures: Mapping[str, Any], name: str, digits: int) -> str:
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    text = f"{figures[name]:.{digits}f}"
    return text if low is None else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def _names(names: list[str]) -> str:
    return ", ".join(names) or "none"
