"""Last bars by memory: the same as from the files, whatever is asked and whenever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.errors import TradewindError
from tradewind.market.recent import RecentBars
from tradewind.market.store import BarStore

STEP = 900_000
N = 3500
END = START_MS + N * STEP
BARS = random_walk_bars(N)
DEPTH = 300


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    store = BarStore(tmp_path, "x_perp")
    store.write_bars("BTCUSDT", "15m", BARS)
    return store


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    until=st.integers(START_MS - STEP, END + 5 * STEP) | st.integers(END - 400 * STEP, END),
    n=st.integers(0, 2 * DEPTH),
)
def test_memory_equals_the_files(store: BarStore, until: int, n: int) -> None:
    recent = RecentBars(store, depth=DEPTH)
    expected = store.read_bars("BTCUSDT", "15m", until_ms=until, last=n)
    assert recent.last("BTCUSDT", "15m", n, until_ms=until).equals(expected)
    assert recent.last("BTCUSDT", "15m", n, until_ms=until).equals(expected)


def test_a_short_series_is_never_read_twice(tmp_path: Path) -> None:
    store = BarStore(tmp_path, "x_perp")
    store.write_bars("BTCUSDT", "15m", BARS.head(10))
    old = 1_700_000_000_000_000_000
    os.utime(store.folder / "15m" / "BTCUSDT", ns=(old, old))
    recent = RecentBars(store, depth=DEPTH)
    assert recent.last("BTCUSDT", "15m", 128, until_ms=END).equals(BARS.head(10))
    (store.folder / "15m" / "BTCUSDT" / "2025-01.parquet").write_bytes(b"in place: not seen")
    assert recent.last("BTCUSDT", "15m", 128, until_ms=END).equals(BARS.head(10))


def test_a_write_within_the_same_tick_of_the_folders_clock_is_seen(store: BarStore) -> None:
    folder = store.folder / "15m" / "BTCUSDT"
    recent = RecentBars(store, depth=DEPTH)
    before = folder.stat().st_mtime_ns
    recent.last("BTCUSDT", "15m", 5, until_ms=END)
    token = store.change_token("BTCUSDT", "15m")
    changed = BARS.tail(1).with_columns(volume=BARS["volume"].tail(1) + 1)
    store.write_bars("BTCUSDT", "15m", changed)
    os.utime(folder, ns=(before, before))  # as a coarse clock would leave it
    assert recent.last("BTCUSDT", "15m", 1, until_ms=END).equals(changed)
    assert store.change_token("BTCUSDT", "15m") != token


def test_a_symbol_that_was_never_stored_is_named(store: BarStore) -> None:
    with pytest.raises(TradewindError, match="no_bars"):
        RecentBars(store).last("XRPUSDT", "15m", 5, until_ms=END)
