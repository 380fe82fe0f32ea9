"""Warm-up, holes, flat bars, stopped references and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.features import STEP, close_of, market, real_bars, small_settings
from tests.support.synthetic import START_MS
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.compute import compute_features
from tradewind.features.definitions import REQUIRED_FEATURES, WIDE
from tradewind.settings import load_settings


def test_columns_types_and_first_warm_row() -> None:
    frame = compute_features(market(500), "ETHUSDT", small_settings())
    assert frame.columns == [
        *("ts", "high", "low", "close", *WIDE, "atr", "history", "warm"),
        *("regime", "regime_computed", "regime_state", "regime_confidence"),
        *("regime_1h", "regime_4h"),
    ]
    assert all(frame[name].dtype == pl.Float64 for name in WIDE)
    assert frame.null_count().sum_horizontal().item() == 0
    assert frame["warm"].to_list() == [False] * 300 + [True] * 200
    warm = frame.filter("warm").select(REQUIRED_FEATURES).to_numpy()
    assert np.isfinite(warm).all()
    # Fifteen days of bars are needed for the ATR of a day: five are not enough to tell.
    assert set(frame["regime"]) == {"neutral"}
    assert not frame["regime_computed"].any()
    assert set(frame["regime_state"]) == {"UNKNOWN"}


def test_no_bars_give_no_rows_of_the_same_shape() -> None:
    empty = {name: frame.clear() for name, frame in market(3).items()}
    frame = compute_features(empty, "ETHUSDT", small_settings())
    assert frame.schema == compute_features(market(30), "ETHUSDT", small_settings()).schema
    assert frame.height == 0


def test_features_do_not_depend_on_the_unit_of_price_or_volume() -> None:
    bars = market(600)
    scaled = {
        name: frame.with_columns(pl.col("open", "high", "low", "close", "volume") * 1024)
        for name, frame in bars.items()
    }
    one, two = (compute_features(b, "SOLUSDT", small_settings()) for b in (bars, scaled))
    np.testing.assert_allclose(
        one.select(REQUIRED_FEATURES).to_numpy()[300:],
        two.select(REQUIRED_FEATURES).to_numpy()[300:],
        rtol=1e-9,
        atol=1e-12,
    )


def test_a_short_hole_spoils_the_windows_over_it_and_nothing_else() -> None:
    bars = market(900)
    bars["SOLUSDT"] = bars["SOLUSDT"].filter(pl.col("ts") != START_MS + 500 * STEP)
    frame = compute_features(bars, "SOLUSDT", small_settings())
    after = frame.filter(pl.col("ts") > START_MS + 500 * STEP)
    assert np.isnan(after["ret_1"][0])
    assert np.isnan(after["ret_96"][95])
    assert np.isfinite(after["ret_96"][96])
    assert np.isfinite(after["ema_200"].to_numpy()).all()
    # The longest window here is vol over 96 returns: 97 bars.
    assert after["warm"].to_list() == [False] * 96 + [True] * (after.height - 96)


def test_a_long_hole_starts_a_new_history() -> None:
    bars = market(1500)
    hole = pl.col("ts").is_between(START_MS + 500 * STEP, START_MS + 600 * STEP)
    bars["SOLUSDT"] = bars["SOLUSDT"].filter(~hole)
    frame = compute_features(bars, "SOLUSDT", small_settings())
    after = frame.filter(pl.col("ts") > START_MS + 600 * STEP)
    assert after["history"][0] == 0
    assert after["warm"].to_list() == [False] * 300 + [True] * (after.height - 300)
    fresh = compute_features(
        {s: f.filter(pl.col("ts") > START_MS + 600 * STEP) for s, f in bars.items()},
        "SOLUSDT",
        small_settings(),
    )
    assert after["ema_200"].equals(fresh["ema_200"])


def test_a_stopped_reference_gives_nan_not_a_stale_copy() -> None:
    bars = market(600)
    bars["BTCUSDT"] = bars["BTCUSDT"].head(500)
    frame = compute_features(bars, "SOLUSDT", small_settings())
    assert np.isfinite(frame["lead_ret_BTC"][500])  # the leader's bar 499 is known
    assert np.isnan(frame["lead_ret_BTC"].to_numpy()[501:]).all()
    assert np.isnan(frame["ratio_BTC_ETH"].to_numpy()[500:]).all()
    assert np.isfinite(frame["ratio_ETH_SOL"].to_numpy()[500:]).all()
    assert not frame["warm"].to_numpy()[500:].any()


def test_a_market_outside_the_references_gets_their_ratios() -> None:
    bars = {**market(500), "XRPUSDT": market(500, seed=9)["BTCUSDT"]}
    other = compute_features(bars, "XRPUSDT", small_settings())
    sol = compute_features(bars, "SOLUSDT", small_settings())
    for name in ("ratio_BTC_ETH", "ratio_ETH_SOL", "lead_ret_BTC"):
        assert other[name].to_numpy().tobytes() == sol[name].to_numpy().tobytes()


@pytest.mark.parametrize("flat_bars", [1, 4, 40, 300])
def test_flat_bars_without_volume_do_not_poison_what_follows(flat_bars: int) -> None:
    bars = market(1200)
    flat = pl.col("ts").is_between(close_of(399), close_of(399 + flat_bars - 1))
    price = bars["SOLUSDT"]["close"][399]
    bars["SOLUSDT"] = bars["SOLUSDT"].with_columns(
        *(
            pl.when(flat).then(price).otherwise(name).alias(name)
            for name in ("open", "high", "low", "close")
        ),
        pl.when(flat).then(0.0).otherwise("volume").alias("volume"),
    )
    frame = compute_features(bars, "SOLUSDT", small_settings())
    assert np.isfinite(frame.select(REQUIRED_FEATURES).to_numpy()[300:]).all()
    still = frame["vol_20"].to_numpy() == 0
    assert still.sum() == max(0, flat_bars - 19)
    assert np.array_equal(frame["warm"].to_numpy()[300:], ~still[300:])
    if still.any():
        row = frame.filter(pl.Series(still)).row(-1, named=True)
        figures = [row[n] for n in ("z_20", "bb_pctb_20", "bb_width_20", "stoch_k_14")]
        assert figures == [0.0, 0.5, 0.0, 0.5]
        assert (row["volume_ratio_20"], row["range"]) == (0.0, 0.0)


def test_funding_is_the_last_rate_settled_before_the_close() -> None:
    settled = START_MS + 40 * STEP
    funding = pl.DataFrame({"ts": [settled], "funding_rate": [0.0007]})
    rates = compute_features(market(200), "BTCUSDT", small_settings(), funding=funding)
    known = rates.filter(pl.col("funding_rate").is_finite())
    assert known["ts"][0] == settled  # the bar that closes AT the settlement does not know it
    assert known["ts"][-1] == settled + 16 * 3_600_000 - STEP  # then a settlement was missed
    assert set(known["funding_rate"]) == {0.0007}
    without = compute_features(market(200), "BTCUSDT", small_settings())
    assert np.isnan(without["funding_rate"].to_numpy()).all()


def test_bad_bars_are_refused_with_their_name() -> None:
    bars = market(50)
    sol = bars["SOLUSDT"]
    wrong = {
        "rising": sol.reverse(),
        "grid": sol.with_columns(pl.col("ts") + 1),
        "finite": sol.with_columns(volume=pl.lit(float("nan"))),
        "close": sol.with_columns(close=pl.lit(float("nan"))),
        "positive": sol.with_columns(low=pl.lit(0.0)),
    }
    for word, frame in wrong.items():
        with pytest.raises(TradewindError, match=word) as caught:
            compute_features({**bars, "SOLUSDT": frame}, "SOLUSDT", small_settings())
        assert caught.value.code is ErrorCode.BAD_INPUT
        assert "SOLUSDT" in caught.value.detail
    with pytest.raises(TradewindError, match="XRPUSDT"):
        compute_features(bars, "XRPUSDT", small_settings())
    del bars["ETHUSDT"]
    with pytest.raises(TradewindError, match="ETHUSDT"):
        compute_features(bars, "SOLUSDT", small_settings())


@pytest.mark.data
def test_real_bars_stay_sane_through_the_flat_quarter_hours(data_root: Path) -> None:
    frame = compute_features(real_bars(data_root), "BTCUSDT", load_settings())
    rows = frame[3000:]
    assert rows["warm"].all()
    values = rows.select(REQUIRED_FEATURES)
    assert np.isfinite(values.to_numpy()).all()
    for name in ("rsi_14", "adx_14", "stoch_k_14"):
        assert values[name].is_between(0, 1).all()
    assert values["di_diff_14"].is_between(-1, 1).all()
    # Scale-free: nothing has the size of a price of tens of thousands.
    assert np.abs(values.to_numpy()).max() < 25


@pytest.mark.data
def test_real_outages_are_never_spanned(data_root: Path) -> None:
    settings = load_settings(market={"timeframe": "1h"})
    bars = real_bars(data_root, "binance_spot_1h")
    # SOL was listed in 2020: an older market takes the place of the third reference.
    bars = {**bars, "SOLUSDT": bars["ETHUSDT"]}
    frame = compute_features(bars, "BTCUSDT", settings)
    hour = 3_600_000
    jumps = np.flatnonzero(np.diff(frame["ts"].to_numpy()) > hour) + 1
    assert len(jumps) > 20
    assert np.isnan(frame["ret_1"].to_numpy()[jumps]).all()
    warm_ts = frame.filter("warm")["ts"].to_numpy()
    for jump in frame["ts"].to_numpy()[jumps]:
        # The 200-bar ratio window holds the missing bar before `jump` for 199 bars more.
        assert not np.any((warm_ts >= jump) & (warm_ts < jump + 199 * hour))
    assert frame["warm"].sum() > frame.height / 2
