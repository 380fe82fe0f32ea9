"""The checker finds features that know the future, and clears those that do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.features import close_of, market, real_bars, small_settings, store_of
from tests.support.synthetic import START_MS
from tradewind.clock import ManualClock
from tradewind.features import lookahead
from tradewind.features.compute import compute_features
from tradewind.features.definitions import REQUIRED_FEATURES, WIDE
from tradewind.features.lookahead import check_lookahead, check_parity, check_store
from tradewind.features.view import FeatureView
from tradewind.settings import MS_PER_DAY, load_settings

Bars = Mapping[str, pl.DataFrame]
CLOSE = pl.col("close")
PEEKS: dict[str, pl.Expr] = {
    "next_return": (CLOSE.shift(-1) / CLOSE).log(),
    "centred_mean": CLOSE / CLOSE.rolling_mean(9, center=True) - 1,
    "whole_sample_z": (CLOSE - CLOSE.mean()) / CLOSE.std(),
    "filled_backwards": CLOSE.pct_change().shift(-3).fill_null(0.0),
}


def with_peek(peek: pl.Expr) -> Callable[[Bars], pl.DataFrame]:
    """Return honest features and a planted one."""

    def compute(bars: Bars) -> pl.DataFrame:
        honest = compute_features(bars, "SOLUSDT", small_settings())
        return honest.with_columns(peek.alias("planted"))

    return compute


@pytest.mark.parametrize("name", PEEKS)
def test_a_planted_peek_is_caught_alone(name: str) -> None:
    bars = market(450)
    cuts = bars["SOLUSDT"]["ts"][350:440:30].to_list()
    report = check_lookahead(with_peek(PEEKS[name]), bars, cuts=cuts)
    assert report.offending == ("planted",)
    assert not report.ok
    assert report.differences["planted"] > 1e-3
    assert report.cuts == 3


def test_a_future_read_from_another_market_is_caught() -> None:
    def compute(bars: Bars) -> pl.DataFrame:
        lead = bars["BTCUSDT"].select("ts", peek=pl.col("close").shift(-1).log())
        return compute_features(bars, "SOLUSDT", small_settings()).join(lead, on="ts", how="left")

    bars = market(400)
    report = check_lookahead(compute, bars, cuts=bars["SOLUSDT"]["ts"][380:383].to_list())
    assert report.offending == ("peek",)


def test_our_features_do_not_look_ahead() -> None:
    bars = market(1500, seed=2)
    cuts = bars["SOLUSDT"]["ts"].sample(12, seed=1).to_list()
    for symbol in ("BTCUSDT", "SOLUSDT"):
        report = check_lookahead(
            lambda b, s=symbol: compute_features(b, s, small_settings()), bars, cuts=cuts
        )
        assert report.ok, report.offending
        assert max(report.differences.values()) == 0.0


@pytest.mark.data
def test_no_lookahead_and_parity_at_random_cuts_on_real_bars(data_root: Path) -> None:
    """From full history, and from the warm-up alone, a row is the same to 1e-9."""
    settings = load_settings()
    bars = real_bars(data_root)
    full = {s: compute_features(bars, s, settings) for s in ("BTCUSDT", "SOLUSDT")}
    rng = np.random.default_rng(11)
    rows = np.concatenate([rng.integers(4000, full["BTCUSDT"].height, 38), [28_930, 28_936]])
    for symbol, batch in full.items():
        live = []
        for row in rows.tolist():
            short = {s: frame[row - 3000 : row + 1] for s, frame in bars.items()}
            live.append(compute_features(short, symbol, settings)[-1])
        tail = pl.concat(live).sort("ts")
        expected = batch[np.sort(rows)]
        assert tail["warm"].all()
        for name in (*REQUIRED_FEATURES, "close", "atr"):
            np.testing.assert_allclose(
                tail[name].to_numpy(), expected[name].to_numpy(), rtol=1e-9, atol=1e-13
            )


@pytest.mark.data
def test_what_is_served_from_a_store_is_the_batch_to_the_bit(
    data_root: Path, tmp_path: Path
) -> None:
    settings = load_settings()
    newest = {s: frame.tail(9000) for s, frame in real_bars(data_root).items()}
    store = store_of(tmp_path, newest)
    clock = ManualClock(0)
    view = FeatureView(settings, store, clock)
    rng = np.random.default_rng(3)
    ts = newest["ETHUSDT"]["ts"].to_numpy()
    rows = []
    for row in np.sort(rng.integers(5300, 9000, 40)).tolist():
        clock.set(int(ts[row]) + 900_000)
        rows.append(view.latest("ETHUSDT"))
    batch = compute_features(newest, "ETHUSDT", settings)
    report = check_parity(batch, rows)
    assert report.ok
    assert max(report.differences.values()) == 0.0
    wrong = [replace(rows[0], wide=rows[0].wide * (1 + 1e-6))]
    assert "range" in check_parity(batch, wrong).offending


def test_the_store_check_reports_figures(tmp_path: Path) -> None:
    settings = small_settings()
    bars = market(1200)
    store = store_of(tmp_path, bars)
    report = check_store(
        settings, ManualClock(close_of(1199)), "SOLUSDT", store=store, rows=200, cuts=4
    )
    assert report.ok
    assert (report.cuts, report.bad_values) == (4, 0)
    assert set(WIDE) <= set(report.differences)
    assert report.rows > 4 * 300


def test_the_store_check_counts_bad_values_but_not_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, clock = small_settings(), ManualClock(close_of(1199))
    bars = market(1200)
    bars["SOLUSDT"] = bars["SOLUSDT"].filter(pl.col("ts") != START_MS + 1100 * 900_000)
    store = store_of(tmp_path, bars)
    assert check_store(settings, clock, "SOLUSDT", store=store, rows=300).bad_values == 0

    def broken(given: Bars, symbol: str, *args: object, **kwargs: object) -> pl.DataFrame:
        frame = compute_features(given, symbol, settings)
        late = pl.col("ts") == START_MS + 1090 * 900_000
        return frame.with_columns(
            pl.when(late).then(float("nan")).otherwise("rsi_14").alias("rsi_14"),
            pl.when(late).then(float("inf")).otherwise("funding_rate").alias("funding_rate"),
        )

    monkeypatch.setattr(lookahead, "compute_features", broken)
    assert check_store(settings, clock, "SOLUSDT", store=store, rows=300).bad_values == 2


def test_the_store_check_sees_funding_from_the_future(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path, market(1200))
    eight_hours = MS_PER_DAY // 3
    store.write_series(
        "funding_8h",
        "SOLUSDT",
        pl.DataFrame(
            {
                "ts": [START_MS + i * eight_hours for i in range(38)],
                "funding_rate": [1e-4 * (i % 7) for i in range(38)],
            }
        ),
    )
    settings, clock = small_settings(), ManualClock(close_of(1199))
    assert check_store(settings, clock, "SOLUSDT", store=store).ok

    def peeking(
        given: Bars, symbol: str, *args: object, funding: pl.DataFrame, **kwargs: pl.DataFrame
    ) -> pl.DataFrame:
        early = funding.with_columns(pl.col("ts") - eight_hours)
        return compute_features(given, symbol, settings, funding=early, **kwargs)

    monkeypatch.setattr(lookahead, "compute_features", peeking)
    assert check_store(settings, clock, "SOLUSDT", store=store).offending == ("funding_rate",)
