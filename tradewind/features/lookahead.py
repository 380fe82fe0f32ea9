"""Do the features know the future, and is what is served what was trained on?

Both checks recompute: a feature at bar t must not change when everything after t is removed
(look-ahead), nor when everything older than its history is (parity of batch and live).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from tradewind.clock import Clock, last_closed_bar
from tradewind.features._cross import references
from tradewind.features.compute import compute_features
from tradewind.features.definitions import (
    REQUIRED_FEATURES,
    WIDE,
    history_rows,
    longest_window,
)
from tradewind.features.reading import read_companions, reference_bars
from tradewind.features.samples import FeatureRow, warm_streak
from tradewind.market.store import BarStore
from tradewind.settings import Settings

Bars = Mapping[str, pl.DataFrame]
TOLERANCE = 1e-9
"""Of the specification: relative to the size of the feature."""

CHECK_ROWS = 672
CHECK_CUTS = 6


@dataclass(frozen=True)
class LookaheadReport:
    """What was compared, and by how much each differing column differs.

    ``differences`` has the greatest relative difference of every column (inf where one side
    has no number, or text differs); ``bad_values`` counts required features that are not
    finite in warm rows, where it was asked for.
    """

    rows: int
    cuts: int
    differences: dict[str, float] = field(default_factory=dict)
    bad_values: int = 0
    tolerance: float = TOLERANCE

    @property
    def offending(self) -> tuple[str, ...]:
        """Return the columns that differ by more than the tolerance, the worst first."""
        bad = {name: d for name, d in self.differences.items() if d > self.tolerance}
        return tuple(sorted(bad, key=lambda name: -bad[name]))

    @property
    def ok(self) -> bool:
        """Return whether nothing differs."""
        return not self.offending


def check_lookahead(
    compute: Callable[[Bars], pl.DataFrame],
    bars: Bars,
    *,
    cuts: Iterable[int],
    tolerance: float = TOLERANCE,
) -> LookaheadReport:
    """Compare features with those computed after the future of each cut is removed.

    Parameters
    ----------
    compute
        Bars by symbol to rows with a ``ts`` column; every other column is compared.
    bars
        Bars by symbol.
    cuts
        Open times; for each, bars that open later are removed and ALL rows up to it are
        compared, so that a feature that only peeks sometimes is found too.
    """
    full = compute(bars)
    differences: dict[str, float] = {}
    rows = 0
    moments = list(cuts)
    for cut in moments:
        past = compute({name: frame.filter(pl.col("ts") <= cut) for name, frame in bars.items()})
        expected = full.filter(pl.col("ts") <= cut)
        rows += expected.height
        _widen(differences, _differences(expected, past, full))
    return LookaheadReport(rows, len(moments), differences, tolerance=tolerance)


def check_parity(
    batch: pl.DataFrame, live: Sequence[FeatureRow], *, tolerance: float = TOLERANCE
) -> LookaheadReport:
    """Compare rows as they are served with the rows of a batch, for one symbol.

    Parameters
    ----------
    batch
        `compute_features` over a long history.
    live
        `FeatureView` rows of the same symbol.
    """
    served = pl.DataFrame(
        {
            "ts": [row.bar_ts for row in live],
            **{name: [float(row.wide[i]) for row in live] for i, name in enumerate(WIDE)},
            "close": [row.close for row in live],
            "atr": [row.atr for row in live],
        },
        schema_overrides={"ts": pl.Int64},
    ).sort("ts")
    expected = served.select("ts").join(batch, on="ts", how="left", maintain_order="left")
    expected = expected.select(served.columns)
    found = _differences(expected, served, batch)
    return LookaheadReport(served.height, len(live), found, tolerance=tolerance)


def check_store(
    settings: Settings,
    clock: Clock,
    symbol: str,
    *,
    store: BarStore | None = None,
    rows: int = CHECK_ROWS,
    cuts: int = CHECK_CUTS,
) -> LookaheadReport:
    """Check the newest ``rows`` bars of a symbol: look-ahead at ``cuts`` bars, and finiteness.

    ``bad_values`` counts infinities, and NaN of required features in rows whose history and
    windows are whole: a hole in the bars is a finding about bars, not about features.

    Raises
    ------
    TradewindError
        ``no_bars`` when the symbol was never stored.
    """
    if store is None:
        from tradewind.market.ingest import store_for

        store = store_for(settings)
    now, timeframe = clock.now_ms(), settings.market.timeframe
    own = store.read_bars(symbol, timeframe, until_ms=now, last=history_rows(settings) + rows)
    first = int(own["ts"][0]) if own.height else last_closed_bar(now, timeframe)
    bars = {symbol: own}
    for name in references(settings):
        if name not in bars:
            bars[name] = reference_bars(settings, store, name, start_ms=first, until_ms=now)
    companions = read_companions(store, symbol, start_ms=first, until_ms=now)

    def compute(given: Bars) -> pl.DataFrame:
        ends = given[symbol]["ts"].tail(1) + settings.market.timeframe_ms
        end = ends.max() if ends.len() else now
        known = {name: rows.filter(pl.col("ts") <= end) for name, rows in companions.items()}
        return compute_features(given, symbol, settings, **known)

    newest = own["ts"].tail(rows).to_numpy()
    places = np.unique(np.linspace(0, len(newest) - 1, num=cuts).astype(np.int64))
    moments = newest[places].tolist() if len(newest) else []
    report = check_lookahead(compute, bars, cuts=moments)
    bad = _bad_values(compute(bars), bars, settings, rows)
    return LookaheadReport(report.rows, report.cuts, report.differences, bad_values=bad)


def _bad_values(frame: pl.DataFrame, bars: Bars, settings: Settings, rows: int) -> int:
    present = np.all(
        [np.isin(frame["ts"].to_numpy(), other["ts"].to_numpy()) for other in bars.values()], axis=0
    )
    marked = frame.select("ts", pl.Series("warm", present))
    whole = warm_streak(marked, settings.market.timeframe_ms) > longest_window(settings)
    whole &= frame["history"].to_numpy() >= settings.features.warmup_bars
    nan = np.isnan(frame.select(REQUIRED_FEATURES).to_numpy()) & whole[:, None]
    infinite = np.isinf(frame.select(WIDE).to_numpy())
    return int(nan[-rows:].sum() + infinite[-rows:].sum())


def _differences(
    expected: pl.DataFrame, found: pl.DataFrame, whole: pl.DataFrame
) -> dict[str, float]:
    """Return each column's greatest difference over its size; inf for what cannot be equal."""
    columns = [name for name in expected.columns if name != "ts"]
    if expected.columns != found.columns or not expected["ts"].equals(found["ts"]):
        return dict.fromkeys(columns, float("inf"))
    return {name: _difference(expected[name], found[name], whole[name]) for name in columns}


def _difference(expected: pl.Series, found: pl.Series, whole: pl.Series) -> float:
    if not expected.dtype.is_float():
        return 0.0 if expected.equals(found, null_equal=True) else float("inf")
    left, right = expected.to_numpy(), found.to_numpy()
    known = np.isfinite(left)
    if not np.array_equal(known, np.isfinite(right)) or np.any(np.isinf(left) != np.isinf(right)):
        return float("inf")
    if not known.any():
        return 0.0
    values = whole.to_numpy()
    # A feature that crosses zero has no relative error there: its usual size is the measure.
    size = float(np.median(np.abs(values[np.isfinite(values)]))) or 1.0
    scale = np.maximum(np.maximum(np.abs(left[known]), np.abs(right[known])), size)
    return float(np.max(np.abs(left[known] - right[known]) / scale))


def _widen(worst: dict[str, float], found: Mapping[str, float]) -> None:
    for name, value in found.items():
        worst[name] = max(worst.get(name, 0.0), value)
