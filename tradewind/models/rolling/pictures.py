"""Pictures of an evaluation over the history; every curve is made of the same rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tradewind.models import metrics as m
from tradewind.models.backtest import drawdown, round_trip
from tradewind.models.pictures import GUIDE_COLOUR, save_picture
from tradewind.models.rolling.evaluate import Evaluation
from tradewind.models.rolling.judged import Judged
from tradewind.settings import Settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = {"family": "-", "ensemble": "-", "baseline": ":"}
PALETTE = (
    "#1f77b4",
    "#ff7f0e",
    "#2ca02c",
    "#d62728",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#bcbd22",
    "#17becf",
    "#5b6770",
)
SMOOTHED_FOLDS = 8
"""Folds behind the running mean that is drawn over single, noisy ones."""
STRONG = 2.4
LEAST_KEPT = 50
"""One row in so many is kept at least, where an error is averaged: fewer are noise."""


def save_evaluation_pictures(
    settings: Settings, evaluation: Evaluation, folder: Path
) -> dict[str, Path]:
    """Write the PNGs to ``folder`` and return them by name, in the order of the report."""
    painters: dict[str, Callable[[Axes, Evaluation], None]] = {
        "reliability": lambda axes, found: _reliability(settings, axes, found),
        "roc": _roc,
        "equity": _equity,
        "thresholds": lambda axes, found: _thresholds(settings, axes, found),
        "risk_coverage": _risk_coverage,
        "error_by_uncertainty": _deciles,
        "folds": _folds,
        "log_loss_over_time": _losses,
    }
    return {
        name: save_picture(folder / f"{name}.png", paint, evaluation)
        for name, paint in painters.items()
    }


def _colour(evaluation: Evaluation, name: str) -> str:
    return PALETTE[list(evaluation.same).index(name) % len(PALETTE)]


def _width(rows: Judged) -> float:
    return STRONG if rows.kind == "ensemble" else 1.3


def _stating(evaluation: Evaluation) -> dict[str, Judged]:
    """Return the forecasters that state an uncertainty."""
    return {name: rows for name, rows in evaluation.same.items() if rows.kind != "baseline"}


def _reliability(settings: Settings, axes: Axes, evaluation: Evaluation) -> None:
    low, high = 0.5, 0.5
    for name, rows in _stating(evaluation).items():
        parts = m.reliability(rows.p_up, rows.y, settings.calibration.ece_bins)
        stated, realised, count = (np.array(part) for part in zip(*parts, strict=True))
        error = np.sqrt(realised * (1 - realised) / count)
        low, high = min(low, stated.min()), max(high, stated.max())
        figures = evaluation.figures["same"][name]["pooled"]
        axes.errorbar(
            stated,
            realised,
            yerr=error,
            fmt="o-",
            markersize=3,
            capsize=2,
            color=_colour(evaluation, name),
            linewidth=_width(rows),
            label=f"{name}: ECE {figures['ece']:.4f} (perfect {figures['ece_perfect']:.4f})",
        )
    axes.plot([low, high], [low, high], color=GUIDE_COLOUR, linestyle="--", label="perfect")
    axes.set(
        xlabel="stated p_up (mean of an equal-mass bin)",
        ylabel="share that rose",
        title="Reliability: ± 1 se of independent rows",
    )
    axes.legend(fontsize=8)


def _roc(axes: Axes, evaluation: Evaluation) -> None:
    from sklearn.metrics import roc_curve

    for name, rows in evaluation.same.items():
        false, true, _ = roc_curve(rows.y, rows.p_up)
        figures = evaluation.figures["same"][name]["pooled"]
        axes.plot(
            false,
            true - false,
            color=_colour(evaluation, name),
            linestyle=LINES[rows.kind],
            linewidth=_width(rows),
            label=f"{name} {figures['auc']:.4f} [{figures['auc_low']:.4f}, "
            f"{figures['auc_high']:.4f}]",
        )
    axes.axhline(0, color=GUIDE_COLOUR, linestyle="--")
    axes.set(
        xlabel="false positive rate",
        ylabel="true − false positive rate",
        title="ROC, height above the coin flip's diagonal",
    )
    axes.legend(title="AUC", fontsize=8)


def _equity(axes: Axes, evaluation: Evaluation) -> None:
    for name, run in evaluation.trades.items():
        rows = evaluation.same[name]
        axes.plot(
            _dates(run.day.tolist()),
            (run.equity - 1) * 100,
            color=_colour(evaluation, name),
            linestyle=LINES[rows.kind],
            linewidth=_width(rows),
            label=f"{name}: {run.metrics['trades']:.0f} trades, Sharpe "
            f"{run.metrics['sharpe']:.2f}, deepest fall {drawdown(run.equity).max():.1%}",
        )
    axes.axhline(0, color=GUIDE_COLOUR, linestyle="--")
    axes.set(
        xlabel="UTC day",
        ylabel="return on equal capital a symbol (%)",
        title="Equity after costs, at the base threshold",
    )
    axes.tick_params(axis="x", rotation=30)
    axes.legend(fontsize=7)


def _thresholds(settings: Settings, axes: Axes, evaluation: Evaluation) -> None:
    for name in _stating(evaluation):
        own = [row for row in evaluation.luck["by_threshold"] if row["name"] == name]
        own = [row for row in own if row["trades"] > 0]
        axes.plot(
            [row["threshold"] for row in own],
            [row["mean_net_bps"] for row in own],
            "o-",
            markersize=3,
            color=_colour(evaluation, name),
            linewidth=_width(evaluation.same[name]),
            label=name,
        )
    axes.axhline(0, color=GUIDE_COLOUR, linestyle="--", label="costs earned back")
    axes.axhline(
        -round_trip(settings) * 1e4, color=GUIDE_COLOUR, linestyle=":", label="no gross edge"
    )
    axes.set(
        xlabel="entry threshold on p_up (short: on 1 − p_up)",
        ylabel="mean return of a trade after costs (bps)",
        title="Net return of a trade by how sure the forecast is",
    )
    axes.legend(fontsize=8)


def _risk_coverage(axes: Axes, evaluation: Evaluation) -> None:
    for name, rows in _stating(evaluation).items():
        error = np.abs(rows.fwd_ret - rows.mu) * 1e4
        coverage, risk = m.risk_coverage(rows.uncertainty, error)
        start = max(1, len(risk) // LEAST_KEPT)
        axes.plot(
            coverage[start:],
            risk[start:],
            color=_colour(evaluation, name),
            linewidth=_width(rows),
            label=name,
        )
    axes.set(
        xlabel="coverage (share of rows kept, most certain first)",
        ylabel="mean |error| of mu (bps)",
        title="Risk–coverage: the error among the most certain rows",
    )
    axes.legend(fontsize=8)


def _deciles(axes: Axes, evaluation: Evaluation) -> None:
    for name, rows in _stating(evaluation).items():
        error = np.abs(rows.fwd_ret - rows.mu) * 1e4
        parts = m.equal_mass_bins(rows.uncertainty, 10)
        axes.errorbar(
            np.arange(1, len(parts) + 1),
            [float(error[part].mean()) for part in parts],
            yerr=[float(error[part].std() / np.sqrt(len(part))) for part in parts],
            fmt="o-",
            markersize=3,
            capsize=2,
            color=_colour(evaluation, name),
            linewidth=_width(rows),
            label=name,
        )
    axes.set(
        xlabel="decile of stated uncertainty (1: most certain)",
        ylabel="mean |error| of mu (bps)",
        title="Error by uncertainty decile: ± 1 se of independent rows",
    )
    axes.legend(fontsize=8)


def _folds(axes: Axes, evaluation: Evaluation) -> None:
    for name, walk in evaluation.walks.items():
        for key, results in walk.results.items():
            days = _dates([result.spans["test"][0] for result in results])
            auc = np.array([result.metrics["auc"] for result in results])
            colour = _colour(evaluation, name)
            axes.plot(days, auc, "o", markersize=2.5, alpha=0.5, color=colour)
            axes.plot(days, _running(auc), color=colour, label=f"{name} {key}")
    axes.axhline(0.5, color=GUIDE_COLOUR, linestyle="--", label="coin flip")
    axes.set(
        xlabel="first day of the fold (UTC)",
        ylabel="AUC of the fold",
        title=f"Folds: each, and the mean of up to {SMOOTHED_FOLDS}",
    )
    axes.tick_params(axis="x", rotation=30)
    axes.legend(fontsize=8)


def _losses(axes: Axes, evaluation: Evaluation) -> None:
    base = evaluation.same["base_rate"]
    base_loss = m.row_log_loss(base.p_up, base.y)
    for name, rows in evaluation.same.items():
        if name == "base_rate":
            continue
        gain = np.cumsum(base_loss - m.row_log_loss(rows.p_up, rows.y))
        axes.plot(
            _dates(rows.ts.tolist()),
            gain,
            color=_colour(evaluation, name),
            linestyle=LINES[rows.kind],
            linewidth=_width(rows),
            label=name,
        )
    axes.axhline(0, color=GUIDE_COLOUR, linestyle="--", label="base rate")
    axes.set(
        xlabel="UTC day",
        ylabel="log-loss saved so far (nats, sum of rows)",
        title="Log-loss saved against the base rate: rising is skill",
    )
    axes.tick_params(axis="x", rotation=30)
    axes.legend(fontsize=8)


def _running(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each value and up to seven before it."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(0, end - SMOOTHED_FOLDS)
    mean: NDArray[np.float64] = (total[end] - total[start]) / (end - start)
    return mean


def _dates(epoch_ms: list[int]) -> NDArray[np.datetime64]:
    return np.array(epoch_ms, dtype="datetime64[ms]")
