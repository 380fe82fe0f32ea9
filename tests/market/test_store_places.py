"""Every place that can hold the store keeps the same promises."""

from __future__ import annotations

import json
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec  # noqa: F401 - its registry is looked up by name below
import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.support.synthetic import START_MS, random_walk_bars, random_walk_market
from tradewind.clock import ManualClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.market._files import LOCK_NAME, LocalFiles, StoreFiles, open_files
from tradewind.market._object_files import LEASE_S, ObjectFiles
from tradewind.market.active import active_set
from tradewind.market.ingest import run_ingest, store_for
from tradewind.market.recent import RecentBars
from tradewind.market.store import BarStore
from tradewind.market.views import connect
from tradewind.settings import Settings

N = 6000
STEP = 900_000
END = START_MS + N * STEP
BARS = random_walk_bars(N)
PLACES = ["folder", "file", "memory"]


def make_place(kind: str, tmp_path: Path) -> Path | str:
    """Return a place of its own for one test."""
    if kind == "folder":
        return tmp_path / "store"
    if kind == "file":
        return f"file://{tmp_path}/store"
    return f"memory://{uuid.uuid4().hex}/prefix"


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    return make_place(request.param, tmp_path)


@pytest.fixture
def files(place: Path | str) -> StoreFiles:
    return open_files(place, 0.3)


def test_files_are_replaced_whole_and_listed_sorted(files: StoreFiles) -> None:
    assert files.partitions("a/b") == []
    assert files.folders("a") == []
    with pytest.raises(FileNotFoundError):
        files.read("a/b/x.parquet")
    for name in ("2025-02.parquet", "2025-01.parquet", "note.txt", ".hidden.parquet"):
        files.write(f"a/b/{name}", b"one")
    files.write("a/c/2025-01.parquet", b"two")
    assert files.partitions("a/b") == ["a/b/2025-01.parquet", "a/b/2025-02.parquet"]
    assert files.folders("a") == ["b", "c"]
    before = files.state("a/b/2025-01.parquet")
    assert files.state("a/b/2025-01.parquet") == before
    files.write("a/b/2025-01.parquet", b"other")
    assert files.state("a/b/2025-01.parquet") != before
    assert files.read("a/b/2025-01.parquet") == b"other"
    assert files.exists("a/b/2025-01.parquet")
    files.remove("a/b/2025-01.parquet")
    files.remove("a/b/2025-01.parquet")
    assert not files.exists("a/b/2025-01.parquet")
    assert "2025-01" in files.place("a/b/2025-01.parquet")


def test_a_folder_has_one_writer(place: Path | str, files: StoreFiles) -> None:
    other = open_files(place, 0.05)
    with files.writer("a/b"):
        with pytest.raises(TradewindError) as caught, other.writer("a/b"):
            pass
        assert caught.value.code is ErrorCode.ALREADY_RUNNING
        with other.writer("a/c"):
            pass
    with other.writer("a/b"):
        pass


def test_writers_of_one_series_lose_nothing(place: Path | str) -> None:
    def write(offset: int) -> None:
        store = BarStore(place, "x_perp")
        for part in BARS.head(300).gather_every(2, offset).iter_slices(30):
            store.write_bars("BTCUSDT", "15m", part)

    writers = [threading.Thread(target=write, args=(i,)) for i in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stored = BarStore(place, "x_perp").read_bars("BTCUSDT", "15m", until_ms=END)
    assert stored.equals(BARS.head(300))


def test_the_store_is_the_same_in_every_place(place: Path | str, tmp_path: Path) -> None:
    store = BarStore(place, "x_perp")
    local = BarStore(tmp_path / "local", "x_perp")
    rates = pl.DataFrame({"ts": [START_MS], "funding_rate": [1e-4]})
    for one in (store, local):
        one.write_bars("BTCUSDT", "15m", BARS)
        one.write_bars("BTCUSDT", "15m", BARS.tail(700))
        one.write_series("funding_8h", "BTCUSDT", rates)
    assert store.read_bars("BTCUSDT", "15m", until_ms=END).equals(BARS)
    assert store.symbols("15m") == ("BTCUSDT",)
    assert store.months("15m", "BTCUSDT") == ("2025-01", "2025-02", "2025-03")
    for month in store.months("15m", "BTCUSDT"):
        key = f"x_perp/15m/BTCUSDT/{month}.parquet"
        assert store.files.read(key) == local.files.read(key)
    expected = local.fingerprint(["BTCUSDT"], "15m", until_ms=END)
    assert store.fingerprint(["BTCUSDT"], "15m", until_ms=END) == expected
    token = store.change_token("BTCUSDT", "15m")
    store.write_bars("BTCUSDT", "15m", BARS.head(1).with_columns(volume=pl.lit(1.5)))
    assert store.change_token("BTCUSDT", "15m") != token
    with connect(store) as sql:
        (row,) = (
            sql.sql("SELECT symbol, timeframe, count(*), max(ts) FROM bars GROUP BY ALL")
            .pl()
            .rows()
        )
        assert row == ("BTCUSDT", "15m", N, END - STEP)
        assert sql.sql("SELECT count(*) FROM open_interest").fetchall() == [(0,)]
        assert sql.sql("SELECT symbol, timeframe FROM funding").fetchall() == [("BTCUSDT", "8h")]


def test_recent_bars_see_what_another_writer_changes(place: Path | str) -> None:
    store = BarStore(place, "x_perp")
    store.write_bars("BTCUSDT", "15m", BARS.head(N - 1))
    recent = RecentBars(BarStore(place, "x_perp"), depth=500)
    first = recent.last("BTCUSDT", "15m", 128, until_ms=END)
    assert first.equals(BARS.slice(N - 129, 128))
    store.write_bars("BTCUSDT", "15m", BARS.tail(1))
    assert recent.last("BTCUSDT", "15m", 128, until_ms=END).equals(BARS.tail(128))
    corrected = BARS.tail(1).with_columns(close=pl.col("close") * 1.001)
    store.write_bars("BTCUSDT", "15m", corrected)
    assert recent.last("BTCUSDT", "15m", 1, until_ms=END).equals(corrected)


def test_a_whole_ingestion_into_an_object_store(
    tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    folder = tmp_path / "data" / "binance_usdm_perp_15m"
    folder.mkdir(parents=True)
    market = random_walk_market(300)
    for symbol, frame in market.items():
        frame.write_parquet(folder / f"{symbol}_15m.parquet")
    url = f"memory://{uuid.uuid4().hex}/desk"
    settings = make_settings(data=tmp_path / "data", store_url=url)
    clock = ManualClock(END)
    assert active_set(settings) is None
    assert not run_ingest(settings, clock).failed
    active = active_set(settings)
    assert active is not None
    assert active.set_id == "binance_usdm_perp"
    assert all(done.added == 0 for done in run_ingest(settings, clock).symbols)
    store = store_for(settings)
    for symbol, frame in market.items():
        assert store.read_bars(symbol, "15m", until_ms=END).equals(frame)
    assert not (tmp_path / "home" / "store").exists()


def test_the_lock_of_a_dead_writer_is_broken_after_its_lease(tmp_path: Path) -> None:
    files = open_files(make_place("memory", tmp_path), 0.05)
    for since, free in ((time.time(), False), (time.time() - LEASE_S - 1, True)):
        content = json.dumps({"owner": "dead", "since": since}).encode()
        files.write(f"a/b/{LOCK_NAME}", content)
        if free:
            with files.writer("a/b"):
                pass
        else:
            with pytest.raises(TradewindError, match="already_running"), files.writer("a/b"):
                pass
            files.remove(f"a/b/{LOCK_NAME}")


class Forgetful(MemoryFileSystem):
    """An object store that ignores the request to create only: no lock can be held on it."""

    protocol = "abfs"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: object) -> None:
        super().pipe_file(path, value, mode="overwrite", **kwargs)


def test_a_place_that_cannot_hold_a_lock_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "abfs", Forgetful)
    files = open_files("abfs://box/desk", 1.0)
    with pytest.raises(TradewindError) as caught, files.writer("a/b"):
        pass
    assert caught.value.code is ErrorCode.BAD_SETTING
    assert "lock" in caught.value.detail


@pytest.mark.parametrize("url", ["ftp://host/desk", "sftp://host/desk", "nonsense://x"])
def test_a_place_without_atomic_replacement_is_refused(url: str) -> None:
    with pytest.raises(TradewindError) as caught:
        BarStore(url, "x_perp")
    assert caught.value.code is ErrorCode.BAD_SETTING
    assert url in caught.value.detail
    assert "folder" in caught.value.hint


def test_a_password_in_the_url_is_never_shown() -> None:
    with pytest.raises(TradewindError) as caught:
        BarStore("ftp://me:s3cret@host/desk", "x_perp")
    assert "s3cret" not in str(caught.value)


def test_a_path_is_a_folder_and_a_url_an_object_store(tmp_path: Path) -> None:
    assert isinstance(open_files(str(tmp_path), 1.0), LocalFiles)
    assert isinstance(open_files("memory://x", 1.0), ObjectFiles)
