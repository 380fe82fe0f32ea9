"""Assets of the data tier: bars and companion series of a symbol, and its features."""

# No postponed annotations here: Dagster reads the type of `context` as it stands.

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetSpec,
    AutomationCondition,
    FreshnessPolicy,
    MaterializeResult,
    RetryRequested,
    asset,
    multi_asset,
)

from assets.config import IngestConfig
from assets.keys import BARS, COMPANIONS, FEATURES
from assets.metadata import figures
from assets.partitions import symbols_partition
from assets.platform import Platform
from tradewind.clock import Clock, last_closed_bar, parse_day
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import TIMEFRAME_MS, Settings, load_settings

if TYPE_CHECKING:
    from tradewind.market.ingest import IngestReport, SeriesIngest, SymbolIngest

GROUP = "market"
LATE_BARS, TOO_LATE_BARS = 2, 4
"""Bars without a new materialisation after which the graph warns, and fails."""
SCHEDULE_TAG = "dagster/schedule_name"
SERIES_TEXTS = {
    "funding": "Funding rate of a symbol's perpetual contract, every few hours.",
    "open_interest": "Open interest of a symbol; exchanges keep its history for weeks only.",
    "long_short_ratio": "Accounts that are long over those that are short, of a symbol.",
}
EXCHANGE_HAS_NONE = "no: the source has none; the features that need it are null"


def bar_freshness() -> FreshnessPolicy:
    """Return how long bars and features stay fresh, counted in bars of the timeframe."""
    bar = timedelta(milliseconds=load_settings().market.timeframe_ms)
    return FreshnessPolicy.time_window(fail_window=TOO_LATE_BARS * bar, warn_window=LATE_BARS * bar)


FRESH = bar_freshness()


def _stored(key: AssetKey, description: str) -> AssetSpec:
    return AssetSpec(
        key,
        description=description,
        group_name=GROUP,
        kinds={"parquet", "polars"},
        owners=["team:data"],
        code_version="2",
        freshness_policy=FRESH,
        partitions_def=symbols_partition,
    )


@multi_asset(
    name="bars",
    specs=[
        _stored(BARS, "Closed bars of a symbol, in monthly Parquet partitions."),
        *(_stored(key, SERIES_TEXTS[key.path[-1]]) for key in COMPANIONS),
    ],
    partitions_def=symbols_partition,
    can_subset=True,
    pool="exchange",
)
def bars(
    context: AssetExecutionContext, platform: Platform, config: IngestConfig
) -> Iterator[MaterializeResult[None]]:
    """Read what is new from the source, each kind that is selected, over one connection.

    Repeating it changes no byte. Reference symbols that are behind are read too: the
    features of every symbol need them, so that each partition can be materialised alone.
    An exchange that cannot be reached is asked again later; any other error fails at once.
    """
    settings, symbol = platform.settings, context.partition_key
    clock = platform.clock()
    if SCHEDULE_TAG in context.run.tags:
        _let_the_bar_settle(settings, clock)
    try:
        report = _fetch(context, settings, clock, config)
    except TradewindError as error:
        raise _later(context, settings, error.code, str(error)) or error from error
    done = next(item for item in report.symbols if item.symbol == symbol)
    for other in report.symbols:
        if other.error is not None and other is not done:
            context.log.warning("reference symbol %s: %s", other.symbol, other.error)
    if done.error is not None:
        later = _later(context, settings, done.error_code, done.error)
        if later is not None:
            raise later
    if BARS in context.selected_asset_keys and done.last_ts is not None:
        yield _bars_result(report, done)
    if done.error is not None:
        raise TradewindError(
            done.error_code or ErrorCode.NO_BARS,
            f"{done.symbol} could not be ingested: {done.error}",
            "Correct the cause and materialise this partition again; other symbols went on",
        )
    yield from _series_results(context, report, done)


@asset(
    key=FEATURES,
    deps=[BARS, *COMPANIONS],
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
    from tradewind.features.regime_log import record_regimes
    from tradewind.features.view import FeatureView
    from tradewind.market.ingest import store_for

    settings, clock = platform.settings, platform.clock()
    store = store_for(settings)
    row = FeatureView(settings, store, clock).latest(context.partition_key)
    changes = record_regimes(settings, store, row.symbol, until_ms=clock.now_ms())
    return MaterializeResult(
        metadata=figures(
            {
                "bar_ms": row.bar_ts,
                "feature_version": row.feature_version,
                "fingerprint": row.fingerprint,
                "staleness_s": row.staleness_s,
                "regime": row.regime,
                "regime_computed": str(row.regime_computed),
                **{f"regime_{r.timeframe}": r.regime.value for r in row.regimes},
                "regime_confidence": row.regimes[0].confidence,
                **{f"regime_{name}_changes": count for name, count in changes.items()},
                **{
                    name: float(value)
                    for name, value in zip(DEEP, row.wide[: len(DEEP)], strict=True)
                },
            }
        )
    )


def _fetch(
    context: AssetExecutionContext, settings: Settings, clock: Clock, config: IngestConfig
) -> "IngestReport":
    from tradewind.market.ingest import ALL_KINDS, run_ingest

    selected = {key.path[-1] for key in context.selected_asset_keys}
    kinds = [kind for kind in ALL_KINDS if kind in selected]
    symbol = context.partition_key
    behind = _behind(settings, clock, besides=symbol) if "bars" in kinds else []
    since_ms = parse_day(config.since, "since") if config.since else None
    return run_ingest(settings, clock, symbols=[symbol, *behind], since_ms=since_ms, kinds=kinds)


def _bars_result(report: "IngestReport", done: "SymbolIngest") -> MaterializeResult[None]:
    return MaterializeResult(
        asset_key=BARS,
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
        ),
    )


def _series_results(
    context: AssetExecutionContext, report: "IngestReport", done: "SymbolIngest"
) -> Iterator[MaterializeResult[None]]:
    """Yield a result for each selected companion; one the source lacks says so."""
    found: dict[str, SeriesIngest] = {series.kind: series for series in done.series}
    for key in COMPANIONS:
        if key not in context.selected_asset_keys:
            continue
        series = found.get(key.path[-1])
        shown: dict[str, str | int | None] = {
            "available": EXCHANGE_HAS_NONE,
            "source": report.source_name,
        }
        if series is not None:
            shown = {
                "available": "yes",
                "added": series.added,
                "replaced": series.replaced,
                "unusable": series.unusable,
                "last_ms": series.last_ts,
                "source": report.source_name,
            }
        yield MaterializeResult(asset_key=key, metadata=figures(shown))


def _let_the_bar_settle(settings: Settings, clock: Clock) -> None:
    """Wait for the rest of the seconds in which an exchange may still correct the new bar."""
    if settings.clock != "wall":
        return
    since_close_s = clock.now_ms() % TIMEFRAME_MS[settings.market.timeframe] / 1000
    time.sleep(max(0.0, settings.market.close_delay_s - since_close_s))


def _later(
    context: AssetExecutionContext, settings: Settings, code: ErrorCode | None, text: str
) -> RetryRequested | None:
    """Return the request for another try, for an exchange out of reach while tries are left."""
    market, tried = settings.market, context.retry_number
    if code is not ErrorCode.EXCHANGE_UNREACHABLE or tried >= market.run_retries:
        return None
    wait_s = market.run_retry_wait_s * 2**tried
    context.log.warning("%s; another try in %g s", text, wait_s)
    return RetryRequested(max_retries=market.run_retries, seconds_to_wait=wait_s)


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
