"""Every feature against plain loops that share no code with the package."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.features import STEP, market, small_settings
from tradewind.features._indicators import recursive_indicators
from tradewind.features._rolling import rolling_extremes, rolling_moments
from tradewind.features.compute import compute_features
from tradewind.features.definitions import ANCHOR_BARS

Floats = NDArray[np.float64]
N = 900


@pytest.fixture(scope="module")
def bars() -> dict[str, pl.DataFrame]:
    return market(N, seed=3)


@pytest.fixture(scope="module")
def features(bars: dict[str, pl.DataFrame]) -> pl.DataFrame:
    # A warm-up longer than the sample: the recursions below start at the first bar too.
    return compute_features(bars, "SOLUSDT", small_settings(warmup_bars=5000))


def wilder_sum(values: list[float], period: int) -> list[float]:
    """Wilder's smoothed sum, begun with ``period`` − 1 values as TA-Lib does."""
    total, out = sum(values[: period - 1]), []
    for value in values[period - 1 :]:
        total = total - total / period + value
        out.append(total)
    return out


def ema(close: Floats, period: int) -> Floats:
    out = np.full(len(close), np.nan)
    out[period - 1] = close[:period].mean()
    for i in range(period, len(close)):
        out[i] = out[i - 1] + 2 / (period + 1) * (close[i] - out[i - 1])
    return out


def directional(high: Floats, low: Floats, close: Floats) -> tuple[Floats, Floats, Floats]:
    """Return +DI, −DI and ADX of period 14."""
    true_range, plus_moves, minus_moves = [], [], []
    for i in range(1, len(close)):
        up, down = high[i] - high[i - 1], low[i - 1] - low[i]
        plus_moves.append(up if up > down and up > 0 else 0.0)
        minus_moves.append(down if down > up and down > 0 else 0.0)
        true_range.append(
            max(high[i] - low[i], abs(high[i] - close[i - 1]), abs(low[i] - close[i - 1]))
        )
    ranges = np.array(wilder_sum(true_range, 14))
    plus = 100 * np.array(wilder_sum(plus_moves, 14)) / ranges
    minus = 100 * np.array(wilder_sum(minus_moves, 14)) / ranges
    dx = 100 * np.abs(plus - minus) / (plus + minus)
    adx = [dx[:14].mean()]
    for value in dx[14:]:
        adx.append((adx[-1] * 13 + value) / 14)
    lead = np.full(14, np.nan)
    return (
        np.concatenate([lead, plus]),
        np.concatenate([lead, minus]),
        np.concatenate([np.full(27, np.nan), adx]),
    )


def rsi(close: Floats) -> Floats:
    change = np.diff(close)
    gain, loss = np.maximum(change, 0), np.maximum(-change, 0)
    up, down = gain[:14].mean(), loss[:14].mean()
    out = np.full(len(close), np.nan)
    out[14] = 100 * up / (up + down)
    for i in range(14, len(change)):
        up, down = (up * 13 + gain[i]) / 14, (down * 13 + loss[i]) / 14
        out[i + 1] = 100 * up / (up + down)
    return out


def atr(high: Floats, low: Floats, close: Floats) -> Floats:
    ranges = np.array(
        [max(high[i], close[i - 1]) - min(low[i], close[i - 1]) for i in range(1, len(close))]
    )
    out = np.full(len(close), np.nan)
    out[14] = ranges[:14].mean()
    for i in range(14, len(ranges)):
        out[i + 1] = (out[i] * 13 + ranges[i]) / 14
    return out


def last_windows(x: Floats, window: int) -> list[Floats]:
    return [x[i - window + 1 : i + 1] for i in range(window - 1, len(x))]


def padded(values: list[float]) -> Floats:
    return np.concatenate([np.full(N - len(values), np.nan), values])


def agree(found: pl.Series, expected: Floats, *, settled: int = 0) -> None:
    left, right = found.to_numpy()[settled:], expected[settled:]
    assert np.array_equal(np.isnan(left), np.isnan(right))
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


def test_recursive_indicators(bars: dict[str, pl.DataFrame], features: pl.DataFrame) -> None:
    high, low, close = (bars["SOLUSDT"][name].to_numpy() for name in ("high", "low", "close"))
    for period in (20, 50, 200):
        agree(features[f"ema_{period}"], np.log(close / ema(close, period)))
    agree(features["rsi_14"], rsi(close) / 100)
    agree(features["atr"], atr(high, low, close))
    agree(features["atr_14"], atr(high, low, close) / close)
    plus, minus, adx = directional(high, low, close)
    agree(features["di_diff_14"], (plus - minus) / 100)
    agree(features["adx_14"], adx / 100)


def test_macd_histogram(bars: dict[str, pl.DataFrame], features: pl.DataFrame) -> None:
    close = bars["SOLUSDT"]["close"].to_numpy()
    line = ema(close, 12) - ema(close, 26)
    signal = np.full(N, np.nan)
    signal[25:] = ema(line[25:], 9)
    # Where the fast average starts is the library's choice: compare once it is forgotten.
    np.testing.assert_allclose(
        features["macd_hist"].to_numpy()[400:],
        ((line - signal) / close)[400:],
        rtol=1e-9,
        atol=1e-13,
    )


def test_window_features(bars: dict[str, pl.DataFrame], features: pl.DataFrame) -> None:
    own = bars["SOLUSDT"]
    high, low, close, volume = (own[n].to_numpy() for n in ("high", "low", "close", "volume"))
    logs = np.log(close)
    ret = np.diff(logs)
    for bars_back in (1, 4, 16, 96):
        agree(features[f"ret_{bars_back}"], padded(list(logs[bars_back:] - logs[:-bars_back])))
    agree(features["range"], (high - low) / close)
    agree(
        features["z_20"],
        padded([(w[-1] - w.mean()) / w.std(ddof=1) for w in last_windows(logs, 20)]),
    )
    vol_20 = padded([w.std(ddof=1) for w in last_windows(ret, 20)])
    vol_96 = padded([w.std(ddof=1) for w in last_windows(ret, 96)])
    agree(features["vol_20"], vol_20)
    agree(features["vol_ratio_20_96"], vol_20 / vol_96)
    bands = [(w[-1], w.mean(), w.std()) for w in last_windows(close, 20)]
    agree(features["bb_pctb_20"], padded([(c - m + 2 * s) / (4 * s) for c, m, s in bands]))
    agree(features["bb_width_20"], padded([4 * s / m for _, m, s in bands]))
    agree(features["volume_ratio_20"], padded([w[-1] / w.mean() for w in last_windows(volume, 20)]))
    spans = zip(last_windows(low, 14), last_windows(high, 14), close[13:], strict=True)
    agree(
        features["stoch_k_14"],
        padded([(c - lo.min()) / (hi.max() - lo.min()) for lo, hi, c in spans]),
    )


def test_cross_asset_features(bars: dict[str, pl.DataFrame], features: pl.DataFrame) -> None:
    btc, eth, sol = (bars[s]["close"].to_numpy() for s in ("BTCUSDT", "ETHUSDT", "SOLUSDT"))
    for name, ratio in (("ratio_BTC_ETH", btc / eth), ("ratio_ETH_SOL", eth / sol)):
        windows = last_windows(np.log(ratio), 50)
        agree(features[name], padded([(w[-1] - w.mean()) / w.std(ddof=1) for w in windows]))
    # Bar t carries the leader's return from t − 2 to t − 1.
    agree(features["lead_ret_BTC"], padded(list(np.log(btc[1:-1] / btc[:-2]))))
    own = compute_features(bars, "BTCUSDT", small_settings())
    agree(own["lead_ret_BTC"], padded(list(np.log(eth[1:-1] / eth[:-2]))))


def test_time_of_day(features: pl.DataFrame) -> None:
    hours = (features["ts"].to_numpy() / 3_600_000) % 24
    agree(features["hour_sin"], np.array([math.sin(2 * math.pi * h / 24) for h in hours]))
    agree(features["hour_cos"], np.array([math.cos(2 * math.pi * h / 24) for h in hours]))


def test_rolling_moments_do_not_drift_and_do_not_spread_a_nan() -> None:
    rng = np.random.default_rng(0)
    x = 1e6 + np.cumsum(rng.normal(0, 1e-3, 50_000))
    _, std = rolling_moments(x, 20, ddof=1)
    exact = np.array([np.std(x[i - 19 : i + 1] - x[i], ddof=1) for i in range(49_000, 50_000)])
    np.testing.assert_allclose(std[49_000:], exact, rtol=1e-9)
    x[100] = np.nan
    mean, std = rolling_moments(x, 20, ddof=1)
    assert np.flatnonzero(np.isnan(mean)).tolist() == [*range(19), *range(100, 120)]
    assert np.array_equal(np.isnan(mean), np.isnan(std))


@given(
    st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=60),
    st.integers(2, 20),
)
def test_rolling_windows_depend_on_nothing_else(values: list[float], window: int) -> None:
    x = np.array(values)
    mean, std = rolling_moments(x, window, ddof=0)
    least, greatest = rolling_extremes(x, x, window)
    for i in range(window - 1, len(x)):
        part = x[i - window + 1 : i + 1]
        alone = rolling_moments(part, window, ddof=0, place=i - window + 1)
        assert (mean[i], std[i]) == (alone[0][-1], alone[1][-1])
        assert (least[i], greatest[i]) == (part.min(), part.max())
        assert std[i] == pytest.approx(part.std(), rel=1e-6, abs=1e-9 * part.max())
        if part.min() == part.max():
            assert std[i] == 0


def test_recursions_are_the_same_to_the_bit_from_any_long_enough_history() -> None:
    own = market(3 * ANCHOR_BARS, seed=5)["BTCUSDT"]
    warmup = 400

    def indicators(first: int) -> Floats:
        part = own[first:]
        return recursive_indicators(
            part["ts"].to_numpy(),
            np.stack([part[name].to_numpy() for name in ("high", "low", "close")]),
            np.zeros(part.height, dtype=np.int64),
            step_ms=STEP,
            warmup=warmup,
        )

    full, tail = indicators(0), indicators(own.height - 2 * ANCHOR_BARS - warmup)
    assert full[:, -ANCHOR_BARS:].tobytes() == tail[:, -ANCHOR_BARS:].tobytes()
