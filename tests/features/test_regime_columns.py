"""Regimes of bars: metrics against plain numpy, slower timeframes, holes, no look-ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.features import STEP, market, real_bars, small_settings, store_of
from tests.support.synthetic import START_MS
from tradewind.clock import ManualClock
from tradewind.features.compute import compute_features, features_and_regimes
from tradewind.features.lookahead import check_lookahead
from tradewind.features.view import FeatureView
from tradewind.market.timeframes import regime_rows
from tradewind.regimes.kinds import METRICS, Regime
from tradewind.settings import load_settings

N = 3600
COLUMNS = ("regime_state", "regime_1h", "regime_4h")


@pytest.fixture(scope="module")
def bars() -> dict[str, pl.DataFrame]:
    return market(N, seed=12)


def test_metrics_are_what_the_documentation_says(bars: dict[str, pl.DataFrame]) -> None:
    frame, regimes = features_and_regimes(bars, "SOLUSDT", small_settings())
    own = bars["SOLUSDT"]
    high, low, close, volume = (own[n].to_numpy() for n in ("high", "low", "close", "volume"))
    found = regimes["15m"].metrics
    assert set(found) == set(METRICS)
    atr = frame["atr"].to_numpy()
    for row in (1600, 2222, N - 1):

        def last(x: np.ndarray, count: int, row: int = row) -> np.ndarray:
            return x[row - count + 1 : row + 1]

        widths = [
            (high[i - 19 : i + 1].max() - low[i - 19 : i + 1].min()) / close[i]
            for i in range(row - 49, row + 1)
        ]
        spans = last(high - low, 20).mean() / last(high - low, 100).mean()
        turnover = last(volume * close, 20).mean() / last(volume * close, 100).mean()
        expected = {
            "adx": frame["adx_14"][row] * 100,
            "di_diff": frame["di_diff_14"][row] * 100,
            "atr_ratio": atr[row] / last(atr, 50).mean(),
            "range_ratio": widths[-1] / np.mean(widths),
            "momentum": (close[row] - close[row - 4]) / atr[row],
            "volume_ratio": last(volume, 20).mean() / last(volume, 100).mean(),
            "liquidity_ratio": turnover / spans,
        }
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, rel=1e-9), name
        # log(close / EMA) is greatest for the slowest where the averages rise.
        logs = [frame[f"ema_{period}"][row] for period in (20, 50, 200)]
        order = 1 if logs == sorted(logs) else -1 if logs == sorted(logs, reverse=True) else 0
        assert found["alignment"][row] == order
    assert found["adx"][-1] == regimes["15m"].reading(N - 1).metrics["adx"]


def test_a_slower_timeframe_is_its_own_bars_detected(bars: dict[str, pl.DataFrame]) -> None:
    """1h of 15m bars is what 1h bars give: the same detector on another timeframe."""
    settings = small_settings()
    hours = {
        name: frame.group_by(pl.col("ts") // (4 * STEP) * (4 * STEP), maintain_order=True).agg(
            pl.first("open"), pl.max("high"), pl.min("low"), pl.last("close"), pl.sum("volume")
        )
        for name, frame in bars.items()
    }
    hourly = load_settings(
        features={**settings.features.model_dump(), "warmup_bars": 500}, market={"timeframe": "1h"}
    )
    own = compute_features(hours, "SOLUSDT", hourly)
    assert "regime_15m" not in own.columns
    fine = compute_features(bars, "SOLUSDT", settings)
    closing = fine.filter((pl.col("ts") + STEP) % (4 * STEP) == 0)
    late = closing.filter(pl.col("ts") > START_MS + 2200 * STEP)
    same = late.select(ts=pl.col("ts") // (4 * STEP) * (4 * STEP), slow="regime_1h").join(
        own.select("ts", "regime_state"), on="ts"
    )
    assert same.height > 300
    assert same["regime_state"].n_unique() > 2
    assert (same["slow"] == same["regime_state"]).mean() > 0.99  # warm-ups differ, slightly


def test_within_an_hour_only_the_closed_hour_is_known(bars: dict[str, pl.DataFrame]) -> None:
    frame = compute_features(bars, "SOLUSDT", small_settings())
    hour = (frame["ts"] + STEP) // (4 * STEP)
    for name, bucket in (("regime_1h", hour), ("regime_4h", hour // 4)):
        states = frame.select(name, bucket=bucket).group_by("bucket").agg(pl.col(name).n_unique())
        assert states[name].max() == 1


def test_no_regime_looks_ahead(bars: dict[str, pl.DataFrame]) -> None:
    cuts = [START_MS + row * STEP for row in (1700, 2111, 2112, 2500, 3001, 3598)]
    report = check_lookahead(
        lambda b: compute_features(b, "SOLUSDT", small_settings()), bars, cuts=cuts
    )
    assert report.ok, report.offending
    assert {*COLUMNS, "regime", "regime_confidence"} <= set(report.differences)
    wild = bars | {
        "SOLUSDT": bars["SOLUSDT"].with_columns(
            pl.when(pl.col("ts") > cuts[3]).then(pl.col("high") * 3).otherwise("high").alias("high")
        )
    }
    for source in (bars, wild):
        frame = compute_features(source, "SOLUSDT", small_settings())
        past = frame.filter(pl.col("ts") <= cuts[3]).select(*COLUMNS)
        if source is bars:
            expected = past
    assert past.equals(expected)


def test_a_hole_makes_the_regime_unknown_until_windows_are_whole(
    bars: dict[str, pl.DataFrame],
) -> None:
    hole = START_MS + 2000 * STEP
    holed = {**bars, "SOLUSDT": bars["SOLUSDT"].filter(pl.col("ts") != hole)}
    frame = compute_features(holed, "SOLUSDT", small_settings())
    after = frame.filter(pl.col("ts") > hole)
    unknown = after["regime_state"] == Regime.UNKNOWN
    # The longest window is the usual volume's: 100 bars.
    assert unknown.to_list()[:101] == [True] * 99 + [False] * 2
    assert after["regime"].to_list()[:99] == ["neutral"] * 99
    assert not after["regime_computed"].to_numpy()[:99].any()
    # An hour of three bars is an hour; one without any bar is not replaced by the one before.
    assert not (after["regime_1h"] == Regime.UNKNOWN).any()
    lost = pl.col("ts").is_between(START_MS + 2000 * STEP, START_MS + 2003 * STEP)
    gone = compute_features(
        {**bars, "SOLUSDT": bars["SOLUSDT"].filter(~lost)}, "SOLUSDT", small_settings()
    ).filter(pl.col("ts") > hole)
    assert gone["regime_1h"].to_list()[:300] == [Regime.UNKNOWN] * 300


def test_per_symbol_thresholds_reach_the_column(bars: dict[str, pl.DataFrame]) -> None:
    settings = load_settings(
        features=small_settings().features.model_dump(),
        regimes={"symbol_thresholds": {"SOLUSDT": {"high_volatility": 1e-6, "adx_trend": 100}}},
    )
    sol = compute_features(bars, "SOLUSDT", settings)["regime_state"].to_list()[1500:]
    btc = compute_features(bars, "BTCUSDT", settings)["regime_state"].to_list()[1500:]
    assert set(sol) <= {Regime.HIGH_VOLATILITY, Regime.BREAKOUT, Regime.ILLIQUID}
    assert Regime.HIGH_VOLATILITY not in btc
    assert Regime.TREND_UP in btc


@pytest.mark.data
def test_what_is_served_is_the_batch_on_real_bars(data_root: Path, tmp_path: Path) -> None:
    """From a block of the newest bars, the regimes of every timeframe are those of years."""
    settings = load_settings()
    newest = {s: frame.tail(24_000) for s, frame in real_bars(data_root).items()}
    batch = compute_features(newest, "ETHUSDT", settings)
    clock = ManualClock(0)
    view = FeatureView(settings, store_of(tmp_path, newest), clock)
    ts = newest["ETHUSDT"]["ts"].to_numpy()
    assert regime_rows(settings) < 18_000
    for row in np.random.default_rng(1).integers(20_000, 24_000, 30).tolist():
        clock.set(int(ts[row]) + STEP)
        served = view.latest("ETHUSDT")
        assert [r.regime for r in served.regimes] == [batch[name][row] for name in COLUMNS]
        assert served.regimes[0].confidence == batch["regime_confidence"][row]
        assert (served.regime, served.regime_computed) == (batch["regime"][row], True)


@pytest.mark.data
def test_around_the_real_holes_of_spot_bars_nothing_is_invented(data_root: Path) -> None:
    """26 outages of 2018–2022: windows over them are NaN, rows refused, regimes unknown."""
    settings = load_settings(
        market={"timeframe": "1h", "set_id": "binance_spot"}, features={"max_gap_bars": 24}
    )
    bars = real_bars(data_root, "binance_spot_1h")
    own = bars["BTCUSDT"]
    ts = own["ts"].to_numpy()
    steps = np.diff(ts) // 3_600_000
    holes = np.flatnonzero(steps > 1)
    assert (len(holes), int((steps[holes] - 1).sum())) == (26, 121)
    frame = compute_features(bars, "BTCUSDT", settings)
    assert frame["ts"].to_list() == ts.tolist()  # no bar more than there is
    place = (ts - ts[0]) // 3_600_000
    for bars_back in (1, 4, 16, 96):  # a return needs the bar exactly so long ago
        values = frame[f"ret_{bars_back}"].to_numpy()
        assert np.array_equal(np.isfinite(values), np.isin(place - bars_back, place))
    for name, bars_back in {"vol_20": 20, "z_20": 19, "volume_ratio_20": 19}.items():
        values = frame[name].to_numpy()
        have = np.searchsorted(place, place - bars_back)
        whole = (place >= bars_back) & (np.arange(len(ts)) - have == bars_back)
        assert np.array_equal(np.isfinite(values), whole), name
    after = place[holes + 1]
    near = np.isin(place, (after[:, None] + np.arange(90)).ravel())
    assert not frame["warm"].to_numpy()[near].any()
    assert not frame["regime_computed"].to_numpy()[near].any()
    # One outage lasted longer than indicators ride over; the third market began in 2020.
    assert (steps[holes] - 1).max() > 24
    listed = int(bars["SOLUSDT"]["ts"][0])
    assert not frame.filter(pl.col("ts") < listed)["warm"].any()
    assert frame.filter(pl.col("ts") > listed + 200 * 3_600_000)["warm"].mean() > 0.85
