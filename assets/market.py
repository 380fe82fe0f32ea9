"""Assets of the data tier: bars of a symbol, and its features."""

from __future__ import annotations

from datetime import UTC, datetime

from dagster import AssetExecutionContext, AutomationCondition, MaterializeResult, asset

from assets.config import IngestConfig
from assets.keys import BARS
from assets.metadata import figures
from assets.partitions import symbols_partition
from assets.platform import Platform
from tradewind.errors import ErrorCode, TradewindError

GROUP = "market"


@asset(
    key=BARS,
    partitions_def=symbols_partition,
    group_name=GROUP,
    kinds={"parquet", "polars"},
    pool="exchange",
    owners=["team:data"],
    code_version="1",
    description="Closed bars and funding of a symbol, in monthly Parquet partitions.",
)
def bars(
    context: AssetExecutionContext, platform: Platform, config: IngestConfig
) -> MaterializeResult[None]:
    """Read what is new from the source; repeating it changes no byte."""
    from tradewind.market.ingest import run_ingest

    since_ms = _since_ms(config.since)
    report = run_ingest(
        platform.settings, platform.clock(), symbols=[context.partition_key], since_ms=since_ms
    )
    done = report.symbols[0]
    if done.error is not None:
        raise TradewindError(
            ErrorCode.NO_BARS,
            f"{done.symbol} could not be ingested: {done.error}",
            "Correct the cause and materialise this partition again; other symbols went on",
        )
    return MaterializeResult(
        metadata=figures(
            {
                "added": done.added,
                "replaced": done.replaced,
                "quarantined": done.quarantined,
                "gaps": done.gaps,
                "last_bar_ms": done.last_ts,
                "source": report.source_name,
                "simulated": str(report.simulated),
            }
        )
    )


@asset(
    deps=[BARS],
    partitions_def=symbols_partition,
    group_name=GROUP,
    kinds={"polars"},
    owners=["team:data"],
    code_version="1",
    automation_condition=AutomationCondition.eager().with_label("follow_new_bars"),
    description="Features of a symbol's newest closed bar, from the code that serving uses.",
)
def features(context: AssetExecutionContext, platform: Platform) -> MaterializeResult[None]:
    """Compute the newest row; figures show what a model would see now."""
    from tradewind.features.definitions import DEEP
    from tradewind.features.view import FeatureView
    from tradewind.market.ingest import store_for

    settings = platform.settings
    row = FeatureView(settings, store_for(settings), platform.clock()).latest(context.partition_key)
    return MaterializeResult(
        metadata=figures(
            {
                "bar_ms": row.bar_ts,
                "feature_version": row.feature_version,
                "fingerprint": row.fingerprint,
                "staleness_s": row.staleness_s,
                "regime": row.regime,
                "regime_computed": str(row.regime_computed),
                **{
                    name: float(value)
                    for name, value in zip(DEEP, row.wide[: len(DEEP)], strict=True)
                },
            }
        )
    )


def _since_ms(since: str | None) -> int | None:
    if not since:
        return None
    try:
        day = datetime.strptime(since, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise TradewindError(
            ErrorCode.BAD_INPUT,
            f"since = {since!r} is not a date",
            "Write it as 2025-01-31 (UTC)",
        ) from error
    return int(day.timestamp() * 1000)
