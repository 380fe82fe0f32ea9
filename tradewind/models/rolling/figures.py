"""The figures of one forecaster on judged rows, each with its block-bootstrap interval."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tradewind.models import metrics as m
from tradewind.models.backtest import MIN_TRADES, Backtest, backtest, round_trip
from tradewind.models.base import FloatArray
from tradewind.models.bootstrap import DayBootstrap, Interval, TimeBootstrap
from tradewind.models.conformal import covered
from tradewind.models.rolling.judged import Judged
from tradewind.models.uncertainty_figures import uncertainty_figures
from tradewind.settings import Settings

CONFIDENT = 0.05
"""Share of rows, those furthest from one half, that are looked at on their own."""
BPS = 1e4
STATED = (
    "risk_coverage_area",
    "mean_absolute_error",
    "abstain_share",
    "error_by_uncertainty_decile",
    "error_rank_correlation",
    "conformal_coverage",
)
"""Figures of a stated uncertainty; None of a forecaster that states none."""


def time_bootstrap(settings: Settings, rows: Judged) -> TimeBootstrap:
    """Return the resamples by which every interval over these rows is made."""
    return TimeBootstrap(
        rows.ts,
        samples=settings.training.bootstrap_samples,
        level=settings.gates.confidence_level,
        block_ms=settings.training.horizon * settings.market.timeframe_ms,
        seed=settings.training.seed,
    )


def figures(settings: Settings, rows: Judged, trading: Backtest) -> dict[str, Any]:
    """Return every figure of ``rows``; intervals as ``name_low`` and ``name_high``.

    What a forecaster does not state (a baseline's uncertainty), or what too few trades
    cannot tell, is None.
    """
    drawn = time_bootstrap(settings, rows)
    found: dict[str, Any] = {"rows": len(rows), **_quality(settings, rows, drawn)}
    found |= _ranking(rows)
    found |= _uncertainty(settings, rows, drawn)
    found |= _confident(settings, rows)
    found |= trading_figures(settings, trading)
    return found


def trade(settings: Settings, rows: Judged, *, threshold: float | None = None) -> Backtest:
    """Trade p_up after costs by the plain rule, as far as epistemic_p allows."""
    return backtest(
        rows.ts,
        rows.symbol,
        rows.p_up,
        rows.fwd_ret,
        threshold=settings.serving.base_threshold if threshold is None else threshold,
        horizon_ms=settings.training.horizon * settings.market.timeframe_ms,
        cost=round_trip(settings),
        allowed=rows.epistemic_p <= settings.serving.epistemic_p_limit,
    )


def _quality(settings: Settings, rows: Judged, drawn: TimeBootstrap) -> dict[str, float]:
    p, y, bins = rows.p_up, rows.y, settings.calibration.ece_bins
    intervals = {
        "auc": drawn.auc(p, y),
        "log_loss": drawn.mean(m.row_log_loss(p, y)),
        "brier": drawn.mean((p - y) ** 2),
        "ece": drawn.ece(p, y, bins),
        "accuracy": drawn.mean(((p >= 0.5) == (y == 1)).astype(np.float64)),
    }
    spacing = int(np.diff(np.unique(rows.ts)).min())
    label_ms = settings.training.horizon * settings.market.timeframe_ms
    return {
        **_named(intervals),
        "ece_perfect": m.perfect_ece(p, bins),
        "ece_perfect_overlapping": m.perfect_ece_overlapping(
            p, rows.ts, rows.symbol, horizon=math.ceil(label_ms / spacing), bins=bins
        ),
    }


def _ranking(rows: Judged) -> dict[str, float | None]:
    """Return the AUC before calibration, and the mean of the folds' own.

    Where they are higher than ``auc``, the level of p_up moves between folds by more than it
    should: calibration slices differ more than the days after them.
    """
    if not np.isfinite(rows.p_raw).all():
        return {"uncalibrated_auc": None, "mean_fold_auc": None}
    own = [rows.fold == fold for fold in np.unique(rows.fold)]
    each = [m.auc(rows.p_up[part], rows.y[part]) for part in own]
    return {
        "uncalibrated_auc": m.auc(rows.p_raw, rows.y),
        "mean_fold_auc": float(np.average(each, weights=[part.sum() for part in own])),
    }


def _uncertainty(settings: Settings, rows: Judged, drawn: TimeBootstrap) -> dict[str, Any]:
    if not np.isfinite(rows.uncertainty).all():
        return dict.fromkeys(STATED)
    told = uncertainty_figures(
        np.abs(rows.fwd_ret - rows.mu),
        rows.uncertainty,
        rows.epistemic_p,
        drawn=drawn,
        limit=settings.serving.epistemic_p_limit,
    )
    return {**told, **_coverage(settings, rows, drawn)}


def _coverage(settings: Settings, rows: Judged, drawn: TimeBootstrap) -> dict[str, Any]:
    if not np.isfinite(rows.interval_p).all():
        return {"conformal_coverage": None}
    inside = covered(rows.interval_p, settings.calibration.interval_level)
    return drawn.mean(inside.astype(np.float64)).named("conformal_coverage")


def _confident(settings: Settings, rows: Judged) -> dict[str, float | None]:
    """Return hit rate and gross return of the most confident rows, before any cost.

    Of fewer than `MIN_TRADES` rows no interval is known: resamples of them are hardly others.
    """
    sure = confident_rows(rows.p_up)
    side = np.where(rows.p_up[sure] >= 0.5, 1.0, -1.0)
    gross = side * np.expm1(rows.fwd_ret[sure])
    drawn = time_bootstrap(settings, rows.subset(sure))
    hit = ((rows.p_up[sure] >= 0.5) == (rows.y[sure] == 1)).astype(np.float64)
    found: dict[str, float | None] = {
        **drawn.mean(hit).named("confident_5pct_accuracy"),
        **drawn.mean(gross * BPS).named("confident_5pct_gross_bps"),
        "confident_5pct_least_distance": float(np.abs(rows.p_up[sure] - 0.5).min()),
    }
    if len(sure) < MIN_TRADES:
        found |= dict.fromkeys(name for name in found if name.endswith(("_low", "_high")))
    return found


def confident_rows(p: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the positions of the most confident rows, in the order of the rows."""
    count = max(1, int(len(p) * CONFIDENT))
    chosen = np.argsort(-np.abs(p - 0.5), kind="stable")[:count]
    return np.sort(chosen).astype(np.int64)


def trading_figures(settings: Settings, trading: Backtest) -> dict[str, Any]:
    """Return the figures of a backtest with intervals over days, and over trades."""
    choices: dict[str, Any] = {
        "samples": settings.training.bootstrap_samples,
        "level": settings.gates.confidence_level,
        "seed": settings.training.seed,
    }
    days = DayBootstrap(trading.daily, **choices)
    found: dict[str, Any] = {
        **trading.metrics,
        **_named(
            {
                "sharpe": days.sharpe(),
                "max_drawdown": days.max_drawdown(),
                "net_return": days.net_return(),
            }
        ),
    }
    if len(trading.trade_net) >= MIN_TRADES:
        trades = TimeBootstrap(trading.trade_ts, **choices)
        won = (trading.trade_net > 0).astype(np.float64)
        found |= trades.mean(won).named("win_rate")
        found |= trades.mean(trading.trade_net * BPS).named("mean_net_bps")
    return found


def _named(intervals: dict[str, Interval]) -> dict[str, float]:
    named: dict[str, float] = {}
    for name, found in intervals.items():
        named |= found.named(name)
    return named
