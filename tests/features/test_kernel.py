"""The compiled arithmetic: TA-Lib's numbers, and the same bits however it is cut up."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.features import STEP, SYMBOLS, market, small_settings
from tests.support.synthetic import START_MS
from tradewind.features import _kernel
from tradewind.features._grid import Grid
from tradewind.features._indicators import PERIODS, recursive_indicators
from tradewind.features._rolling import rolling_moments
from tradewind.features.compute import compute_features
from tradewind.features.definitions import BAND_WIDTH, WIDE, window_periods
from tradewind.features.stream import FeatureStream, StreamBar

Floats = NDArray[np.float64]
N = 700


def bars_like(kind: str) -> Floats:
    """Return high, low and close of shape (3, N)."""
    own = market(N, seed=4)["SOLUSDT"]
    rows = np.stack([own[name].to_numpy() for name in ("high", "low", "close")])
    if kind == "flat first":
        rows[:, :60] = rows[2, 60]
    if kind == "flat for long":
        rows[:, 100:650] = rows[2, 100]
    if kind == "tiny prices":
        rows *= 1e-14
    if kind == "inside bars":  # no directional movement at all
        rows[0], rows[1] = np.linspace(300, 290, N), np.linspace(200, 210, N)
        rows[2] = 250 + 9 * np.sin(np.arange(N))
    return rows


@pytest.mark.parametrize(
    "kind", ["random", "flat first", "flat for long", "tiny prices", "inside bars"]
)
def test_indicators_are_ta_libs_from_the_first_bar_on(kind: str) -> None:
    rows = bars_like(kind)
    high, low, close = rows
    found = recursive_indicators(
        START_MS + STEP * np.arange(N), rows, np.zeros(N, np.int64), step_ms=STEP, warmup=N
    )
    expected = {
        "ema_fast": talib.EMA(close, 20),
        "ema_middle": talib.EMA(close, 50),
        "ema_slow": talib.EMA(close, 200),
        "rsi": talib.RSI(close, 14),
        "atr": talib.ATR(high, low, close, 14),
        "adx": talib.ADX(high, low, close, 14),
        "di_diff": talib.PLUS_DI(high, low, close, 14) - talib.MINUS_DI(high, low, close, 14),
        "macd_hist": talib.MACD(close, 12, 26, 9)[2],
    }
    assert tuple(expected) == _kernel.INDICATORS
    for name, values in zip(_kernel.INDICATORS, found, strict=True):
        theirs = expected[name]
        assert np.array_equal(np.isnan(values), np.isnan(theirs)), name
        size = 100.0 if name in {"rsi", "adx", "di_diff"} else float(np.max(close))
        np.testing.assert_allclose(values, theirs, rtol=1e-9, atol=1e-12 * size, err_msg=name)


def test_the_kernels_rows_are_the_tables_names() -> None:
    rows = {
        "ret_1": _kernel.RET_1,
        "ema_20": _kernel.OVER_EMA_FAST,
        "ema_50": _kernel.OVER_EMA_MIDDLE,
        "ema_200": _kernel.OVER_EMA_SLOW,
        "z_20": _kernel.Z_SCORE,
        "range": _kernel.RANGE,
        "vol_20": _kernel.VOL,
        "ratio_BTC_ETH": _kernel.RATIO_1,
        "ratio_ETH_SOL": _kernel.RATIO_2,
        "lead_ret_BTC": _kernel.LEAD_RET,
        "rsi_14": _kernel.RSI_SHARE,
        "atr_14": _kernel.ATR_SHARE,
        "adx_14": _kernel.ADX_SHARE,
        "di_diff_14": _kernel.DI_SHARE,
        "macd_hist": _kernel.MACD_SHARE,
        "bb_pctb_20": _kernel.BAND_PLACE,
        "bb_width_20": _kernel.BAND_SPAN,
        "stoch_k_14": _kernel.STOCHASTIC,
        "volume_ratio_20": _kernel.VOLUME_RATIO,
        "ret_4": _kernel.RET_4,
        "ret_16": _kernel.RET_16,
        "ret_96": _kernel.RET_LONG,
        "vol_ratio_20_96": _kernel.VOL_RATIO,
    }
    assert {name: WIDE.index(name) for name in rows} == rows


def windows(table: Floats, closes: Floats, place: int, first: int, end: int) -> Floats:
    out = np.full((len(WIDE), end - first), 7.0)
    periods = window_periods(small_settings())
    _kernel.window_features(table, closes, 0, place, periods, BAND_WIDTH, 0, first, end, first, out)
    return out


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_row_has_the_same_bits_from_any_piece_that_holds_its_windows(data: st.DataObject) -> None:
    count = 2 * _kernel.PIECE + 500
    bars = market(count, seed=1)
    table = Grid.of(bars["SOLUSDT"], STEP).table
    closes = np.stack([bars[name]["close"].to_numpy() for name in SYMBOLS])
    lost = data.draw(st.lists(st.integers(0, count - 1), max_size=5))
    table[:, lost] = np.nan
    place = data.draw(st.integers(0, 10_000))
    whole = windows(table, closes, place, 0, count)
    reach = window_periods(small_settings())[-1]
    since = data.draw(st.integers(0, count - reach - 2))
    first = since + reach
    end = data.draw(st.integers(first + 1, count))
    part = windows(
        np.ascontiguousarray(table[:, since:end]),
        np.ascontiguousarray(closes[:, since:end]),
        place + since,
        reach,
        end - since,
    )
    assert part.tobytes() == whole[:, first:end].tobytes()


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=80),
    st.integers(2, 12),
    st.integers(0, 1000),
)
def test_moments_are_those_of_the_window_wherever_time_is_cut(
    values: list[float], window: int, place: int
) -> None:
    x = np.array(values)
    mean, std = rolling_moments(x, window, ddof=1, place=place)
    for i in range(len(x)):
        part = x[max(i - window + 1, 0) : i + 1]
        if len(part) < window or np.isnan(part).any():
            assert math.isnan(mean[i])
            assert math.isnan(std[i])
        else:
            size = float(np.ptp(part)) or 1.0
            assert mean[i] == pytest.approx(math.fsum(part) / window, rel=1e-12, abs=1e-12 * size)
            assert std[i] == pytest.approx(part.std(ddof=1), rel=1e-6, abs=1e-7 * size)
            if part.min() == part.max():
                assert std[i] == 0


def test_bar_by_bar_gives_the_batchs_bits_over_holes_and_restarts() -> None:
    """Begun with the same bar, or primed with a warm-up and one block of bars more."""
    config = small_settings(warmup_bars=700)
    bars = market(5200, seed=11)
    lost = np.zeros(5200, dtype=bool)
    for first, count in ((900, 1), (1500, 40), (2100, 300), (3000, 5)):
        lost[first : first + count] = True
    bars["SOLUSDT"] = bars["SOLUSDT"].filter(pl.Series(~lost))
    batch = compute_features(bars, "SOLUSDT", config)
    expected, ts = batch.select(WIDE).to_numpy(), batch["ts"].to_numpy()
    known = {name: dict(frame.select("ts", "close").iter_rows()) for name, frame in bars.items()}
    own = [StreamBar._make(row) for row in bars["SOLUSDT"].select(StreamBar._fields).iter_rows()]
    half = START_MS + 4800 * STEP
    past = {name: frame.filter(pl.col("ts") < half) for name, frame in bars.items()}
    primed = {name: frame.tail(700 + 1024 + 300) for name, frame in past.items()}
    for stream, begin in (
        (FeatureStream(config, "SOLUSDT"), START_MS),
        (FeatureStream.primed(config, "SOLUSDT", past), half),
        (FeatureStream.primed(config, "SOLUSDT", primed), half),
    ):
        due = begin
        for bar in own[int(np.searchsorted(ts, begin)) :]:
            for moment in range(due, bar.ts, STEP):
                stream.skip(
                    moment, {name: of[moment] for name, of in known.items() if name != "SOLUSDT"}
                )
            row = stream.update(bar, {name: of[bar.ts] for name, of in known.items()})
            place = int(np.searchsorted(ts, bar.ts))
            assert row.wide.tobytes() == expected[place].tobytes(), (begin, place)
            assert row.atr == batch["atr"][place] or math.isnan(row.atr)
            assert row.warm == batch["warm"][place]
            due = bar.ts + STEP


def test_indicators_go_on_from_their_averages() -> None:
    rows = bars_like("random")
    whole, parts = np.empty((8, N)), np.empty((8, N))
    _kernel.indicators(_kernel.BEGINNING, PERIODS, rows, 0, 0, 0, N, 0, whole)
    averages = _kernel.BEGINNING
    for begin in range(0, N, 35):
        end = begin + 35
        averages = _kernel.indicators(averages, PERIODS, rows, 0, begin, begin, end, 0, parts)
    assert parts.tobytes() == whole.tobytes()
