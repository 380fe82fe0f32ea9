"""Real bars, served by the replay exchange and read through an unmodified ccxt, row for row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from policy.replay_exchange import ReplayExchange
from tests.support.exchange import fast_settings
from tradewind.clock import ManualClock
from tradewind.files import sha256_tree
from tradewind.market.active import store_for
from tradewind.market.folder import FolderSource
from tradewind.market.ingest import run_ingest
from tradewind.settings import MS_PER_DAY, Settings

pytestmark = pytest.mark.data

Make = Callable[..., Settings]
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
STEP = 900_000
SETS = {
    "binanceusdm": ("binance_usdm_perp_15m", "binance_usdm_funding_8h"),
    "bybit": ("bybit_linear_15m", "bybit_linear_funding_8h"),
}
FUNDING_END = {"binanceusdm": 1_777_536_000_000, "bybit": 1_777_564_800_000}


def files_of(root: Path, folder: str, symbol: str) -> pl.DataFrame:
    """Return a file of a set as it is."""
    return pl.read_parquet(root / folder / f"{symbol}_{folder.rpartition('_')[2]}.parquet")


@contextmanager
def served(root: Path, exchange_id: str, now_ms: int, folder: Path) -> Iterator[ReplayExchange]:
    """Serve a whole set at one moment."""
    set_id = SETS[exchange_id][0].removesuffix("_15m")
    sources = {exchange_id: FolderSource(root, set_id)}
    with ReplayExchange(sources, "15m", ManualClock(now_ms).now_ms, folder) as exchange:
        yield exchange


@pytest.mark.parametrize("exchange_id", SETS)
def test_a_slice_of_the_real_set_arrives_row_for_row(
    exchange_id: str, data_root: Path, tmp_path: Path, make_settings: Make
) -> None:
    now = FUNDING_END[exchange_id] + 1000  # the settlement is out some milliseconds late
    since = FUNDING_END[exchange_id] - 30 * MS_PER_DAY
    with served(data_root, exchange_id, now, tmp_path) as exchange:
        settings = make_settings(market=fast_settings(exchange))
        report = run_ingest(settings, ManualClock(now), since_ms=since)
        assert not report.failed
        before = sha256_tree(settings.store_root)
        run_ingest(settings, ManualClock(now), since_ms=since)
    assert sha256_tree(settings.store_root) == before
    store = store_for(settings)
    bars, funding = SETS[exchange_id]
    span = pl.col("ts").is_between(since, now - STEP)
    for symbol in SYMBOLS:
        stored = store.read_bars(symbol, "15m", until_ms=now)
        assert stored.equals(files_of(data_root, bars, symbol).filter(span))
        rates = store.read_series("funding_8h", symbol, until_ms=now)
        settled = pl.col("ts").is_between(since, now)
        assert rates.equals(files_of(data_root, funding, symbol).filter(settled))


def test_open_interest_of_the_real_set_arrives(
    data_root: Path, tmp_path: Path, make_settings: Make
) -> None:
    file = files_of(data_root, "binance_usdm_oi_4h", "BTCUSDT")
    now = int(file["ts"][-1]) + 1
    with served(data_root, "binanceusdm", now, tmp_path) as exchange:
        settings = make_settings(market=fast_settings(exchange))
        run_ingest(settings, ManualClock(now), symbols=["BTCUSDT"], since_ms=now - 40 * MS_PER_DAY)
    stored = store_for(settings).read_series("open_interest", "BTCUSDT", until_ms=now)
    assert stored.equals(file.select("ts", "open_interest"))


@pytest.mark.slow
def test_the_whole_primary_set_arrives_row_for_row(
    data_root: Path, tmp_path: Path, make_settings: Make
) -> None:
    files = {symbol: files_of(data_root, SETS["binanceusdm"][0], symbol) for symbol in SYMBOLS}
    now = int(files["BTCUSDT"]["ts"][-1]) + STEP
    since = int(files["BTCUSDT"]["ts"][0])
    with served(data_root, "binanceusdm", now, tmp_path) as exchange:
        settings = make_settings(market=fast_settings(exchange))
        report = run_ingest(settings, ManualClock(now), since_ms=since)
        assert [done.added for done in report.symbols] == [81_642] * 3
        assert [done.error for done in report.symbols] == [None] * 3
        before = sha256_tree(settings.store_root)
        again = run_ingest(settings, ManualClock(now), since_ms=since)
    assert [(done.added, done.replaced) for done in again.symbols] == [(0, 0)] * 3
    assert sha256_tree(settings.store_root) == before
    for symbol, file in files.items():
        assert store_for(settings).read_bars(symbol, "15m", until_ms=now).equals(file)
        rates = store_for(settings).read_series("funding_8h", symbol, until_ms=now)
        assert rates.equals(files_of(data_root, SETS["binanceusdm"][1], symbol))
