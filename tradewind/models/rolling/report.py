"""The evaluation as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tradewind.models.backtest import MIN_TRADES, round_trip
from tradewind.models.rolling.evaluate import Evaluation
from tradewind.models.rolling.figures import BPS
from tradewind.models.rolling.verdict import Finding
from tradewind.models.rolling.walk import Walk
from tradewind.models.walk_forward import FoldResult
from tradewind.settings import Settings

TEMPLATE = "report.html.jinja"
Column = tuple[str, str, int]
QUALITY: tuple[Column, ...] = (
    ("rows", "rows", 0),
    ("AUC", "auc", 4),
    ("AUC, raw p", "uncalibrated_auc", 4),
    ("AUC, mean of folds", "mean_fold_auc", 4),
    ("log-loss", "log_loss", 5),
    ("Brier", "brier", 5),
    ("ECE", "ece", 4),
    ("ECE, perfect", "ece_perfect", 4),
    ("accuracy", "accuracy", 4),
)
CONFIDENCE: tuple[Column, ...] = (
    ("top 5 %: right", "confident_5pct_accuracy", 3),
    ("top 5 %: gross bps", "confident_5pct_gross_bps", 1),
    ("risk–coverage area, bps", "risk_coverage_area", 1),
    ("uncertainty–error rank correlation", "error_rank_correlation", 3),
    ("conformal coverage", "conformal_coverage", 3),
    ("abstains", "abstain_share", 3),
)
TRADING: tuple[Column, ...] = (
    ("trades", "trades", 0),
    ("net bps a trade", "mean_net_bps", 1),
    ("win rate", "win_rate", 3),
    ("Sharpe", "sharpe", 2),
    ("deflated Sharpe", "deflated_sharpe", 3),
    ("max drawdown", "max_drawdown", 3),
    ("net return", "net_return", 3),
    ("turnover a day", "turnover", 3),
)
"""Heading, figure and digits of the comparison's three tables."""
IN_BPS = ("risk_coverage_area",)


def render(
    settings: Settings,
    evaluation: Evaluation,
    findings: Sequence[Finding],
    canaries: Mapping[str, Any],
    facts: Mapping[str, Any],
    pictures: Mapping[str, Path],
) -> str:
    """Return the report as HTML, pictures inside.

    Parameters
    ----------
    facts
        What was evaluated: bars, spans, versions, choices; see `evaluate_history`'s callers.
    pictures
        PNGs by name.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        title="Walk-forward evaluation over the whole history",
        lead=_lead(evaluation, facts),
        findings=findings,
        facts=facts,
        canaries=canaries,
        comparison=_tables(evaluation, "same"),
        every_row=_tables(evaluation, "all"),
        against={name: _gap(gap) for name, gap in evaluation.against.items()},
        vote=evaluation.vote,
        luck=evaluation.luck,
        least_trades=MIN_TRADES,
        walks=[part for walk in evaluation.walks.values() for part in _walk(walk)],
        pictures={
            name: base64.b64encode(path.read_bytes()).decode() for name, path in pictures.items()
        },
        described=_described(facts),
        level=f"{settings.gates.confidence_level:.0%}",
        threshold=settings.serving.base_threshold,
        cost=f"{round_trip(settings) * BPS:.1f}",
    )


def _lead(evaluation: Evaluation, facts: Mapping[str, Any]) -> str:
    models = "one model for all symbols" if facts["pooled"] else "a model for each symbol"
    if len(facts["symbols"]) == 1:
        models = "one model"
    return (
        f"{', '.join(evaluation.walks)} ({models}) on {', '.join(facts['symbols'])}, horizon "
        f"{facts['horizon']} bars, judged from {facts['evaluation']['since']} to "
        f"{day(facts['end_ms'])}. Every retraining of that time was done again and judged on what "
        "followed it; no figure is from data that a fit, an early stop or a calibration saw."
    )


def _tables(evaluation: Evaluation, kind: str) -> list[dict[str, Any]]:
    """Return three tables for each scope: the symbols together, then each of them."""
    found = evaluation.figures[kind]
    return [
        {
            "scope": scope,
            "first": columns is QUALITY,
            "columns": [heading for heading, _, _ in columns],
            "rows": [
                {
                    "name": name,
                    "kind": evaluation.same[name].kind,
                    "cells": [_cell(parts[scope], figure, n) for _, figure, n in columns],
                }
                for name, parts in found.items()
            ],
        }
        for scope in next(iter(found.values()), {})
        for columns in (QUALITY, CONFIDENCE, TRADING)
    ]


def _cell(figures: Mapping[str, Any], name: str, digits: int) -> dict[str, str]:
    value = figures.get(name)
    if value is None:
        return {"value": "–", "interval": ""}
    unit = BPS if name in IN_BPS else 1
    interval = ""
    if figures.get(f"{name}_low") is not None:
        low, high = figures[f"{name}_low"], figures[f"{name}_high"]
        interval = f"{low * unit:.{digits}f} … {high * unit:.{digits}f}"
    return {"value": f"{value * unit:,.{digits}f}", "interval": interval}


def _gap(gap: Mapping[str, Any]) -> dict[str, Any]:
    return {"best_member": "", **gap}


def _walk(walk: Walk) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{walk.family} {key}",
            "seconds": f"{sum(result.seconds for result in results):.0f} s",
            "folds": [_fold(result) for result in results],
        }
        for key, results in walk.results.items()
    ]


def _fold(result: FoldResult) -> dict[str, str]:
    spans = {name: f"{day(start)} – {day(end)}" for name, (start, end) in result.spans.items()}
    return {
        **spans,
        "number": str(result.number),
        "fit_rows": f"{result.rows['fit']:,}",
        "test_rows": f"{result.metrics['rows']:,.0f}",
        "calibrator": result.calibrator,
        "skill": f"{result.metrics['skill']:.5f}",
        "auc": f"{result.metrics['auc']:.4f}",
        "log_loss": f"{result.metrics['log_loss']:.5f}",
        "base": f"{result.metrics['log_loss_base_rate']:.5f}",
        "seconds": f"{result.seconds:.1f}",
    }


def _described(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for name, value in facts.items():
        if name.endswith("_ms"):
            found.append((name.removesuffix("_ms"), day(value)))
        elif isinstance(value, Mapping):
            found += [(f"{name}.{part}", str(own)) for part, own in value.items()]
        elif isinstance(value, list):
            found.append((name, ", ".join(map(str, value))))
        else:
            found.append((name, str(value)))
    return found


def day(ms: int) -> str:
    """Return the UTC day of a moment."""
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d}"
