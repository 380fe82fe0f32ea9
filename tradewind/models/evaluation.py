"""Judge a bundle on data it never saw: the test slice, and walk-forward folds.

Every figure stands beside baselines on the same rows and a block-bootstrap interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tradewind.models import metrics as m
from tradewind.models.backtest import Backtest, backtest, round_trip
from tradewind.models.base import FloatArray, Forecaster, IntArray, Samples
from tradewind.models.baselines import baseline_predictions
from tradewind.models.bootstrap import TimeBootstrap
from tradewind.models.bundle import ModelBundle, row_seeds
from tradewind.models.calibration import (
    CalibrationChoice,
    fit_calibrator,
)
from tradewind.models.conformal import covered, fit_conformal, independent_labels, scores
from tradewind.models.dataset import TrainingSet
from tradewind.models.reference import PREDICTION, Reference
from tradewind.models.skill import slice_skill
from tradewind.models.splits import Split, time_split
from tradewind.models.thinning import judged_rows, overlap, thinned
from tradewind.models.training import rows_of
from tradewind.models.uncertainty import Forecast
from tradewind.models.uncertainty_figures import uncertainty_figures
from tradewind.models.usual_drift import Usual, usual_drift
from tradewind.models.walk_forward import OutOfSample
from tradewind.settings import Settings

MOST_CONFIDENT = 0.05
"""Share of rows, the surest first, whose accuracy is shown beside everyone's."""


@dataclass(frozen=True)
class Calibrated:
    """A calibrator, the reference of its slice, and the skill measured on that slice.

    ``skill`` is the gain in log-loss over the base rate of the training slice, relative to
    it, floored at 0. It weighs the member in an ensemble where its walk-forward record is too
    short (`track_record`), and is not evidence of quality.
    """

    choice: CalibrationChoice
    reference: Reference
    skill: float
    base_rate: float


@dataclass(frozen=True)
class EvaluationReport:
    """Figures and the rows they come from.

    ``figures`` holds bare numbers (None where undefined); ``test`` are the rows of the
    test slice with ``forecast`` and ``baselines`` on them.
    """

    figures: dict[str, Any]
    test: Samples
    forecast: Forecast
    baselines: dict[str, FloatArray]
    trading: Backtest
    out_of_sample: OutOfSample | None
    out_of_sample_trading: Backtest | None
    importance: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values; what is not a finite number is None."""
        clean: dict[str, Any] = _json(self.figures)
        return clean

    def metrics(self) -> dict[str, float | None]:
        """Return the flat figures that a run logs, by the names of `metric_table`."""
        return _numbers(self.to_json())

    def symbol_metrics(self) -> dict[str, float | None]:
        """Return the figures of each symbol of a pooled model as ``SYMBOL/name``.

        Empty for a model of one symbol, whose own figures they would repeat.
        """
        found: dict[str, dict[str, Any]] = self.to_json()["per_symbol"]
        if len(found) < 2:
            return {}
        return {
            f"{symbol}/{name}": value
            for symbol, figures in found.items()
            for name, value in _numbers(figures).items()
        }


def calibrate_candidate(
    settings: Settings, training_set: TrainingSet, forecaster: Forecaster, key: str
) -> Calibrated:
    """Choose a calibrator on the calibration slice and remember that slice."""
    samples = rows_of(training_set.samples, key)
    split = _split(settings, samples)
    stride = settings.training.calibrate_stride
    whole = samples.subset(split.calib)
    calib = thinned(settings, forecaster.family, whole, stride)
    seeds = row_seeds(f"calibration {forecaster.family} {key}", calib)
    raw = forecaster.sample(calib, n_samples=settings.training.judge_passes, seeds=seeds)
    p_raw = raw.p.mean(axis=0)
    reach = overlap(settings, forecaster.family, stride)
    choice = fit_calibrator(p_raw, calib.y_up, ts=calib.ts, horizon=reach)
    p_up = choice.calibrator.apply(p_raw)
    base_rate = float(samples.y_up[split.train].mean())
    skill = slice_skill(choice, calib.y_up, calib.ts, base_rate)
    # Features of every bar: those of each k-th alone would know only some hours of the day.
    fitted = Reference.fit(
        whole.wide,
        whole.wide_names,
        p_up,
        bins=settings.drift.bins,
        trained_on=samples.wide[split.train],
        conformal=fit_conformal(
            scores(raw, calib.fwd_ret),
            independent=independent_labels(calib.ts, reach),
            level=settings.calibration.interval_level,
        ),
    )
    reference = replace(
        fitted, usual=_usual(settings, samples, split, forecaster, key, choice, fitted)
    )
    return Calibrated(choice, reference, skill, base_rate)


def _usual(
    settings: Settings,
    samples: Samples,
    split: Split,
    forecaster: Forecaster,
    key: str,
    choice: CalibrationChoice,
    reference: Reference,
) -> Usual | None:
    """Return what drift was usual in the rows known by now; labels are not looked at.

    Predictions are those of the slices after the fitted one, as rarely as the calibrator's.
    """
    later = np.concatenate([split.valid, split.calib, split.test])
    rows = thinned(
        settings, forecaster.family, samples.subset(later), settings.training.calibrate_stride
    )
    seeds = row_seeds(f"usual {forecaster.family} {key}", rows)
    raw = forecaster.sample(rows, n_samples=settings.training.judge_passes, seeds=seeds)
    return usual_drift(
        reference.bins,
        samples,
        split.calib,
        days=settings.drift.recent_days,
        p_ts=rows.ts,
        p_up=choice.calibrator.apply(raw.p.mean(axis=0)),
        prediction=PREDICTION,
    )


def evaluate(
    settings: Settings,
    training_set: TrainingSet,
    bundle: ModelBundle,
    key: str,
    out_of_sample: OutOfSample | None,
) -> EvaluationReport:
    """Measure ``bundle`` on the test slice, and the retraining itself on the folds."""
    samples = rows_of(training_set.samples, key)
    split = _split(settings, samples)
    train = samples.subset(split.train)
    test = judged_rows(settings, bundle.meta.family, samples.subset(split.test))
    forecast = bundle.predict(test, n_samples=settings.training.judge_passes)
    report = judge_rows(settings, bundle, test, forecast, baseline_predictions(train, test))
    if out_of_sample is None:
        return report
    trading = _trade_rows(settings, out_of_sample)
    return replace(
        report,
        figures={**report.figures, **_folds(settings, out_of_sample, trading)},
        out_of_sample=out_of_sample,
        out_of_sample_trading=trading,
    )


def judge_rows(
    settings: Settings,
    bundle: ModelBundle,
    rows: Samples,
    forecast: Forecast,
    baselines: dict[str, FloatArray],
) -> EvaluationReport:
    """Measure ``forecast`` on labelled ``rows`` that nothing in it was fitted on."""
    trading = _trade(settings, rows, forecast)
    outside = bundle.out_of_range(rows, settings.serving.ranges)
    figures: dict[str, Any] = {
        "rows": len(rows),
        "test_start_ms": int(rows.ts[0]),
        "test_end_ms": int(rows.ts[-1]),
        **_with_intervals(settings, forecast.p_up, rows.y_up, rows.ts),
        **_uncertainty(settings, forecast, rows),
        **_intervals(settings, forecast, rows),
        "out_of_range_share": float(np.mean([bool(names) for names in outside])),
        **trading.metrics,
        **_against_baselines(settings, forecast.p_up, baselines, rows),
        "per_symbol": _per_symbol(settings, rows, forecast, baselines),
        "reliability": m.reliability(forecast.p_up, rows.y_up, settings.calibration.ece_bins),
    }
    return EvaluationReport(
        figures=figures,
        test=rows,
        forecast=forecast,
        baselines=baselines,
        trading=trading,
        out_of_sample=None,
        out_of_sample_trading=None,
        importance=bundle.forecaster.importance(),
    )


def _split(settings: Settings, samples: Samples) -> Split:
    return time_split(
        samples.ts,
        horizon_ms=settings.training.horizon * settings.market.timeframe_ms,
        shares=settings.training.split,
    )


def _trade(settings: Settings, rows: Samples, forecast: Forecast) -> Backtest:
    return backtest(
        rows.ts,
        rows.symbol,
        forecast.p_up,
        rows.fwd_ret,
        allowed=forecast.epistemic_p <= settings.serving.epistemic_p_limit,
        **_rule(settings),
    )


def _trade_rows(settings: Settings, rows: OutOfSample) -> Backtest:
    return backtest(
        rows.ts,
        rows.symbol,
        rows.p_up,
        rows.fwd_ret,
        allowed=rows.epistemic_p <= settings.serving.epistemic_p_limit,
        **_rule(settings),
    )


def _rule(settings: Settings) -> dict[str, Any]:
    return {
        "threshold": settings.serving.base_threshold,
        "horizon_ms": settings.training.horizon * settings.market.timeframe_ms,
        "cost": round_trip(settings),
    }


def _bootstrap(settings: Settings, ts: IntArray) -> TimeBootstrap:
    return TimeBootstrap(
        ts,
        samples=settings.training.bootstrap_samples,
        level=settings.gates.confidence_level,
        block_ms=settings.training.horizon * settings.market.timeframe_ms,
        seed=settings.training.seed,
    )


def _with_intervals(
    settings: Settings, p: FloatArray, y: FloatArray, ts: IntArray
) -> dict[str, float]:
    bins = settings.calibration.ece_bins
    drawn = _bootstrap(settings, ts)
    intervals = {
        "auc": drawn.auc(p, y),
        "log_loss": drawn.mean(m.row_log_loss(p, y)),
        "brier": drawn.mean((p - y) ** 2),
        "ece": drawn.ece(p, y, bins),
        "accuracy": drawn.mean(((p >= 0.5) == (y == 1)).astype(np.float64)),
    }
    figures: dict[str, float] = {}
    for name, found in intervals.items():
        figures |= found.named(name)
    return figures | {"ece_perfect": m.perfect_ece(p, bins)}


def _uncertainty(settings: Settings, forecast: Forecast, rows: Samples) -> dict[str, Any]:
    found = uncertainty_figures(
        np.abs(rows.fwd_ret - forecast.mu),
        forecast.uncertainty,
        forecast.epistemic_p,
        drawn=_bootstrap(settings, rows.ts),
        limit=settings.serving.epistemic_p_limit,
    )
    return found | {"confident_5pct_accuracy": _most_confident(forecast.p_up, rows.y_up)}


def _intervals(settings: Settings, forecast: Forecast, rows: Samples) -> dict[str, float]:
    """Return how often the intervals held the return, and their width; empty without any."""
    if forecast.mu_low is None or forecast.mu_high is None:
        return {}
    inside = (rows.fwd_ret >= forecast.mu_low) & (rows.fwd_ret <= forecast.mu_high)
    return {
        "conformal_level": settings.calibration.interval_level,
        **_bootstrap(settings, rows.ts).mean(inside.astype(np.float64)).named("conformal_coverage"),
        "conformal_width": float((forecast.mu_high - forecast.mu_low).mean()),
    }


def _most_confident(p: FloatArray, y: FloatArray) -> float:
    count = max(1, int(len(p) * MOST_CONFIDENT))
    rows = np.argsort(-np.abs(p - 0.5), kind="stable")[:count]
    return m.accuracy(p[rows], y[rows])


def _against_baselines(
    settings: Settings, p: FloatArray, baselines: dict[str, FloatArray], rows: Samples
) -> dict[str, float]:
    figures: dict[str, float] = {}
    drawn = _bootstrap(settings, rows.ts)
    loss = m.row_log_loss(p, rows.y_up)
    for name, other in baselines.items():
        for metric, value in m.classification_metrics(other, rows.y_up).items():
            figures[f"{metric}_{name}"] = value
        gain = drawn.paired(loss, m.row_log_loss(other, rows.y_up))
        figures |= gain.named(f"log_loss_minus_{name}")
    return figures


def _per_symbol(
    settings: Settings, rows: Samples, forecast: Forecast, baselines: dict[str, FloatArray]
) -> dict[str, dict[str, float]]:
    found = {}
    for code in np.unique(rows.symbol):
        mask = rows.symbol == code
        part = rows.subset(mask)
        figures = _with_intervals(settings, forecast.p_up[mask], part.y_up, part.ts)
        figures["rows"] = len(part)
        for name, other in baselines.items():
            for metric in ("auc", "log_loss", "brier"):
                figures[f"{metric}_{name}"] = getattr(m, metric)(other[mask], part.y_up)
        found[rows.symbols[int(code)]] = figures
    return found


def _folds(settings: Settings, rows: OutOfSample, trading: Backtest) -> dict[str, Any]:
    bins = settings.calibration.ece_bins
    pooled = _with_intervals(settings, rows.p_up, rows.y, rows.ts)
    gain = _bootstrap(settings, rows.ts).paired(
        m.row_log_loss(rows.p_up, rows.y), m.row_log_loss(rows.base_rate, rows.y)
    )
    label_ms = settings.training.horizon * settings.market.timeframe_ms
    spacing = int(np.diff(np.unique(rows.ts)).min())
    reach = math.ceil(label_ms / spacing)
    pooled |= {
        "rows": len(rows.ts),
        "ece_perfect_overlapping": m.perfect_ece_overlapping(
            rows.p_up, rows.ts, rows.symbol, horizon=reach, bins=bins
        ),
        "log_loss_base_rate": m.log_loss(rows.base_rate, rows.y),
        **gain.named("log_loss_minus_base_rate"),
        **uncertainty_figures(
            np.abs(rows.fwd_ret - rows.mu),
            np.hypot(rows.epistemic, rows.sigma),
            rows.epistemic_p,
            drawn=_bootstrap(settings, rows.ts),
            limit=settings.serving.epistemic_p_limit,
        ),
        **trading.metrics,
    }
    if np.isfinite(rows.interval_p).all():  # folds that an earlier version stored have none
        inside = covered(rows.interval_p, settings.calibration.interval_level)
        drawn = _bootstrap(settings, rows.ts).mean(inside.astype(np.float64))
        pooled |= drawn.named("conformal_coverage")
    figures: dict[str, Any] = {f"wf_{name}": value for name, value in pooled.items()}
    figures["wf_reliability"] = m.reliability(rows.p_up, rows.y, bins)
    figures["wf_folds"] = [
        {
            "fold": int(number),
            "start_ms": int(rows.ts[own].min()),
            "rows": int(own.sum()),
            **m.classification_metrics(rows.p_up[own], rows.y[own], bins=bins),
        }
        for number in np.unique(rows.fold)
        for own in [rows.fold == number]
    ]
    return figures


def _numbers(figures: dict[str, Any]) -> dict[str, float | None]:
    return {
        name: value
        for name, value in figures.items()
        if value is None or isinstance(value, (int, float))
    }


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    return value
