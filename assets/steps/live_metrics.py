"""Live metrics: what every version that answered has been worth, now and on each past day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tradewind.settings import MS_PER_DAY, Settings

if TYPE_CHECKING:
    import polars as pl

    from registry.tracking import Tracking
    from registry.versions import RegisteredVersion
    from tradewind.ledger import Ledger
    from tradewind.models.live_metrics import Rules, Served

KIND = "live"
UNTIL_TAG = "live_until_ms"
UNKNOWN_BASE_RATE = 0.5
"""Share of rises of a version that was registered before its base rate was kept with it."""
Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class LivePoint:
    """The figures of one look at the market time ``at_ms``, by days of the window."""

    at_ms: int
    windows: Mapping[int, Figures]


@dataclass(frozen=True)
class LiveSeries:
    """One version under one alias: a point for each midnight, and one for now.

    ``version`` is None for an ensemble, which is registered through its members alone.
    """

    label: str
    alias: str
    version: RegisteredVersion | None
    days: tuple[LivePoint, ...]
    now: LivePoint


@dataclass(frozen=True)
class LiveReport:
    """Every series, and labels that no registered version stands behind."""

    series: tuple[LiveSeries, ...]
    unknown: tuple[str, ...]

    def rows(self) -> list[dict[str, object]]:
        """Return the present figures as rows: version, alias, window_days and figures."""
        return [
            {"version": item.label, "alias": item.alias, "window_days": days, **_whole(figures)}
            for item in self.series
            for days, figures in item.now.windows.items()
        ]


def _whole(figures: Figures) -> dict[str, float | int | None]:
    """Return the figures with counts as whole numbers."""
    counts = {name: int(figures[name] or 0) for name in ("labels", "intervals")}
    return {**figures, **counts}


def fill_and_measure(settings: Settings) -> tuple[LiveReport, int, int]:
    """Fill outcomes, measure every version that answered, and log whole days to MLflow.

    Returns
    -------
    tuple[LiveReport, int, int]
        The report, how many outcomes were new, and the market time.
    """
    from tradewind.ledger import fill_outcomes, open_clock, open_ledger
    from tradewind.market.ingest import store_for

    with open_ledger(settings) as ledger:
        now_ms = open_clock(settings, ledger).now_ms()
        added = fill_outcomes(settings, ledger, store_for(settings), now_ms)
        report, _ = measure_answers(settings, ledger, now_ms)
    return report, added, now_ms


def measure_answers(
    settings: Settings, ledger: Ledger, now_ms: int
) -> tuple[LiveReport, tuple[LiveSeries, ...]]:
    """Return the live metrics at ``now_ms``, and the series that MLflow had not all points of.

    An answer about bars that its version was made from (a replay set back) is no evidence and
    left out. Where nothing was said, MLflow is not asked.
    """
    from registry.tracking import Tracking
    from registry.versions import list_versions

    said = _answers(settings, ledger, now_ms)
    if not said.height:
        return LiveReport((), ()), ()
    tracking = Tracking(settings)
    versions = {version.label: version for version in list_versions(tracking)}
    report = _measured(settings, said, versions, now_ms)
    grown = tuple(item for item in report.series if _log(settings, tracking, item))
    return report, grown


def _answers(settings: Settings, ledger: Ledger, now_ms: int) -> pl.DataFrame:
    from tradewind.ledger.answers import spoken_answers

    live = settings.live_metrics
    # A label that ends within a window may have begun a horizon before it.
    days = live.history_days + max(live.window_days)
    ahead = (settings.training.horizon + 1) * settings.market.timeframe_ms
    return spoken_answers(
        ledger,
        horizon=settings.training.horizon,
        timeframe_ms=settings.market.timeframe_ms,
        since_ms=now_ms - days * MS_PER_DAY - ahead,
        now_ms=now_ms,
    )


def _measured(
    settings: Settings,
    said: pl.DataFrame,
    versions: Mapping[str, RegisteredVersion],
    now_ms: int,
) -> LiveReport:
    series: list[LiveSeries] = []
    unknown: set[str] = set()
    for (label, alias), rows in sorted(said.group_by(["label", "alias"], maintain_order=True)):
        members = sorted(set(rows["members"].explode().to_list()))
        missing = [name for name in members if name not in versions]
        if missing:
            unknown.update(missing)
            continue
        item = _series(settings, str(label), str(alias), rows, versions, members, now_ms)
        if item is not None:
            series.append(item)
    return LiveReport(tuple(series), tuple(sorted(unknown)))


def _series(
    settings: Settings,
    label: str,
    alias: str,
    rows: pl.DataFrame,
    versions: Mapping[str, RegisteredVersion],
    members: Sequence[str],
    now_ms: int,
) -> LiveSeries | None:
    import polars as pl

    from tradewind.models.live_metrics import Rules, midnights

    seen = max(seen_until(versions[name]) for name in members)
    fresh = rows.filter(pl.col("bar_ts") >= seen)
    if not fresh.height:
        return None
    served = served_rows(settings, fresh)
    rules = Rules(
        base_rate=sum(_base_rate(versions[name]) for name in members) / len(members),
        horizon=settings.training.horizon,
        ece_bins=settings.calibration.ece_bins,
        min_labels=settings.live_metrics.min_labels,
        epistemic_limit=settings.serving.epistemic_p_limit,
    )
    days = settings.live_metrics.history_days
    moments = midnights(served, now_ms, days)
    points = tuple(_point(settings, served, rules, at) for at in moments)
    now = _point(settings, served, rules, now_ms)
    return LiveSeries(label, alias, versions.get(label), points, now)


def _point(settings: Settings, served: Served, rules: Rules, at_ms: int) -> LivePoint:
    from tradewind.models.live_metrics import window_figures

    windows = {
        days: window_figures(served.within(at_ms, days), rules)
        for days in settings.live_metrics.window_days
    }
    return LivePoint(at_ms, windows)


def served_rows(settings: Settings, rows: pl.DataFrame) -> Served:
    """Return rows of `spoken_answers` as arrays; what was not logged is NaN."""
    import numpy as np

    from tradewind.models.live_metrics import Served

    ahead = (settings.training.horizon + 1) * settings.market.timeframe_ms
    ts = rows["bar_ts"].to_numpy()

    def column(name: str) -> np.ndarray:
        return rows[name].fill_null(float("nan")).to_numpy()

    return Served(
        ts=ts,
        known_ms=ts + ahead,
        p_up=column("p_up"),
        y=column("y_up"),
        fwd_ret=column("fwd_ret"),
        mu_low=column("mu_low"),
        mu_high=column("mu_high"),
        epistemic_p=column("epistemic_p"),
    )


def seen_until(version: RegisteredVersion) -> int:
    """Return from where on bars are new to a version, its calibrator included."""
    return max(int(version.tags["data_end_ms"]), int(version.tags.get("calibrated_end_ms", 0)))


def _base_rate(version: RegisteredVersion) -> float:
    return float(version.tags.get("base_rate", UNKNOWN_BASE_RATE))


def _log(settings: Settings, tracking: Tracking, item: LiveSeries) -> bool:
    """Log midnights that are not logged yet to the version's live run; tell whether any was.

    A point's time and step (days since 1970) are the market's, so the same point logged again
    after a kill is one point.
    """
    from registry.names import live_name

    version = item.version
    if version is None or not item.days:
        return False
    identity = {"kind": KIND, "version": item.label, "alias": item.alias}
    run_id = tracking.find_run(identity)
    until = int(tracking.run_tags(run_id).get(UNTIL_TAG, 0)) if run_id else 0
    new = [point for point in item.days if point.at_ms > until]
    if not new:
        return False
    with tracking.start_run(
        live_name(version.family, version.key, version.version, item.alias),
        run_id=run_id,
        parent_run_id=version.run_id,
        tags={
            **identity,
            "family": version.family,
            "model_key": version.key,
            "profile": settings.profile.value,
            "feature_version": version.tags.get("feature_version", "none"),
        },
        params={"version": item.label, "alias": item.alias},
        description=f"What became of the answers of {item.label} as {item.alias}, a point for "
        "each UTC midnight; the step counts days since 1970-01-01 and the time is the market's.",
    ) as run:
        run.log_points(point for day in new for point in _points(day))
        run.set_tags({UNTIL_TAG: new[-1].at_ms})
    return True


def _points(day: LivePoint) -> Iterator[tuple[str, float, int, int]]:
    for days, figures in day.windows.items():
        for name, value in figures.items():
            if value is not None:
                yield f"live_{days}d_{name}", value, day.at_ms, day.at_ms // MS_PER_DAY
