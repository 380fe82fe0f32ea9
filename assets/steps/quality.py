"""Whether the stored bars and the features made of them can be believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from tradewind.clock import Clock
from tradewind.settings import Settings

if TYPE_CHECKING:
    from tradewind.market.quality import BarQuality
    from tradewind.market.store import BarStore

SHOWN_ROWS = 50


@dataclass(frozen=True)
class Verdict:
    """One thing looked at: its figures, the rows behind them, pictures (PNG) by name."""

    name: str
    passed: bool
    figures: dict[str, Any]
    rows: pl.DataFrame | None = None
    plots: Mapping[str, bytes] = field(default_factory=dict)


def bar_verdicts(settings: Settings, clock: Clock, symbol: str) -> Iterator[Verdict]:
    """Look at every closed bar of a symbol in the store.

    Raises
    ------
    TradewindError
        ``no_bars`` when the symbol was never stored, ``corrupt_file``.
    """
    from tradewind.market import findings
    from tradewind.market.ingest import store_for
    from tradewind.market.quality import bar_quality

    now_ms, timeframe = clock.now_ms(), settings.market.timeframe
    store = store_for(settings)
    bars = store.read_bars(symbol, timeframe, until_ms=now_ms)
    found = bar_quality(bars, timeframe, now_ms)
    yield Verdict(
        "schema",
        found.schema_ok and found.rows > 0,
        {
            "rows": found.rows,
            "columns": ", ".join(f"{name} {dtype}" for name, dtype in bars.schema.items()),
            "first_bar_ms": found.first_ts,
            "last_bar_ms": found.last_ts,
        },
    )
    rows = {"rows": found.rows}
    twice = bars.filter(pl.col("ts").is_duplicated()).head(SHOWN_ROWS)
    yield Verdict("unique", found.duplicates == 0, {"duplicates": found.duplicates, **rows}, twice)
    yield Verdict("monotone", found.unordered == 0, {"unordered": found.unordered, **rows})
    wrong = findings.bad_ohlc(bars) if found.ohlc_violations else None
    yield Verdict(
        "ohlc", found.ohlc_violations == 0, {"violations": found.ohlc_violations, **rows}, wrong
    )
    yield Verdict("values", found.bad_values == 0, {"bad_values": found.bad_values, **rows})
    yield _gaps(settings, store, symbol, bars, found)
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
    limits = settings.quality
    yield Verdict(
        "zero_volume",
        found.zero_volume_share <= limits.max_zero_volume_share,
        {
            "bars": round(found.zero_volume_share * found.rows),
            "share": found.zero_volume_share,
            "limit": limits.max_zero_volume_share,
        },
        findings.without_volume(bars) if found.zero_volume_share else None,
    )
    yield _outliers(settings, symbol, bars, found)
    yield _alignment(settings, store, symbol, bars["ts"], now_ms)


def _gaps(
    settings: Settings, store: BarStore, symbol: str, bars: pl.DataFrame, found: BarQuality
) -> Verdict:
    """Compare the span's bars with the grid; holes that the source confirmed are its own."""
    from assets.steps.data_plots import coverage_plot
    from tradewind.market.findings import coverage_by_month

    timeframe, limit = settings.market.timeframe, settings.quality.max_gap_share
    holes = store.gaps(symbol).filter(pl.col("timeframe") == timeframe)
    figures = {
        "gaps": found.gaps,
        "confirmed": int(holes["confirmed"].sum()),
        "missing_bars": int(holes["bars"].sum()),
        "gap_share": found.gap_share,
        "limit": limit,
    }
    plots = {}
    if found.gaps:
        months = coverage_by_month(bars["ts"].unique().sort(), timeframe)
        plots["coverage"] = coverage_plot(months, f"{symbol} {timeframe}: stored share by month")
    shown = holes.drop("symbol", "timeframe").tail(SHOWN_ROWS)
    return Verdict("gaps", found.gap_share <= limit, figures, shown, plots)


def _outliers(settings: Settings, symbol: str, bars: pl.DataFrame, found: BarQuality) -> Verdict:
    """Flag returns far outside the rest; they may be true, so none is removed."""
    from assets.steps.data_plots import outlier_plot
    from tradewind.market.findings import outliers
    from tradewind.market.quality import OUTLIER_Z, robust_z

    limit = settings.quality.max_outlier_share
    figures = {"outliers": found.outliers, "limit_share": limit, "robust_z_limit": OUTLIER_Z}
    passed = found.outliers <= limit * found.rows
    if not found.outliers:
        return Verdict("outliers", passed, figures)
    title = (
        f"{symbol} {settings.market.timeframe}: {found.outliers} returns with a robust z over 20"
    )
    plots = {"robust_z": outlier_plot(robust_z(bars), title)}
    return Verdict("outliers", passed, figures, outliers(bars), plots)


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


def _alignment(
    settings: Settings, store: BarStore, symbol: str, own: pl.Series, now_ms: int
) -> Verdict:
    """Compare with the references: cross-asset features need their bars at the same times."""
    from tradewind.errors import ErrorCode, TradewindError
    from tradewind.market.findings import missing_in

    timeframe, step = settings.market.timeframe, settings.market.timeframe_ms
    figures: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    aligned = True
    for reference in settings.market.reference_symbols:
        try:
            other = own
            if reference != symbol:
                other = store.read_bars(reference, timeframe, until_ms=now_ms)["ts"]
        except TradewindError as error:
            if error.code is not ErrorCode.NO_BARS:
                raise
            other = own.clear()
        behind: int | str = "no bars"
        if own.len() and other.len():
            behind = (int(own[-1]) - int(other[-1])) // step
        missing = missing_in(own, other)
        aligned &= behind == 0
        figures[f"bars_behind_{reference}"] = behind
        figures[f"missing_in_{reference}"] = missing
        last = int(other[-1]) if other.len() else None
        rows.append({"reference": reference, "last_ts": last, "missing_bars": missing})
    return Verdict("alignment", aligned, figures, pl.DataFrame(rows))
