"""Ingestion from a folder: incremental, idempotent, closed bars only, one failure stops none."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.support.synthetic import START_MS, random_walk_market
from tradewind.clock import ManualClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import sha256_tree
from tradewind.market.active import ActiveSet, active_set, remember
from tradewind.market.ingest import IngestReport, SymbolIngest, run_ingest, store_for
from tradewind.settings import Settings

STEP = 900_000
N = 3200  # into a second month
END = START_MS + N * STEP
MARKET = random_walk_market(N)
BTC = MARKET["BTCUSDT"]


def with_value(frame: pl.DataFrame, row: int, column: str, value: float) -> pl.DataFrame:
    """Return the frame with one value replaced."""
    there = pl.int_range(pl.len()) == row
    return frame.with_columns(pl.when(there).then(value).otherwise(column).alias(column))


class Bars:
    """A folder of bars that a test changes between ingestions."""

    def __init__(self, root: Path, make_settings: Callable[..., Settings]) -> None:
        self.root = root
        self.make_settings = make_settings
        for symbol, frame in MARKET.items():
            self.put(symbol, frame)

    def put(self, symbol: str, frame: pl.DataFrame) -> None:
        path = self.root / "data" / "binance_usdm_perp_15m" / f"{symbol}_15m.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)

    def put_funding(self, symbol: str, frame: pl.DataFrame) -> None:
        path = self.root / "data" / "binance_usdm_funding_8h" / f"{symbol}_8h.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)

    def settings(self, home: str = "home") -> Settings:
        return self.make_settings(data=self.root / "data", home=self.root / home)

    def ingest(self, now_ms: int = END, home: str = "home", **options: object) -> IngestReport:
        return run_ingest(self.settings(home), ManualClock(now_ms), **options)  # type: ignore[arg-type]

    def stored(self, symbol: str = "BTCUSDT", home: str = "home") -> pl.DataFrame:
        store = store_for(self.settings(home))
        return store.read_bars(symbol, "15m", until_ms=END + 10**12)

    def tree(self, home: str = "home") -> str:
        return sha256_tree(self.root / home)


@pytest.fixture
def bars(tmp_path: Path, make_settings: Callable[..., Settings]) -> Bars:
    return Bars(tmp_path, make_settings)


def test_everything_of_a_folder_is_stored(bars: Bars) -> None:
    seen: list[SymbolIngest] = []
    report = bars.ingest(on_symbol=seen.append)
    assert {result.symbol for result in seen} == set(MARKET)
    assert set(report.symbols) == set(seen)
    assert (report.source_kind, report.set_id) == ("folder", "binance_usdm_perp")
    assert not report.simulated
    assert str(bars.root / "data") in report.source_name
    for symbol, frame in MARKET.items():
        assert bars.stored(symbol).equals(frame)
    assert report.symbols[0] == SymbolIngest("BTCUSDT", N, 0, 0, 0, END - STEP)


def test_twice_changes_no_byte(bars: Bars) -> None:
    holes = BTC.filter(~pl.int_range(pl.len()).is_between(50, 60))
    bars.put("BTCUSDT", with_value(holes, 7, "close", math.nan))
    bars.ingest()
    before = bars.tree()
    report = bars.ingest()
    assert bars.tree() == before
    assert all((r.added, r.replaced, r.quarantined) == (0, 0, 0) for r in report.symbols)


def test_in_steps_equals_at_once(bars: Bars) -> None:
    for rows in (1, 700, 701, 2975, 2977, N):
        bars.ingest(START_MS + rows * STEP + 5)
        assert bars.stored().equals(BTC.head(rows))
    bars.ingest(END + 5, home="other")
    assert bars.tree() == bars.tree("other")


def test_nothing_that_closes_after_the_clock_is_stored(bars: Bars) -> None:
    bars.ingest(START_MS + 100 * STEP - 1)
    assert bars.stored().height == 99
    bars.ingest(START_MS + 100 * STEP)
    assert bars.stored().height == 100


def test_since_limits_and_an_earlier_since_fills_in_before(bars: Bars) -> None:
    bars.ingest(since_ms=START_MS + 1000 * STEP + 1)
    assert bars.stored().equals(BTC.slice(1001))
    bars.ingest(since_ms=START_MS + 500 * STEP)
    assert bars.stored().equals(BTC.slice(500))
    bars.ingest(since_ms=START_MS + 2000 * STEP)
    assert bars.stored().equals(BTC.slice(500))


def test_out_of_order_and_repeated_bars_store_the_same(bars: Bars) -> None:
    bars.put("BTCUSDT", pl.concat([BTC.sample(fraction=1, shuffle=True, seed=3), BTC.head(900)]))
    bars.ingest()
    assert bars.stored().equals(BTC)


def test_a_correction_within_the_overlap_replaces(bars: Bars) -> None:
    bars.ingest(START_MS + 100 * STEP)
    bars.put("BTCUSDT", with_value(BTC, 90, "volume", 5.0))
    report = bars.ingest(START_MS + 101 * STEP)
    assert (report.symbols[0].added, report.symbols[0].replaced) == (1, 1)
    assert bars.stored()["volume"][90] == 5.0


def test_late_bars_fill_the_recorded_gap(bars: Bars) -> None:
    late = pl.int_range(pl.len()).is_between(500, 509)
    bars.put("BTCUSDT", BTC.filter(~late))
    report = bars.ingest()
    assert report.symbols[0].gaps == 1
    gaps = store_for(bars.settings()).gaps()
    first = START_MS + 500 * STEP
    assert gaps.rows() == [("BTCUSDT", "15m", first, first + 9 * STEP, 10, True)]
    bars.put("BTCUSDT", BTC)
    report = bars.ingest()
    assert (report.symbols[0].added, report.symbols[0].gaps) == (10, 0)
    assert bars.stored().equals(BTC)
    assert store_for(bars.settings()).gaps().is_empty()


def test_a_bad_bar_is_quarantined_and_leaves_an_unconfirmed_gap(bars: Bars) -> None:
    bars.put("BTCUSDT", with_value(with_value(BTC, 500, "low", -1.0), 9, "high", 1.0))
    report = bars.ingest()
    assert (report.symbols[0].quarantined, report.symbols[0].gaps) == (2, 2)
    store = store_for(bars.settings())
    assert sorted(store.quarantined()["reason"]) == ["high_below_low", "price_not_positive"]
    assert store.gaps()["confirmed"].to_list() == [False, False]
    assert bars.stored().height == N - 2


def test_funding_is_stored_where_there_is_some(bars: Bars) -> None:
    rates = pl.DataFrame(
        {"ts": [START_MS + i * 32 * STEP for i in range(90)], "funding_rate": [1e-4] * 90}
    )
    bars.put_funding("BTCUSDT", rates)
    bars.ingest(START_MS + 320 * STEP)
    store = store_for(bars.settings())
    assert store.read_series("funding_8h", "BTCUSDT", until_ms=END).height == 11
    bars.ingest()
    assert store.read_series("funding_8h", "BTCUSDT", until_ms=END).equals(rates)
    assert store.read_series("funding_8h", "ETHUSDT", until_ms=END).is_empty()


def test_one_symbol_that_fails_stops_no_other(bars: Bars) -> None:
    (bars.root / "data" / "binance_usdm_perp_15m" / "ETHUSDT_15m.parquet").write_bytes(b"junk")
    report = bars.ingest(symbols=["BTCUSDT", "ETHUSDT", "XRPUSDT"])
    assert [result.error is None for result in report.symbols] == [True, False, False]
    corrupt, unknown = (result.error or "" for result in report.failed)
    assert corrupt.startswith("corrupt_file: ")
    assert "ETHUSDT_15m.parquet" in corrupt
    assert unknown.startswith("unknown_symbol: symbol = 'XRPUSDT'")
    assert "BTCUSDT" in unknown
    assert bars.stored().equals(BTC)


def test_a_symbol_without_closed_bars_says_so(bars: Bars) -> None:
    report = bars.ingest(START_MS + STEP - 1)
    assert all("no_bars" in (result.error or "") for result in report.symbols)
    assert active_set(bars.settings()) is None


def test_a_corrupt_stored_partition_is_named_and_kept(bars: Bars) -> None:
    bars.ingest()
    store = store_for(bars.settings())
    path = store.folder / "15m" / "BTCUSDT" / "2025-02.parquet"
    path.write_bytes(b"junk")
    report = bars.ingest()
    assert [result.symbol for result in report.failed] == ["BTCUSDT"]
    assert str(path) in (report.failed[0].error or "")
    assert path.read_bytes() == b"junk"
    path.unlink()
    bars.ingest()
    assert bars.stored().equals(BTC)


def test_csv_is_read_as_well(bars: Bars, tmp_path: Path) -> None:
    folder = bars.root / "data" / "binance_usdm_perp_15m"
    (folder / "BTCUSDT_15m.parquet").unlink()
    BTC.head(1000).write_csv(folder / "BTCUSDT_15m.csv")
    BTC.slice(990).write_csv(folder / "BTCUSDT_15m_2025.csv")
    bars.ingest()
    assert bars.stored().equals(BTC)


def test_a_set_that_is_not_there_is_named_with_those_that_are(bars: Bars) -> None:
    settings = bars.make_settings(data=bars.root / "data", market={"set_id": "kraken_perp"})
    with pytest.raises(TradewindError) as caught:
        run_ingest(settings, ManualClock(END))
    assert caught.value.code is ErrorCode.NO_BARS
    assert "kraken_perp_15m" in caught.value.detail
    assert "binance_usdm_perp_15m" in caught.value.detail


def test_a_folder_that_vanished_is_unreadable(bars: Bars) -> None:
    settings = bars.settings()
    (bars.root / "data").rename(bars.root / "elsewhere")
    with pytest.raises(TradewindError) as caught:
        run_ingest(settings, ManualClock(END))
    assert caught.value.code is ErrorCode.DATA_UNREADABLE


def test_two_that_begin_at_once_do_not_take_turns_over_the_set_in_use(bars: Bars) -> None:
    other = ActiveSet(set_id="bybit_linear", source_kind="ccxt", source_name="bybit")

    def the_other_was_faster(_: SymbolIngest) -> None:
        remember(bars.settings(), other, None)

    with pytest.raises(TradewindError) as caught:
        bars.ingest(on_symbol=the_other_was_faster)
    assert caught.value.code is ErrorCode.ALREADY_RUNNING
    assert "bybit_linear" in caught.value.detail
    assert active_set(bars.settings()) == other
    bars.ingest()  # a later one may change it: its settings say so
    assert store_for(bars.settings()).set_id == "binance_usdm_perp"


def test_the_active_set_is_remembered_and_a_broken_memory_is_named(bars: Bars) -> None:
    assert store_for(bars.settings()).set_id == "binance_usdm_perp"
    simulated = bars.make_settings(home=bars.root / "home", market={"source": "simulated"})
    report = run_ingest(simulated, ManualClock(END), since_ms=START_MS)
    assert report.simulated
    assert store_for(bars.settings()).set_id == "simulated_usdm_perp"
    active = active_set(simulated)
    assert active is not None
    assert active.simulated
    bars.ingest()
    assert store_for(simulated).set_id == "binance_usdm_perp"
    (bars.settings().store_root / "active.json").write_text("{")
    with pytest.raises(TradewindError, match=r"corrupt_file: .*active\.json"):
        store_for(bars.settings())
