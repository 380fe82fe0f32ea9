"""Whether bars can be believed: pure functions over frames, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tradewind.clock import staleness_s
from tradewind.market.schema import BARS, QUARANTINE, VALUES, conform
from tradewind.settings import TIMEFRAME_MS

OUTLIER_Z = 20.0
MAD_TO_STD = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class BarQuality:
    """Figures of one symbol's bars, for asset checks; shares are of 0..1.

    ``gap_share`` is the missing part of the span's bars; ``outliers`` counts returns with a
    robust z-score over 20 (flagged, never removed); ``staleness_s`` is infinite without bars.
    """

    schema_ok: bool
    rows: int
    first_ts: int | None
    last_ts: int | None
    duplicates: int
    unordered: int
    gaps: int
    gap_share: float
    zero_volume_share: float
    outliers: int
    ohlc_violations: int
    bad_values: int
    staleness_s: float


def split_bad(
    frame: pl.DataFrame, timeframe: str, now_ms: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split bars into believable ones and ones to quarantine.

    Parameters
    ----------
    frame
        Bars in any order and of any quality; values that are no numbers count as missing.
    timeframe
        Length of a bar, such as ``15m``.
    now_ms
        Market time. A bar that has opened and not yet closed is in neither result.

    Returns
    -------
    tuple of DataFrame
        Good bars (sorted, one per ``ts``, the last given one wins) and bad bars with ``reason``.
    """
    step = TIMEFRAME_MS[timeframe]
    bars = conform(frame, BARS, "a frame of bars")
    ts = pl.col("ts")
    on_grid = ts % step == 0
    unfinished = on_grid & (ts <= now_ms) & (ts + step > now_ms)
    judged = bars.filter(~unfinished.fill_null(value=False)).with_columns(
        _reason(step, now_ms).alias("reason")
    )
    good = (
        judged.filter(pl.col("reason").is_null())
        .select(list(BARS))
        .unique("ts", keep="last", maintain_order=True)
        .sort("ts")
    )
    bad = judged.filter(pl.col("reason").is_not_null()).select(list(QUARANTINE))
    return good, bad.unique(maintain_order=True)


def _reason(step: int, now_ms: int) -> pl.Expr:
    ts, volume = pl.col("ts"), pl.col("volume")
    prices = [pl.col(name) for name in VALUES[:4]]
    values = [*prices, volume]
    return (
        pl.when(ts.is_null())
        .then(pl.lit("missing_ts"))
        .when(pl.any_horizontal([value.is_null() | value.is_nan() for value in values]))
        .then(pl.lit("nan"))
        .when(pl.any_horizontal([value.is_infinite() for value in values]))
        .then(pl.lit("infinite"))
        .when(ts % step != 0)
        .then(pl.lit("off_grid"))
        .when(ts > now_ms)
        .then(pl.lit("future"))
        .when(pl.any_horizontal([price <= 0 for price in prices]))
        .then(pl.lit("price_not_positive"))
        .when(volume < 0)
        .then(pl.lit("negative_volume"))
        .when(pl.col("high") < pl.col("low"))
        .then(pl.lit("high_below_low"))
        .when(_inconsistent())
        .then(pl.lit("ohlc_inconsistent"))
    )


def _inconsistent() -> pl.Expr:
    high, low = pl.col("high"), pl.col("low")
    body_high = pl.max_horizontal("open", "close")
    body_low = pl.min_horizontal("open", "close")
    return (high < body_high) | (low > body_low)


def find_gaps(ts: pl.Series, timeframe: str) -> pl.DataFrame:
    """Return holes inside a series of open times, never before its first or after its last.

    Parameters
    ----------
    ts
        Open times in ms, any order, repeats allowed.
    timeframe
        Length of a bar.

    Returns
    -------
    DataFrame
        ``from_ts`` and ``to_ts`` (open times of the first and last missing bar), ``bars``.
    """
    step = TIMEFRAME_MS[timeframe]
    times = pl.DataFrame({"ts": ts.cast(pl.Int64)}).drop_nulls().unique().sort("ts")
    return (
        times.with_columns(pl.col("ts").shift(-1).alias("next"))
        .filter(pl.col("next") - pl.col("ts") > step)
        .select(
            from_ts=pl.col("ts") + step,
            to_ts=pl.col("next") - step,
            bars=(pl.col("next") - pl.col("ts")) // step - 1,
        )
    )


def bar_quality(frame: pl.DataFrame, timeframe: str, now_ms: int) -> BarQuality:
    """Return the figures of one symbol's bars as they are, without correcting anything."""
    schema_ok = dict(frame.schema) == dict(BARS)
    bars = conform(frame, BARS, "a frame of bars")
    ts = bars["ts"].drop_nulls()
    gaps = find_gaps(ts, timeframe)
    missing = int(gaps["bars"].sum())
    distinct = ts.n_unique()
    first, last = _ends(ts)
    return BarQuality(
        schema_ok=schema_ok,
        rows=bars.height,
        first_ts=first,
        last_ts=last,
        duplicates=ts.len() - distinct,
        unordered=int((ts.diff() < 0).sum()),
        gaps=gaps.height,
        gap_share=missing / (distinct + missing) if distinct else 0.0,
        zero_volume_share=_share(bars["volume"] == 0),
        outliers=robust_z(bars).filter(is_outlier()).height,
        ohlc_violations=bars.filter(breaks_ohlc()).height,
        bad_values=_bad_values(bars),
        staleness_s=float("inf") if last is None else staleness_s(now_ms, last, timeframe),
    )


def _ends(ts: pl.Series) -> tuple[int | None, int | None]:
    if ts.is_empty():
        return None, None
    values = ts.to_numpy()
    return int(values.min()), int(values.max())


def _share(flags: pl.Series) -> float:
    return int(flags.sum()) / flags.len() if flags.len() else 0.0


def _bad_values(bars: pl.DataFrame) -> int:
    finite = pl.all_horizontal([pl.col(name).is_finite().fill_null(value=False) for name in VALUES])
    return bars.filter(~finite | pl.col("ts").is_null()).height


def robust_z(bars: pl.DataFrame) -> pl.DataFrame:
    """Return the log return of each bar and its robust z (median and MAD over the frame).

    Returns
    -------
    DataFrame
        ts, log_return, z; bars without a positive close are left out, and where most returns
        are equal there is no scale, and no row.
    """
    usable = bars.filter(pl.col("close").is_finite() & (pl.col("close") > 0)).sort("ts")
    returns = np.diff(np.log(usable["close"].to_numpy()))
    schema = {"ts": pl.Int64, "log_return": pl.Float64, "z": pl.Float64}
    if returns.size == 0:
        return pl.DataFrame(schema=schema)
    centred = returns - np.median(returns)
    scale = MAD_TO_STD * np.median(np.abs(centred))
    if scale == 0:
        return pl.DataFrame(schema=schema)
    return pl.DataFrame(
        {"ts": usable["ts"][1:], "log_return": returns, "z": centred / scale}, schema=schema
    )


def is_outlier() -> pl.Expr:
    """Say of rows of `robust_z` whether the return is flagged."""
    return pl.col("z").abs() > OUTLIER_Z


def breaks_ohlc() -> pl.Expr:
    """Say of bars whether the high is not the greatest price or the low not the least."""
    return (pl.col("high") < pl.col("low")) | _inconsistent()
