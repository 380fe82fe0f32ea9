"""What a look at a champion's drift leaves behind: Evidently's report, and points in MLflow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.units import Unit, unit_symbols
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import MS_PER_DAY, Settings

if TYPE_CHECKING:
    from registry.versions import RegisteredVersion
    from tradewind.models.base import Samples
    from tradewind.models.bundle import BundleMeta

KIND = "drift"
ARTIFACTS = "drift"
NOT_STORED = (ErrorCode.NOT_ENOUGH_BARS, ErrorCode.NO_BARS)
"""Why the rows that a version was calibrated on may be gone: retention drops old bars."""


def calibration_rows(settings: Settings, unit: Unit, meta: BundleMeta) -> Samples:
    """Return the rows of a version's calibration slice, built from the store again.

    Where they lay follows from its data window and the shares of `training.split`.

    Raises
    ------
    TradewindError
        ``not_enough_bars``, ``no_bars``: those bars are not stored any more.
    """
    from tradewind.market.ingest import store_for
    from tradewind.models.dataset import build_training_set

    train, valid, calib, _ = settings.training.split
    span_ms = meta.data_end_ms - meta.train_start_ms
    start_ms, length_ms = meta.train_start_ms + (train + valid) * span_ms, calib * span_ms
    built = build_training_set(
        settings,
        store_for(settings),
        math.floor(start_ms + length_ms),
        symbols=unit_symbols(settings, unit),
        days_back=max(1, math.ceil(length_ms / MS_PER_DAY)),
    )
    return built.samples


def write_report(
    settings: Settings,
    unit: Unit,
    meta: BundleMeta,
    recent: Samples,
    *,
    alarmed: bool,
    now_ms: int,
) -> tuple[Path | None, str | None]:
    """Write Evidently's report under the home; return it, or why there is none.

    The report of an alarm is kept by its day; one without an alarm is replaced by the next.
    """
    from registry.names import day
    from tradewind.models.drift_report import write_drift_html

    try:
        reference = calibration_rows(settings, unit, meta)
    except TradewindError as error:
        if error.code not in NOT_STORED:
            raise
        return None, f"no report: the rows it was calibrated on are not stored ({error.detail})"
    name = f"drift_{day(now_ms)}.html" if alarmed else "drift.html"
    return write_drift_html(reference, recent, settings.home / "drift" / unit.name / name), None


def log_look(
    settings: Settings,
    unit: Unit,
    champion: RegisteredVersion,
    figures: Mapping[str, Any],
    report: Path | None,
) -> dict[str, str]:
    """Log a look to the version's run of drift; return where it and the report are.

    One run a version, nested in the run that made it. A point's time and step (days since 1970)
    are the market's: the same look again is the same point.
    """
    from registry.links import artifact_url, run_url
    from registry.names import drift_name
    from registry.tracking import Tracking

    tracking = Tracking(settings)
    identity = {"kind": KIND, "version": champion.label}
    at_ms = int(figures["looked_ms"])
    with tracking.start_run(
        drift_name(unit.family, unit.key, champion.version),
        run_id=tracking.find_run(identity),
        parent_run_id=champion.run_id,
        tags={
            **identity,
            "family": unit.family,
            "model_key": unit.key,
            "profile": settings.profile.value,
            "feature_version": champion.tags.get("feature_version", "none"),
            "drift": figures["drift"],
        },
        params={"version": champion.label},
        description=f"Looks at the drift of {champion.label}: PSI of each feature and of p_up, and "
        "what outcomes say. The step counts days since 1970-01-01 and the time is the market's.",
    ) as run:
        run.log_points(
            (name, float(value), at_ms, at_ms // MS_PER_DAY)
            for name, value in figures.items()
            if _is_figure(name, value)
        )
        if report is not None:
            run.log_artifact(report, ARTIFACTS)
    found = {"mlflow_url": run_url(settings, tracking.experiment_id, run.run_id)}
    if report is not None:
        page = f"{ARTIFACTS}/{report.name}"
        found["report_url"] = artifact_url(settings, tracking.experiment_id, run.run_id, page)
        found["report_path"] = None if found["report_url"] else str(report)
    return {name: value for name, value in found.items() if value is not None}


def _is_figure(name: str, value: Any) -> bool:
    known = name.startswith(("psi_", "concept_")) or name in ("over_limit", "worst_psi")
    return known and isinstance(value, int | float) and math.isfinite(value)
