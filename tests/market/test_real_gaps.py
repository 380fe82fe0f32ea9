"""The outages of a real exchange: found, recorded, never filled, and no feature across them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tradewind.clock import ManualClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.view import FeatureView
from tradewind.market.ingest import run_ingest, store_for
from tradewind.settings import Settings

pytestmark = pytest.mark.data
HOUR = 3_600_000
GAPS, MISSING = 26, 121


def test_real_outages_are_recorded_and_no_feature_reaches_across_one(
    data_root: Path, make_settings: Callable[..., Settings]
) -> None:
    bars = pl.read_parquet(data_root / "binance_spot_1h" / "BTCUSDT_1h.parquet")
    now = int(bars["ts"][-1]) + HOUR
    settings = make_settings(data=data_root, market={"set_id": "binance_spot", "timeframe": "1h"})
    report = run_ingest(settings, ManualClock(now))
    assert not report.failed
    store = store_for(settings)
    gaps = store.gaps("BTCUSDT")
    assert (gaps.height, gaps["bars"].sum(), gaps["confirmed"].sum()) == (GAPS, MISSING, GAPS)
    assert store.read_bars("BTCUSDT", "1h", until_ms=now).equals(bars)

    view = FeatureView(settings, store, ManualClock(now))
    frame = view.frame("BTCUSDT", start_ms=0, until_ms=now)
    assert frame["ts"].equals(bars["ts"])
    after = gaps["to_ts"] + HOUR
    first_rows = frame.filter(pl.col("ts").is_in(after.implode()))
    assert first_rows.height == GAPS
    for name in ("ret_1", "z_20", "vol_20"):
        assert first_rows[name].is_finite().sum() == 0, name
    for ts in after:
        with pytest.raises(TradewindError) as caught:
            view.at("BTCUSDT", ts)
        assert caught.value.code is ErrorCode.NOT_ENOUGH_BARS
    assert view.latest("BTCUSDT").bar_ts == now - HOUR  # long after the last outage
