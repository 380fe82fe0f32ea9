"""SQL over the store."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.market.store import BarStore
from tradewind.market.views import connect

STEP = 900_000
VIEWS = ("bars", "funding", "open_interest", "long_short_ratio", "quarantine", "gaps")


def test_an_empty_store_has_all_views_with_their_columns(tmp_path: Path) -> None:
    with connect(BarStore(tmp_path, "x_perp")) as connection:
        for view in VIEWS:
            frame = connection.sql(f"SELECT * FROM {view}").pl()
            assert frame.is_empty()
            assert frame.columns[:2] == ["symbol", "timeframe"]


def test_views_equal_what_the_store_reads(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "it's here", "x_perp")
    bars = random_walk_bars(4000)
    store.write_bars("BTCUSDT", "15m", bars)
    store.write_bars("ETHUSDT", "15m", bars.head(10))
    store.write_bars("BTCUSDT", "1h", random_walk_bars(5, timeframe="1h"))
    rates = pl.DataFrame({"ts": [START_MS], "funding_rate": [1e-4]})
    store.write_series("funding_8h", "BTCUSDT", rates)
    bad = bars.head(1).with_columns(pl.lit("nan").alias("reason"))
    store.add_quarantine("BTCUSDT", "15m", bad)
    gaps = pl.DataFrame(
        {"from_ts": [START_MS], "to_ts": [START_MS], "bars": [1], "confirmed": [True]}
    )
    store.replace_gaps("ETHUSDT", "15m", gaps)
    with connect(store) as connection:
        counts = connection.sql(
            "SELECT symbol, timeframe, count(*) FROM bars GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        assert counts == [
            ("BTCUSDT", "15m", 4000),
            ("BTCUSDT", "1h", 5),
            ("ETHUSDT", "15m", 10),
        ]
        stored = connection.sql(
            "SELECT ts, open, high, low, close, volume FROM bars"
            " WHERE symbol = 'BTCUSDT' AND timeframe = '15m' ORDER BY ts"
        ).pl()
        assert stored.equals(bars)
        assert connection.sql("SELECT * FROM funding").fetchall() == [
            ("BTCUSDT", "8h", START_MS, 1e-4)
        ]
        assert connection.sql("SELECT symbol, timeframe, reason FROM quarantine").fetchall() == [
            ("BTCUSDT", "15m", "nan")
        ]
        assert connection.sql("SELECT * FROM gaps").fetchall() == [
            ("ETHUSDT", "15m", START_MS, START_MS, 1, True)
        ]


def test_a_view_sees_what_is_written_later(tmp_path: Path) -> None:
    store = BarStore(tmp_path, "x_perp")
    store.write_bars("BTCUSDT", "15m", random_walk_bars(10))
    with connect(store) as connection:
        store.write_bars("BTCUSDT", "15m", random_walk_bars(3500))
        assert connection.sql("SELECT count(*) FROM bars").fetchall() == [(3500,)]
