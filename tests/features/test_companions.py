"""Funding, open interest and the account ratio: as known before the close, or not at all."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.features import STEP, close_of, market, small_settings, store_of
from tests.support.synthetic import START_MS
from tradewind.clock import ManualClock
from tradewind.features.compute import compute_features
from tradewind.features.definitions import WIDE
from tradewind.features.lookahead import check_store
from tradewind.features.reading import read_features
from tradewind.features.view import FeatureView

HOUR = 4 * STEP
NAMES = ("funding_rate", "open_interest_change", "long_short_ratio")


def open_interest(*rows: tuple[int, float]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"ts": pl.Int64, "open_interest": pl.Float64}, orient="row")


def long_short(*rows: tuple[int, float]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"ts": pl.Int64, "long_short_ratio": pl.Float64}, orient="row")


def column(name: str, **series: pl.DataFrame) -> np.ndarray:
    return compute_features(market(400), "SOLUSDT", small_settings(), **series)[name].to_numpy()


def test_without_series_they_are_nan_and_rows_stay_warm() -> None:
    frame = compute_features(market(400), "SOLUSDT", small_settings())
    assert np.isnan(frame.select(NAMES).to_numpy()).all()
    assert frame["warm"].to_numpy()[300:].all()
    empty = compute_features(
        market(400), "SOLUSDT", small_settings(), open_interest=open_interest()
    )
    assert empty.equals(frame)


def test_open_interest_change_is_over_a_day_and_of_what_was_known() -> None:
    series = open_interest(
        (START_MS, 100.0), (START_MS + 24 * HOUR, 110.0), (START_MS + 28 * HOUR, 121.0)
    )
    change = column("open_interest_change", open_interest=series)
    # The bar that closes AT a survey does not know it, the next one does.
    at = 24 * 4 - 1
    assert math.isnan(change[at])
    assert change[at + 1] == pytest.approx(math.log(110 / 100))
    assert change[at + 1 + 16] == pytest.approx(math.log(121 / 100))
    # Eight hours after the first survey, a day later, nothing is known of "a day ago".
    assert np.isfinite(change[at + 1 : at + 1 + 32]).all()
    assert np.isnan(change[at + 1 + 32 :]).all()


def test_the_account_ratio_is_its_log_and_expires() -> None:
    ratio = column("long_short_ratio", long_short=long_short((START_MS + HOUR, 1.5)))
    assert np.isnan(ratio[:4]).all()
    assert ratio[4:36] == pytest.approx([math.log(1.5)] * 32)
    assert np.isnan(ratio[36:]).all()


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_value_that_cannot_be_gives_nan(bad: float) -> None:
    assert np.isnan(column("long_short_ratio", long_short=long_short((START_MS, bad)))).all()
    series = open_interest((START_MS, bad), (START_MS + 24 * HOUR, 5.0))
    assert np.isnan(column("open_interest_change", open_interest=series)).all()


def test_from_the_store_they_are_served_read_and_free_of_the_future(tmp_path: Path) -> None:
    settings, bars = small_settings(), market(1200)
    store, clock = store_of(tmp_path, bars), ManualClock(close_of(1199))
    view = FeatureView(settings, store, clock)
    places = [WIDE.index(name) for name in NAMES]
    assert np.isnan(view.latest("SOLUSDT").wide[places]).all()
    rng = np.random.default_rng(4)
    times = START_MS + 4 * HOUR * np.arange(1200 // 16)
    for kind, name in (
        ("open_interest", "open_interest"),
        ("long_short_ratio", "long_short_ratio"),
        ("funding_8h", "funding_rate"),
    ):
        values = np.exp(rng.normal(0, 0.1, len(times)))
        store.write_series(kind, "SOLUSDT", pl.DataFrame({"ts": times, name: values}))
    row = view.latest("SOLUSDT")
    assert np.isfinite(row.wide[places]).all()
    frame = read_features(
        settings, store, "SOLUSDT", start_ms=START_MS + 900 * STEP, until_ms=clock.now_ms()
    )
    assert frame.select(NAMES).row(-1) == tuple(row.wide[places])
    report = check_store(settings, clock, "SOLUSDT", store=store, rows=300)
    assert report.ok
    assert set(NAMES) <= set(report.differences)
