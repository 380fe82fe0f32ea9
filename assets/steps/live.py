"""Look at the champion again, on bars newer than everything it was made from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.units import Unit, unit_symbols
from tradewind.clock import Clock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import MS_PER_DAY, Settings

if TYPE_CHECKING:
    from registry.versions import RegisteredVersion
    from tradewind.models.base import Samples
    from tradewind.models.bundle import ModelBundle
    from tradewind.models.concept_drift import ConceptReport

MIN_ROWS = 200
OF_ONE_UNIT = (
    ErrorCode.NO_CHAMPION,
    ErrorCode.NO_CHALLENGER,
    ErrorCode.GATES_FAILED,
    ErrorCode.MODEL_UNUSABLE,
    ErrorCode.NOT_ENOUGH_BARS,
    ErrorCode.NOT_ENOUGH_LABELS,
    ErrorCode.NO_BARS,
    ErrorCode.CORRUPT_FILE,
)
"""What can be wrong with one unit while the others are sound."""
NOTHING_THERE = (ErrorCode.NO_CHAMPION, ErrorCode.NO_CHALLENGER)
LEAST_DAYS = 20
"""Days of bars read at least: few rows are an answer, no rows an error."""


@dataclass(frozen=True)
class Live:
    """Figures of a champion on bars it has never seen."""

    version: str
    rows: int
    figures: dict[str, Any]
    gates: tuple[dict[str, Any], ...] = ()
    columns: tuple[dict[str, float | str], ...] = ()


Look = Callable[[Settings, Clock, Unit], Live]


def look_at(
    settings: Settings, clock: Clock, units: Sequence[Unit], look: Look
) -> Iterator[tuple[Unit, Live | TradewindError]]:
    """Yield what ``look`` finds for each unit, or what is wrong with that unit alone.

    Raises
    ------
    TradewindError
        What stops every unit: ``tracking_unreachable``, ``bad_setting``.
    """
    for unit in units:
        try:
            yield unit, look(settings, clock, unit)
        except TradewindError as error:
            if error.code not in OF_ONE_UNIT:
                raise
            yield unit, error


def worst_of(errors: Sequence[TradewindError], units: int) -> TradewindError | None:
    """Return the error that a look at ``units`` units should end with, if any.

    A unit without a champion, or a challenger, is no failure, unless there is none at all.
    """
    broken = [error for error in errors if error.code not in NOTHING_THERE]
    if broken:
        return broken[0]
    return errors[0] if errors and len(errors) == units else None


def evaluate_champion(settings: Settings, clock: Clock, unit: Unit) -> Live:
    """Return the champion's metrics on labelled bars after its data window.

    After a live recalibration they begin where the labels of that end.

    Fewer than 200 such rows give no metrics, only their number: a figure from a handful
    of overlapping labels would mislead.
    """
    from tradewind.models.metrics import classification_metrics
    from tradewind.models.thinning import judged_rows

    champion, bundle = champion_of(settings, unit)
    label = champion.label
    samples = _recent(settings, clock, unit, days=settings.training.days_back)
    newer = samples.subset(samples.ts >= bundle.meta.seen_until_ms)
    fresh = judged_rows(settings, unit.family, newer)
    if len(fresh) < MIN_ROWS:
        return Live(label, len(fresh), {"rows": len(fresh), "rows_needed": MIN_ROWS})
    forecast = bundle.predict(fresh, n_samples=settings.training.judge_passes)
    metrics = classification_metrics(forecast.p_up, fresh.y_up)
    base = classification_metrics(0 * fresh.y_up + bundle.meta.base_rate, fresh.y_up)
    figures = {
        "rows": len(fresh),
        **metrics,
        "log_loss_base_rate": base["log_loss"],
        "brier_base_rate": base["brier"],
    }
    _log(settings, unit, champion, fresh, figures)
    return Live(label, len(fresh), figures)


def drift_of_champion(settings: Settings, clock: Clock, unit: Unit) -> Live:
    """Return PSI of the champion's inputs and prediction, and what outcomes say of its answers.

    ``status`` is that of PSI (data drift), ``concept`` the verdict of the outcomes, and ``drift``
    which of the two has its alarm, with what to do in ``advice``. Outcomes that the bars tell by
    now are filled in first. Evidently's report and the figures go to MLflow.
    """
    from assets.steps.drift_look import look_at_inputs
    from assets.steps.drift_record import log_look, write_report
    from tradewind.models.concept_drift import ADVICE, DriftKind, drift_kind

    champion, bundle = champion_of(settings, unit)
    samples = _recent(settings, clock, unit, days=max(LEAST_DAYS, settings.drift.recent_days))
    report, recent = look_at_inputs(settings, bundle, samples, clock.now_ms())
    concept = _concept_of(settings, clock, champion)
    kind = drift_kind(report.status, concept.verdict)
    now_ms = clock.now_ms()
    figures = {
        "drift": kind.value,
        "advice": ADVICE[kind],
        **concept.figures(),
        "looked_ms": now_ms,
        **report.to_figures(),
    }
    alarmed = kind is not DriftKind.NEITHER
    html, missing = write_report(
        settings, unit, bundle.meta, recent, alarmed=alarmed, now_ms=now_ms
    )
    links = log_look(settings, unit, champion, figures, html)
    shown = {**figures, **links, "report_missing": missing}
    return Live(champion.label, len(recent), shown, columns=report.to_rows())


def _concept_of(settings: Settings, clock: Clock, champion: RegisteredVersion) -> ConceptReport:
    """Test what a champion answered under any alias in the last ``drift.concept_days``."""
    import polars as pl

    from assets.steps.live_metrics import seen_until, served_rows
    from tradewind.ledger import fill_outcomes, open_ledger
    from tradewind.ledger.answers import spoken_answers
    from tradewind.market.ingest import store_for
    from tradewind.models.concept_drift import concept_drift

    now_ms, step_ms = clock.now_ms(), settings.market.timeframe_ms
    with open_ledger(settings) as ledger:
        fill_outcomes(settings, ledger, store_for(settings), now_ms)
        said = spoken_answers(
            ledger,
            horizon=settings.training.horizon,
            timeframe_ms=step_ms,
            since_ms=now_ms - settings.drift.concept_days * MS_PER_DAY,
            now_ms=now_ms,
        )
    own = (pl.col("label") == champion.label) & (pl.col("bar_ts") >= seen_until(champion))
    rows = said.filter(own).unique(["symbol", "bar_ts"], keep="first", maintain_order=True)
    served, metrics = served_rows(settings, rows), champion.metrics
    return concept_drift(
        served.ts,
        served.p_up,
        served.y,
        horizon_ms=(settings.training.horizon + 1) * step_ms,
        settings=settings.drift,
        holdout_log_loss=metrics.get("wf_log_loss", metrics.get("log_loss")),
    )


def _log(
    settings: Settings,
    unit: Unit,
    champion: RegisteredVersion,
    rows: Samples,
    figures: Mapping[str, float],
) -> None:
    """Log a look at a champion as a run nested in the one that made it, once per rows."""
    from registry.names import evaluation_name, span_text
    from registry.tracking import Tracking

    tracking = Tracking(settings)
    start, end = int(rows.ts.min()), int(rows.ts.max())
    identity = {
        "kind": "evaluation",
        "version": champion.label,
        "data_span": span_text(start, end),
        "judged_rows": len(rows),
    }
    if tracking.find_run({**identity, "stage": "judged"}) is not None:
        return
    now_ms = time.time_ns() // 1_000_000
    tracking.log_finished(
        evaluation_name(unit.family, unit.key, champion.version, start, end),
        run_id=tracking.find_run(identity),
        parent_run_id=champion.run_id,
        tags={
            **identity,
            "family": unit.family,
            "model_key": unit.key,
            "symbols": " ".join(unit_symbols(settings, unit)),
            "profile": settings.profile.value,
            "feature_version": champion.tags.get("feature_version", "none"),
        },
        params={"version": champion.label},
        metrics=figures,
        started_ms=now_ms,
        ended_ms=now_ms,
        description=f"{champion.label} on {len(rows)} rows newer than its data: auc "
        f"{figures['auc']:.4f}, log_loss {figures['log_loss']:.4f} (base rate "
        f"{figures['log_loss_base_rate']:.4f}).",
        done={"stage": "judged"},
    )


def champion_of(settings: Settings, unit: Unit) -> tuple[RegisteredVersion, ModelBundle]:
    """Return a unit's champion and its files; ``no_champion`` where there is none."""
    from registry.tracking import Tracking
    from registry.versions import fetch_bundle, find_alias
    from tradewind.models.bundle import ModelBundle

    tracking = Tracking(settings)
    found = find_alias(tracking, unit.name, "champion")
    if found is None:
        raise TradewindError(
            ErrorCode.NO_CHAMPION,
            f"{unit.name} has no champion",
            f"Run `tradewind train -f {unit.family}`, or launch the Dagster job `retrain`",
        )
    folder = fetch_bundle(
        tracking, found.name, version=found.version, cache_dir=settings.home / "models"
    )
    return found, ModelBundle.load(folder)


def rows_since(settings: Settings, clock: Clock, unit: Unit, since_ms: int) -> Samples:
    """Return the labelled rows of bars from ``since_ms`` on that the family is judged on."""
    from tradewind.models.thinning import judged_rows

    days = -(-(clock.now_ms() - since_ms) // MS_PER_DAY)
    samples = _recent(settings, clock, unit, days=max(LEAST_DAYS, days))
    return judged_rows(settings, unit.family, samples.subset(samples.ts >= since_ms))


def _recent(settings: Settings, clock: Clock, unit: Unit, *, days: int) -> Samples:
    from tradewind.market.ingest import store_for
    from tradewind.models.dataset import build_training_set

    built = build_training_set(
        settings,
        store_for(settings),
        clock.now_ms(),
        symbols=unit_symbols(settings, unit),
        days_back=days,
    )
    return built.samples
