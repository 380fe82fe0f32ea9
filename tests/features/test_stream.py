"""Bar by bar equals the batch, at any cut, over holes, with companion series."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from tests.support.features import STEP, SYMBOLS, close_of, market, real_bars, small_settings
from tests.support.synthetic import START_MS
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.compute import compute_features
from tradewind.features.definitions import WIDE
from tradewind.features.stream import FeatureStream, StreamBar
from tradewind.settings import Settings, load_settings

Bars = dict[str, pl.DataFrame]
Floats = NDArray[np.float64]
TOLERANCE = 1e-9


def stream_bars(frame: pl.DataFrame) -> list[StreamBar]:
    return [StreamBar._make(row) for row in frame.select(StreamBar._fields).iter_rows()]


def closes(bars: Bars) -> dict[str, dict[int, float]]:
    return {name: dict(bars[name].select("ts", "close").iter_rows()) for name in SYMBOLS}


def streamed(
    stream: FeatureStream, bars: Bars, symbol: str, first: int, end: int
) -> tuple[Floats, list[bool], list[int]]:
    """Feed rows ``first`` to ``end``; return their wide rows, warm flags and histories."""
    known, rows, due = closes(bars), [], None
    for bar in stream_bars(bars[symbol][first:end]):
        for ts in range(due or bar.ts, bar.ts, STEP):
            stream.skip(ts, {name: of.get(ts, math.nan) for name, of in known.items()})
        now = {name: of.get(bar.ts, math.nan) for name, of in known.items()}
        rows.append(stream.update(bar, now))
        due = bar.ts + STEP
    wide = np.stack([row.wide for row in rows])
    return wide, [row.warm for row in rows], [row.history for row in rows]


def worst(batch: Floats, live: Floats, size: Floats) -> float:
    """Return the greatest difference, relative to the value or to the feature's usual size."""
    assert np.array_equal(np.isnan(batch), np.isnan(live))
    scale = np.maximum(np.maximum(np.abs(batch), np.abs(live)), size)
    return float(np.nanmax(np.abs(batch - live) / scale))


def usual_size(wide: Floats) -> Floats:
    known = np.where(np.isnan(wide).all(axis=0), 1.0, wide)
    size: Floats = np.nanmedian(np.abs(known), axis=0)
    return np.where(size > 0, size, 1.0)


def companions(count: int) -> Bars:
    rng = np.random.default_rng(8)
    hours, eighth = 4 * STEP * 4, 8 * STEP * 4
    times = START_MS + hours * np.arange(count * STEP // hours)
    settled = START_MS + eighth * np.arange(count * STEP // eighth)
    return {
        "funding": pl.DataFrame(
            {"ts": settled, "funding_rate": rng.normal(1e-4, 1e-4, len(settled))}
        ),
        "open_interest": pl.DataFrame(
            {"ts": times, "open_interest": np.exp(rng.normal(9, 0.1, len(times)))}
        ),
        "long_short": pl.DataFrame(
            {"ts": times, "long_short_ratio": np.exp(rng.normal(0, 0.2, len(times)))}
        ),
    }


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_every_feature_of_every_bar_is_the_batchs(symbol: str) -> None:
    settings, bars, series = load_settings(), market(4200, seed=6), companions(4200)
    batch = compute_features(bars, symbol, settings, **series)
    stream = FeatureStream.primed(
        settings, symbol, {name: frame.head(500) for name, frame in bars.items()}, **series
    )
    wide, warm, history = streamed(stream, bars, symbol, 500, 4200)
    expected = batch.select(WIDE).to_numpy()
    assert warm == batch["warm"].to_list()[500:]
    assert history == batch["history"].to_list()[500:]
    assert np.isfinite(wide[2500:]).all()
    assert worst(expected[3000:], wide[2500:], usual_size(expected)) < TOLERANCE


def test_holes_give_the_same_rows_missing_and_the_same_numbers() -> None:
    """A short hole, one that restarts the indicators, one longer than every window."""
    settings = load_settings(features={"warmup_bars": 2600})
    bars = market(9500, seed=7)
    lost = np.zeros(9500, dtype=bool)
    for first, count in ((2700, 1), (2705, 3), (2800, 60), (3000, 120), (6200, 400)):
        lost[first : first + count] = True
    bars["SOLUSDT"] = bars["SOLUSDT"].filter(pl.Series(~lost))
    bars["BTCUSDT"] = bars["BTCUSDT"].filter(pl.col("ts") != START_MS + 6000 * STEP)
    batch = compute_features(bars, "SOLUSDT", settings)
    stream = FeatureStream(settings, "SOLUSDT")
    wide, warm, history = streamed(stream, bars, "SOLUSDT", 0, batch.height)
    assert warm == batch["warm"].to_list()
    assert history == batch["history"].to_list()
    ready = np.array(history) >= 2600
    expected = batch.select(WIDE).to_numpy()
    assert worst(expected[ready], wide[ready], usual_size(expected)) < TOLERANCE


def test_flat_bars_are_the_same_to_the_same_fallbacks() -> None:
    settings, bars = load_settings(), market(3600, seed=2)
    flat = pl.col("ts").is_between(close_of(3199), close_of(3330))
    price = bars["SOLUSDT"]["close"][3199]
    bars["SOLUSDT"] = bars["SOLUSDT"].with_columns(
        *(
            pl.when(flat).then(price).otherwise(n).alias(n)
            for n in ("open", "high", "low", "close")
        ),
        pl.when(flat).then(0.0).otherwise("volume").alias("volume"),
    )
    batch = compute_features(bars, "SOLUSDT", settings)
    stream = FeatureStream.primed(settings, "SOLUSDT", {n: f.head(1) for n, f in bars.items()})
    wide, warm, _ = streamed(stream, bars, "SOLUSDT", 1, 3600)
    expected = batch.select(WIDE).to_numpy()
    still = expected[:, WIDE.index("vol_20")] == 0
    assert still.sum() > 100
    assert np.array_equal(wide[:, WIDE.index("vol_20")] == 0, still[1:])
    assert warm == batch["warm"].to_list()[1:]
    assert worst(expected[3000:], wide[2999:], usual_size(expected)) < TOLERANCE


def real_parity(root: Path, symbol: str, cuts: int, settings: Settings, seed: int) -> float:
    """Return the worst difference at random bars of the real series, streamed throughout."""
    bars = real_bars(root)
    count = bars[symbol].height if cuts > 1000 else 12_000
    bars = {name: frame.tail(count) for name, frame in bars.items()}
    expected = compute_features(bars, symbol, settings).select(WIDE).to_numpy()
    stream = FeatureStream(settings, symbol)
    wide, _, _ = streamed(stream, bars, symbol, 0, count)
    rows = np.random.default_rng(seed).integers(3000, count, cuts)
    return worst(expected[rows], wide[rows], usual_size(expected))


@pytest.mark.data
def test_parity_at_200_random_cuts_of_real_bars(data_root: Path) -> None:
    assert real_parity(data_root, "SOLUSDT", 200, load_settings(), 1) < TOLERANCE


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_parity_at_5000_random_cuts_of_real_bars(data_root: Path, symbol: str) -> None:
    assert real_parity(data_root, symbol, 5000, load_settings(), 2) < TOLERANCE


@pytest.mark.slow
@pytest.mark.data
def test_a_stream_begun_at_any_cut_of_real_bars_is_the_batch(data_root: Path) -> None:
    """Primed with the warm-up alone, as after a start."""
    settings, bars = load_settings(), real_bars(data_root)
    expected = compute_features(bars, "ETHUSDT", settings).select(WIDE).to_numpy()
    size = usual_size(expected)
    for row in np.random.default_rng(5).integers(3100, len(expected), 100).tolist():
        past = {name: frame[row - 3000 : row] for name, frame in bars.items()}
        stream = FeatureStream.primed(settings, "ETHUSDT", past)
        wide, warm, _ = streamed(stream, bars, "ETHUSDT", row, row + 1)
        assert warm == [True]
        assert worst(expected[row : row + 1], wide, size) < TOLERANCE


@pytest.mark.parametrize(
    ("bar", "detail"),
    [
        (StreamBar(START_MS, 1, 1, 1, 1), "not newer"),
        (StreamBar(START_MS + STEP + 1, 1, 1, 1, 1), "grid"),
        (StreamBar(START_MS + STEP, 1, 1, 0, 1), "no price"),
        (StreamBar(START_MS + STEP, math.nan, 1, 1, 1), "no price"),
        (StreamBar(START_MS + STEP, 1, 1, 1, math.inf), "no price"),
    ],
)
def test_bad_bars_are_refused(bar: StreamBar, detail: str) -> None:
    stream = FeatureStream(small_settings(), "SOLUSDT")
    stream.update(StreamBar(START_MS, 2, 1, 1.5, 1), {})
    with pytest.raises(TradewindError, match=detail) as caught:
        stream.update(bar, {})
    assert caught.value.code is ErrorCode.BAD_INPUT


def test_companions_come_in_order_and_old_ones_are_forgotten() -> None:
    stream = FeatureStream(small_settings(), "SOLUSDT")
    for hour in range(10_000):
        stream.add("funding", START_MS + hour * 3_600_000, float(hour))
    end = START_MS + 10_000 * 3_600_000
    row = stream.update(StreamBar(end, 2, 1, 1.5, 1), {})
    assert row.wide[WIDE.index("funding_rate")] == 9999
    with pytest.raises(TradewindError, match="not newer"):
        stream.add("funding", START_MS, 1.0)
    with pytest.raises(TradewindError, match="unknown"):
        stream.add("mark", START_MS, 1.0)


def test_a_hole_that_nobody_told_of_is_one_in_every_market() -> None:
    settings, bars = load_settings(), market(3500, seed=9)
    hole = pl.col("ts").is_between(START_MS + 3200 * STEP, START_MS + 3210 * STEP)
    bars = {name: frame.filter(~hole) for name, frame in bars.items()}
    known = closes(bars)
    stream = FeatureStream(settings, "SOLUSDT")
    rows = [
        stream.update(bar, {name: of[bar.ts] for name, of in known.items()})
        for bar in stream_bars(bars["SOLUSDT"])
    ]
    expected = compute_features(bars, "SOLUSDT", settings)
    assert [row.warm for row in rows] == expected["warm"].to_list()
    wide, whole = np.stack([row.wide for row in rows]), expected.select(WIDE).to_numpy()
    assert worst(whole[3000:], wide[3000:], usual_size(whole)) < TOLERANCE
