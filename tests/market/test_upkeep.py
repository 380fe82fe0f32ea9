"""Retention and compaction: what is dropped, what never is, and twice changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.synthetic import random_walk_bars, random_walk_market
from tradewind.clock import ManualClock
from tradewind.features.compute import compute_features
from tradewind.files import sha256_tree
from tradewind.market.ingest import run_ingest, store_for
from tradewind.market.retention import keep_from, kept_days, needed_days
from tradewind.market.store import BarStore
from tradewind.market.timeframes import regime_rows
from tradewind.market.upkeep import run_upkeep
from tradewind.settings import MS_PER_DAY, Settings, load_settings

HOUR = 3_600_000
START = 1_672_531_200_000  # 2023-01-01
N = 24 * 800
BARS = random_walk_bars(N, timeframe="1h", start_ms=START)
END = START + N * HOUR
RATES = pl.DataFrame(
    {"ts": [START + i * 8 * HOUR for i in range(N // 8)], "funding_rate": [1e-4] * (N // 8)}
)
MARKET = {"timeframe": "1h", "symbols": ("BTCUSDT",), "reference_symbols": ("BTCUSDT",)}
SHORT = {"features": {"warmup_bars": 300}, "training": {"days_back": 60}}


@pytest.fixture
def settings(tmp_path: Path, make_settings: Callable[..., Settings]) -> Settings:
    for folder, stem, frame in (
        ("binance_usdm_perp_1h", "BTCUSDT_1h", BARS),
        ("binance_usdm_funding_8h", "BTCUSDT_8h", RATES),
    ):
        path = tmp_path / "data" / folder / f"{stem}.parquet"
        path.parent.mkdir(parents=True)
        frame.write_parquet(path)
    made = make_settings(data=tmp_path / "data", market=MARKET, **SHORT)
    assert not run_ingest(made, ManualClock(END)).failed
    return made


def keeping(settings: Settings, **days: int) -> Settings:
    return load_settings(
        home=settings.home, data=settings.data, market=MARKET, retention=days, **SHORT
    )


def months(store: BarStore) -> tuple[str, ...]:
    return store.months("1h", "BTCUSDT")


def test_nothing_is_dropped_unless_it_is_asked_for(settings: Settings) -> None:
    before = sha256_tree(settings.store_root)
    report = run_upkeep(settings, ManualClock(END))
    assert report.changes == ()
    assert sha256_tree(settings.store_root) == before


def test_old_months_go_kind_by_kind_and_twice_is_once(settings: Settings) -> None:
    store, before = store_for(settings), sha256_tree(settings.store_root)
    all_months = months(store)
    wanted = keeping(settings, bars_days=400)
    dry = run_upkeep(wanted, ManualClock(END), dry_run=True)
    assert sha256_tree(settings.store_root) == before
    done = run_upkeep(wanted, ManualClock(END))
    assert dry.changes == done.changes
    assert {change.action for change in done.changes} == {"drop"}
    assert done.saved > 0
    left = months(store)
    assert all_months[-len(left) :] == left
    kept = store.read_bars("BTCUSDT", "1h", until_ms=END)
    assert 400 * 24 <= kept.height <= 431 * 24
    assert kept.equals(BARS.tail(kept.height))
    assert store.months("funding_8h", "BTCUSDT") == all_months  # funding is kept for ever
    assert run_upkeep(wanted, ManualClock(END)).changes == ()


def test_ingestion_does_not_bring_back_what_retention_dropped(settings: Settings) -> None:
    wanted = keeping(settings, bars_days=400, funding_days=400)
    run_upkeep(wanted, ManualClock(END))
    before = sha256_tree(settings.store_root)
    report = run_ingest(wanted, ManualClock(END))
    assert report.symbols[0].added == 0
    assert report.symbols[0].gaps == 0
    assert sha256_tree(settings.store_root) == before


def test_what_training_reads_is_never_dropped(settings: Settings) -> None:
    wanted = keeping(settings, bars_days=1)
    report = run_upkeep(wanted, ManualClock(END))
    assert report.kept_for_models == ("bars",)
    kept = store_for(settings).read_bars("BTCUSDT", "1h", until_ms=END)
    assert kept.height >= needed_days(wanted) * 24
    assert needed_days(wanted) >= 60 + 100  # the risk ATR runs over 100 days


def test_regimes_of_the_first_trained_row_are_those_of_the_whole_history() -> None:
    """The 4h regime looks back further than any warm-up: its bars are kept too."""
    settings = load_settings(training={"days_back": 20})
    behind = (needed_days(settings) - 20) * 96
    assert behind >= regime_rows(settings) + settings.features.window + settings.training.horizon
    names = settings.market.reference_symbols
    bars = random_walk_market((needed_days(settings) + 60) * 96, symbols=names, seed=5)
    kept = {name: frame.tail(needed_days(settings) * 96) for name, frame in bars.items()}
    columns = ["ts", "regime_state", "regime_confidence", "regime_1h", "regime_4h"]
    whole, cut = (
        compute_features(given, names[0], settings).select(columns).tail(20 * 96)
        for given in (bars, kept)
    )
    assert whole.equals(cut)
    assert whole["regime_4h"].n_unique() > 1


def test_a_feed_that_stopped_loses_nothing_with_time(settings: Settings) -> None:
    wanted = keeping(settings, bars_days=400)
    run_upkeep(wanted, ManualClock(END))
    left = months(store_for(settings))
    assert run_upkeep(wanted, ManualClock(END + 5000 * MS_PER_DAY)).changes == ()
    assert months(store_for(settings)) == left


def test_compaction_gives_the_bytes_that_the_store_writes(settings: Settings) -> None:
    before = sha256_tree(settings.store_root)
    path = store_for(settings).folder / "1h" / "BTCUSDT" / "2024-02.parquet"
    pl.read_parquet(path).write_parquet(path, compression="uncompressed", row_group_size=50)
    assert sha256_tree(settings.store_root) != before
    report = run_upkeep(settings, ManualClock(END))
    (change,) = report.changes
    assert (change.action, change.kind, change.month) == ("compact", "1h", "2024-02")
    assert change.saved > 0
    assert sha256_tree(settings.store_root) == before


def test_a_month_that_another_upkeep_has_dropped_is_no_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = keeping(settings, bars_days=100)
    expected = run_upkeep(short, ManualClock(END), dry_run=True)
    listed = BarStore.months
    gone = lambda self, kind, symbol: ("2022-01", *listed(self, kind, symbol), "2029-01")  # noqa: E731
    monkeypatch.setattr(BarStore, "months", gone)
    assert run_upkeep(short, ManualClock(END)) == replace(expected, dry_run=False)


def test_a_partition_that_is_corrupt_is_named_and_the_rest_goes_on(settings: Settings) -> None:
    folder = store_for(settings).folder / "1h" / "BTCUSDT"
    (folder / "2024-12.parquet").write_bytes(b"junk")
    wanted = keeping(settings, bars_days=400)
    report = run_upkeep(wanted, ManualClock(END))
    (error,) = report.errors
    assert "2024-12.parquet" in error
    assert report.changes


@given(days=st.integers(1, 4000), now_days=st.integers(9000, 30000))
def test_kept_months_cover_the_days_asked_for(days: int, now_days: int) -> None:
    settings = load_settings(retention={"bars_days": days})
    now = now_days * MS_PER_DAY + 12345
    oldest = keep_from(settings, "bars", now)
    kept = kept_days(settings, "bars")
    assert oldest is not None
    assert kept == max(days, needed_days(settings))
    assert 0 <= (now - kept * MS_PER_DAY) - oldest < 31 * MS_PER_DAY
    assert keep_from(settings, "funding", now) is None
