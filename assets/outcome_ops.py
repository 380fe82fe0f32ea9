"""Ops that look back: what became of the predictions that serving logged."""

# No postponed annotations here: Dagster reads the type of `context` as it stands.

from typing import Any

from dagster import AssetObservation, In, Nothing, OpExecutionContext, op

from assets.found import found
from assets.keys import family_key
from assets.platform import Platform
from assets.steps import live_metrics
from assets.units import plan_units


@op(description="Realised returns of the logged predictions whose horizon has passed.")
def fill_outcomes(context: OpExecutionContext, platform: Platform) -> dict[str, Any]:
    """Store every outcome that the closed bars tell by now; a repeat adds only what is new."""
    from tradewind.ledger import fill_outcomes as fill
    from tradewind.ledger import open_clock, open_ledger
    from tradewind.market.ingest import store_for

    settings = platform.settings
    with open_ledger(settings) as ledger:
        now_ms = open_clock(settings, ledger).now_ms()
        added = fill(settings, ledger, store_for(settings), now_ms)
    context.log.info("%d outcomes stored at market time %d", added, now_ms)
    return {"outcomes": added, "now_ms": now_ms}


@op(
    ins={"filled": In(Nothing)},
    description="Live metrics of every version that answered, over rolling windows.",
)
def measure_answers(context: OpExecutionContext, platform: Platform) -> list[dict[str, Any]]:
    """Show the figures as a table and a picture; log each new midnight to MLflow."""
    from tradewind.ledger import open_clock, open_ledger

    settings = platform.settings
    with open_ledger(settings) as ledger:
        now_ms = open_clock(settings, ledger).now_ms()
        report, grown = live_metrics.measure_answers(settings, ledger, now_ms)
    for label in report.unknown:
        context.log.warning("%s answered and is not registered: it is left out", label)
    context.add_output_metadata(_shown(platform, report))
    names = {unit.name for unit in plan_units(settings)}
    for name in sorted({item.version.name for item in grown if item.version}):
        own = tuple(i for i in report.series if i.version is not None and i.version.name == name)
        version = own[0].version
        # An observation needs a unit of the asset graph; others are in the op's own metadata.
        if name not in names or version is None:
            continue
        shown = _shown(platform, live_metrics.LiveReport(own, ()))
        context.log_event(
            AssetObservation(
                family_key(version.family, "evaluation"), partition=version.key, metadata=shown
            )
        )
    return report.rows()


def _shown(platform: Platform, report: live_metrics.LiveReport) -> dict[str, Any]:
    import polars as pl

    from assets.steps.live_plots import live_plot

    windows = platform.settings.live_metrics.window_days
    middle = windows[len(windows) // 2]
    drawn = any(item.days for item in report.series)
    plots = {"live_over_time": live_plot(report.series, middle)} if drawn else {}
    return found(pl.DataFrame(report.rows(), infer_schema_length=None), plots)
