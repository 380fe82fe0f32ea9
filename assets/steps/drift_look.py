"""One look at the drift of a version's inputs: at its release, and daily once it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tradewind.settings import MS_PER_DAY, Settings

if TYPE_CHECKING:
    from tradewind.models.base import Samples
    from tradewind.models.bundle import ModelBundle
    from tradewind.models.drift import DriftReport


def look_at_inputs(
    settings: Settings, bundle: ModelBundle, samples: Samples, now_ms: int
) -> tuple[DriftReport, Samples]:
    """Return the drift of the last ``drift.recent_days`` of ``samples``, and these rows.

    What is quiet by now is looked for in all of ``samples``: a feature may have stood still
    since before.
    """
    from tradewind.models.drift import drift_report
    from tradewind.models.thinning import judged_rows
    from tradewind.models.usual_drift import quiet_by_now, steps_of

    recent = samples.subset(samples.ts >= now_ms - settings.drift.recent_days * MS_PER_DAY)
    judged = judged_rows(settings, bundle.meta.family, recent)
    forecast = bundle.predict(judged, n_samples=settings.training.judge_passes)
    report = drift_report(
        bundle.reference,
        recent.wide,
        recent.wide_names,
        forecast.p_up,
        settings=settings.drift,
        quiet=quiet_by_now(samples),
        steps=steps_of(recent),
    )
    return report, recent
