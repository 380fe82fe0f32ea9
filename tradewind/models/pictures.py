"""Pictures of an evaluation: what people would rather look at than read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tradewind.files import atomic_path
from tradewind.models import metrics as m
from tradewind.models.backtest import drawdown
from tradewind.models.evaluation import EvaluationReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL_COLOUR = "#1f6f8b"
OTHER_COLOUR = "#c0563b"
THIRD_COLOUR = "#7a9e3f"
GUIDE_COLOUR = "#888888"
COLOURS = (MODEL_COLOUR, OTHER_COLOUR, THIRD_COLOUR)


def save_pictures(report: EvaluationReport, folder: Path) -> list[Path]:
    """Write the PNGs of a report to ``folder`` and return their paths."""
    painters: dict[str, Callable[[Axes, EvaluationReport], None]] = {
        "reliability": _reliability,
        "roc": _roc,
        "risk_coverage": _risk_coverage,
        "error_by_uncertainty": _deciles,
        "equity": _equity,
    }
    if report.importance:
        painters["importance"] = _importance
    if report.out_of_sample is not None:
        painters["folds"] = _folds
    return [save_picture(folder / f"{name}.png", paint, report) for name, paint in painters.items()]


def save_loss_curve(series: Mapping[str, Sequence[tuple[int, float]]], folder: Path) -> Path | None:
    """Write ``loss.png`` from losses by epoch; None for a family that has no epochs of loss."""
    from matplotlib.ticker import MaxNLocator

    if "train_loss" not in series:
        return None

    def paint(axes: Axes, _: EvaluationReport | None) -> None:
        for (name, points), colour in zip(series.items(), COLOURS, strict=False):
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, "o-", markersize=3, color=colour, label=name)
        best, least = min(series["valid_loss"], key=lambda point: point[1])
        axes.axvline(best, color=GUIDE_COLOUR, linestyle="--", label=f"kept: epoch {best}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(
            xlabel="epoch",
            ylabel="loss (direction in nats + return's NLL)",
            title=f"Loss by epoch: validation at best {least:.4f}",
        )
        axes.legend()

    return save_picture(folder / "loss.png", paint, None)


def save_picture(target: Path, paint: Callable[[Axes, Any], None], report: object) -> Path:
    """Write what ``paint`` draws of ``report`` to ``target`` as PNG, and return ``target``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    paint(axes, report)
    axes.grid(visible=True, alpha=0.25)
    axes.set_axisbelow(True)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, format="png")
    return target


def _reliability(axes: Axes, report: EvaluationReport) -> None:
    figures = report.figures
    prefix, what = ("", "test slice") if report.out_of_sample is None else ("wf_", "walk-forward")
    stated, realised, rows = (
        np.array(part) for part in zip(*figures[f"{prefix}reliability"], strict=True)
    )
    error = np.sqrt(realised * (1 - realised) / rows)
    axes.plot(stated, stated, color=GUIDE_COLOUR, linestyle="--", label="perfect")
    rate = float(np.average(realised, weights=rows))
    axes.axhline(rate, color=THIRD_COLOUR, linestyle=":", label=f"base rate {rate:.3f}")
    axes.errorbar(
        stated,
        realised,
        yerr=error,
        fmt="o-",
        color=MODEL_COLOUR,
        capsize=3,
        label="model ± 1 se of independent rows",
    )
    axes.set(
        xlabel="stated p_up (mean of an equal-mass bin)",
        ylabel="share that rose",
        title=f"Reliability, {what}: ECE {figures[f'{prefix}ece']:.4f} on {rows.sum():.0f} rows "
        f"(perfect {figures[f'{prefix}ece_perfect']:.4f})",
    )
    axes.legend()


def _roc(axes: Axes, report: EvaluationReport) -> None:
    from sklearn.metrics import roc_curve

    known = np.isfinite(report.forecast.p_up)
    y = report.test.y_up[known]
    curves = {"model": report.forecast.p_up, **report.baselines}
    colours = (MODEL_COLOUR, GUIDE_COLOUR, OTHER_COLOUR, THIRD_COLOUR)
    for (name, p), colour in zip(curves.items(), colours, strict=True):
        false, true, _ = roc_curve(y, p[known])
        axes.plot(false, true, color=colour, label=f"{name} {m.auc(p[known], y):.4f}")
    figures = report.figures
    axes.set(
        xlabel="false positive rate",
        ylabel="true positive rate",
        title=f"ROC, test slice: AUC {figures['auc']:.4f} "
        f"[{figures['auc_low']:.4f}, {figures['auc_high']:.4f}]",
    )
    axes.legend(title="AUC")


def _risk_coverage(axes: Axes, report: EvaluationReport) -> None:
    error = np.abs(report.test.fwd_ret - report.forecast.mu) * 1e4
    coverage, risk = m.risk_coverage(report.forecast.uncertainty, error)
    start = max(1, len(risk) // 50)  # the mean of a handful of rows is noise
    _, squares = m.risk_coverage(report.forecast.uncertainty, error**2)
    spread = np.sqrt(np.maximum(squares - risk**2, 0) / np.arange(1, len(risk) + 1))
    axes.plot(
        coverage[start:], risk[start:], color=MODEL_COLOUR, label="most certain rows kept first"
    )
    axes.fill_between(
        coverage[start:],
        (risk - spread)[start:],
        (risk + spread)[start:],
        color=MODEL_COLOUR,
        alpha=0.2,
        label="± 1 se of independent rows",
    )
    axes.axhline(risk[-1], color=GUIDE_COLOUR, linestyle="--", label="all rows")
    axes.set(
        xlabel="coverage (share of rows kept)",
        ylabel="mean |error| of mu (bps)",
        title="Risk–coverage, test slice: area "
        f"{report.figures['risk_coverage_area'] * 1e4:.2f} bps",
    )
    axes.legend()


def _deciles(axes: Axes, report: EvaluationReport) -> None:
    error = np.abs(report.test.fwd_ret - report.forecast.mu) * 1e4
    parts = [error[rows] for rows in m.equal_mass_bins(report.forecast.uncertainty, 10)]
    axes.errorbar(
        np.arange(1, len(parts) + 1),
        [float(part.mean()) for part in parts],
        yerr=[float(part.std() / np.sqrt(len(part))) for part in parts],
        fmt="o-",
        color=MODEL_COLOUR,
        capsize=3,
        label="mean ± 1 se of independent rows",
    )
    axes.axhline(float(error.mean()), color=GUIDE_COLOUR, linestyle="--", label="all rows")
    figures = report.figures
    axes.set(
        xlabel="decile of stated uncertainty (1: most certain)",
        ylabel="mean |error| of mu (bps)",
        title="Error by uncertainty, test slice: rank correlation "
        f"{figures['error_rank_correlation']:+.3f} "
        f"[{figures['error_rank_correlation_low']:+.3f}, "
        f"{figures['error_rank_correlation_high']:+.3f}]",
    )
    axes.legend()


def _equity(axes: Axes, report: EvaluationReport) -> None:
    trading = report.out_of_sample_trading or report.trading
    what = "walk-forward" if report.out_of_sample_trading else "test slice"
    days = _dates(trading.day.tolist())
    axes.plot(days, (trading.equity - 1) * 100, color=MODEL_COLOUR, label="model, net of costs")
    axes.plot(days, (trading.held - 1) * 100, color=THIRD_COLOUR, label="buy and hold")
    axes.fill_between(
        days,
        -drawdown(trading.equity) * 100,
        0,
        color=OTHER_COLOUR,
        alpha=0.3,
        label="model's drawdown",
    )
    axes.axhline(0, color=GUIDE_COLOUR, linestyle="--", label="no trade")
    axes.set(
        xlabel="UTC day",
        ylabel="return on equal capital a symbol (%)",
        title=f"Equity, {what}: Sharpe {trading.metrics['sharpe']:.2f}, "
        f"{trading.metrics['trades']:.0f} trades, "
        f"max drawdown {trading.metrics['max_drawdown']:.1%}",
    )
    axes.tick_params(axis="x", rotation=30)
    axes.legend()


def _importance(axes: Axes, report: EvaluationReport) -> None:
    top = sorted(report.importance.items(), key=lambda item: item[1])[-20:]
    axes.barh([name for name, _ in top], [value for _, value in top], color=MODEL_COLOUR)
    axes.tick_params(axis="y", labelsize=7)
    axes.set(
        xlabel="share of the direction boosters' gain",
        ylabel="feature",
        title=f"Feature importance: the first {len(top)} of {len(report.importance)}",
    )


def _folds(axes: Axes, report: EvaluationReport) -> None:
    folds: list[dict[str, Any]] = report.figures["wf_folds"]
    days = [str(day)[:10] for day in _dates([fold["start_ms"] for fold in folds])]
    axes.plot(days, [fold["auc"] for fold in folds], "o-", color=MODEL_COLOUR, label="AUC")
    axes.plot(
        days, [fold["accuracy"] for fold in folds], "s-", color=OTHER_COLOUR, label="accuracy"
    )
    axes.axhline(0.5, color=GUIDE_COLOUR, linestyle="--", label="coin flip")
    axes.set(
        xlabel="first day of the fold (UTC)",
        ylabel="AUC, accuracy",
        title=f"Walk-forward folds: pooled AUC {report.figures['wf_auc']:.4f} "
        f"[{report.figures['wf_auc_low']:.4f}, {report.figures['wf_auc_high']:.4f}]",
    )
    axes.tick_params(axis="x", rotation=30)
    axes.legend()


def _dates(epoch_ms: list[int]) -> NDArray[np.datetime64]:
    return np.array(epoch_ms, dtype="datetime64[ms]")
