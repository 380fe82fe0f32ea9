"""Assets of the data tier: bars of a symbol, and its features."""

# No postponed annotations here: Dagster reads the type of `context` as it stands.

from datetime import UTC, datetime, timedelta

from dagster import (
    AssetExecutionContext,
    AutomationCondition,
    FreshnessPolicy,
    MaterializeResult,
    asset,
)

from assets.config import IngestConfig
from assets.keys import BARS
from assets.metadata import figures
from assets.partitions import symbols_partition
from assets.platform import Platform
from tradewind.clock import Clock, last_closed_bar
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import Settings, load_settings

GROUP = "market"
LATE_BARS, TOO_LATE_BARS = 2, 4
"""Bars without a new materialisation after which the graph warns, and fails."""


def bar_freshness() -> FreshnessPolicy:
    """Return how long bars and features stay fresh, counted in bars of the timeframe."""
    bar = timedelta(milliseconds=load_settings().market.timeframe_ms)
    return FreshnessPolicy.time_window(fail_window=TOO_LATE_BARS * bar, warn_window=LATE_BARS * bar)


FRESH = bar_freshness()


@asset(
    key=BARS,
    partitions_def=symbols_partition,
    group_name=GROUP,
    kinds={"parquet", "polars"},
    pool="exchange",
    owners=["team:data"],
    code_version="1",
    freshness_policy=FRESH,
    description="Closed bars and funding of a symbol, in monthly Parquet partitions.",
)
def bars(
    context: AssetExecutionContext, platform: Platform, config: IngestConfig
) -> MaterializeResult[None]:
    """Read what is new from the source; repeating it changes no byte.

    Reference symbols that are behind are read too: the features of every symbol need them,
    so that each partition can be materialised alone.
    """
    from tradewind.market.ingest import run_ingest

    settings, clock = platform.settings, platform.clock()
    symbol = context.partition_key
    report = run_ingest(
        settings,
        clock,
        symbols=[symbol, *_behind(settings, clock, besides=symbol)],
        since_ms=_since_ms(config.since),
    )
    done = next(item for item in report.symbols if item.symbol == symbol)
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
    freshness_policy=FRESH,
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


def _behind(settings: Settings, clock: Clock, *, besides: str) -> list[str]:
    """Return the reference symbols whose newest closed bar is not stored yet."""
    from tradewind.market.ingest import store_for

    store, timeframe = store_for(settings), settings.market.timeframe
    newest = last_closed_bar(clock.now_ms(), timeframe)
    return [
        name
        for name in settings.market.reference_symbols
        if name != besides and (store.last_ts(name, timeframe) or 0) < newest
    ]


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
