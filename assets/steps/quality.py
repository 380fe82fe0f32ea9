"""Whether the stored bars and the features made of them can be believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tradewind.clock import Clock
from tradewind.settings import Settings


@dataclass(frozen=True)
class Verdict:
    """One thing looked at, with its figures."""

    name: str
    passed: bool
    figures: dict[str, Any]


def bar_verdicts(settings: Settings, clock: Clock, symbol: str) -> Iterator[Verdict]:
    """Look at every closed bar of a symbol in the store.

    Raises
    ------
    TradewindError
        ``no_bars`` when the symbol was never stored, ``corrupt_file``.
    """
    from tradewind.market.ingest import store_for
    from tradewind.market.quality import bar_quality

    now_ms, timeframe = clock.now_ms(), settings.market.timeframe
    store = store_for(settings)
    limits = settings.quality
    found = bar_quality(store.read_bars(symbol, timeframe, until_ms=now_ms), timeframe, now_ms)
    yield Verdict("schema", found.schema_ok and found.rows > 0, {"rows": found.rows})
    yield Verdict("unique", found.duplicates == 0, {"duplicates": found.duplicates})
    yield Verdict("monotone", found.unordered == 0, {"unordered": found.unordered})
    yield Verdict("ohlc", found.ohlc_violations == 0, {"violations": found.ohlc_violations})
    yield Verdict("values", found.bad_values == 0, {"bad_values": found.bad_values})
    yield Verdict(
        "gaps",
        found.gap_share <= limits.max_gap_share,
        {"gaps": found.gaps, "gap_share": found.gap_share, "limit": limits.max_gap_share},
    )
    stale_limit = settings.serving.staleness_limit_s
    yield Verdict(
        "staleness",
        found.staleness_s <= stale_limit,
        {
            "last_bar_ms": found.last_ts,
            # JSON has no infinity; without bars there is no age to show
            "staleness_s": found.staleness_s if found.rows else None,
            "limit_s": stale_limit,
        },
    )
    yield Verdict(
        "zero_volume",
        found.zero_volume_share <= limits.max_zero_volume_share,
        {"share": found.zero_volume_share, "limit": limits.max_zero_volume_share},
    )
    yield Verdict(
        "outliers",
        found.outliers <= limits.max_outlier_share * found.rows,
        {"outliers": found.outliers, "limit_share": limits.max_outlier_share},
    )
    yield _alignment(settings, symbol, now_ms)


def feature_verdicts(settings: Settings, clock: Clock, symbol: str) -> Iterator[Verdict]:
    """Look at a sample of a symbol's features: finite, and blind to the future.

    Raises
    ------
    TradewindError
        ``not_enough_bars``, ``no_bars``.
    """
    from tradewind.features.lookahead import check_store

    report = check_store(settings, clock, symbol)
    yield Verdict(
        "finite", report.bad_values == 0, {"bad_values": report.bad_values, "rows": report.rows}
    )
    yield Verdict(
        "look_ahead",
        not report.offending,
        {"cuts": report.cuts, "offending": ", ".join(report.offending) or "none"},
    )


def _alignment(settings: Settings, symbol: str, now_ms: int) -> Verdict:
    """Compare the newest bar with the references': cross-asset features need all of them."""
    from tradewind.market.ingest import store_for

    store, timeframe = store_for(settings), settings.market.timeframe
    own = store.last_ts(symbol, timeframe)
    lag: dict[str, int | None] = {}
    for reference in settings.market.reference_symbols:
        last = store.last_ts(reference, timeframe) if reference != symbol else own
        lag[reference] = (
            None if last is None or own is None else (own - last) // settings.market.timeframe_ms
        )
    return Verdict(
        "alignment",
        all(value == 0 for value in lag.values()),
        {
            f"bars_behind_{name}": "no bars" if value is None else value
            for name, value in lag.items()
        },
    )
