"""The market room on real exchange history."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tradewind.clock import ManualClock
from tradewind.market.ingest import run_ingest, store_for
from tradewind.market.quality import bar_quality, find_gaps
from tradewind.settings import MS_PER_DAY, Settings

pytestmark = pytest.mark.data


def files_of(data_root: Path, folder: str, symbol: str, timeframe: str) -> pl.DataFrame:
    return pl.read_parquet(data_root / folder / f"{symbol}_{timeframe}.parquet")


def test_sixty_days_are_stored_as_the_files_have_them(
    data_root: Path, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(data=data_root)
    last = files_of(data_root, "binance_usdm_perp_15m", "BTCUSDT", "15m")["ts"].to_list()[-1]
    now = last - 10 * MS_PER_DAY
    report = run_ingest(settings, ManualClock(now), since_ms=now - 60 * MS_PER_DAY)
    assert not report.failed
    store = store_for(settings)
    for symbol in settings.market.symbols:
        bars = files_of(data_root, "binance_usdm_perp_15m", symbol, "15m")
        expected = bars.filter(
            (pl.col("ts") >= now - 60 * MS_PER_DAY) & (pl.col("ts") + 900_000 <= now)
        )
        stored = store.read_bars(symbol, "15m", until_ms=now)
        assert stored.equals(expected)
        assert stored.height == 60 * 96
        rates = files_of(data_root, "binance_usdm_funding_8h", symbol, "8h")
        known = store.read_series("funding_8h", symbol, until_ms=now)
        assert known.equals(rates.filter(pl.col("ts").is_between(now - 60 * MS_PER_DAY, now)))
    assert store.quarantined().is_empty()
    assert store.gaps().is_empty()


def test_the_outages_of_a_spot_exchange_are_found(
    data_root: Path, make_settings: Callable[..., Settings]
) -> None:
    bars = files_of(data_root, "binance_spot_1h", "BTCUSDT", "1h")
    gaps = find_gaps(bars["ts"], "1h")
    assert (gaps.height, int(gaps["bars"].sum())) == (26, 121)
    settings = make_settings(
        data=data_root,
        market={"set_id": "binance_spot", "timeframe": "1h", "symbols": ("BTCUSDT",)},
    )
    now = bars["ts"].to_list()[-1] + 3_600_000
    report = run_ingest(settings, ManualClock(now), symbols=["BTCUSDT"])
    assert report.symbols[0].gaps == 26
    recorded = store_for(settings).gaps("BTCUSDT")
    assert recorded.select("from_ts", "to_ts", "bars").equals(gaps)
    assert recorded["confirmed"].all()


def test_the_flat_bars_of_the_primary_set_are_flagged_not_removed(data_root: Path) -> None:
    bars = files_of(data_root, "binance_usdm_perp_15m", "BTCUSDT", "15m")
    quality = bar_quality(bars, "15m", bars["ts"].to_list()[-1] + 900_000)
    assert quality.schema_ok
    assert quality.gaps == quality.ohlc_violations == quality.duplicates == 0
    assert quality.zero_volume_share == pytest.approx(4 / bars.height)
    assert quality.staleness_s == 0.0
