"""Companion series, young symbols, long downloads, and bars that nobody should believe."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.support.synthetic import START_MS, random_walk_market
from tradewind.clock import ManualClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import sha256_tree
from tradewind.market.folder import FolderSource
from tradewind.market.ingest import SeriesIngest, SymbolIngest, Work, run_ingest, store_for
from tradewind.market.repair import run_repair
from tradewind.market.sources import SourceKind
from tradewind.market.store import BarStore
from tradewind.settings import Settings

STEP, HOUR = 900_000, 3_600_000
N = 3200
END = START_MS + N * STEP
MARKET = random_walk_market(N)
BTC = MARKET["BTCUSDT"]
OPEN_INTEREST = pl.DataFrame(
    {
        "ts": [START_MS + i * 4 * HOUR for i in range(200)],
        "open_interest": [1000.0 + i for i in range(200)],
    }
)
RATIO = pl.DataFrame(
    {
        "ts": [START_MS + i * 4 * HOUR for i in range(200)],
        "long_short_ratio": [1.5 + i / 100 for i in range(200)],
    }
)


class RecordingSource(FolderSource):
    """A folder that is asked like an exchange, remembering what it was asked for."""

    kind: SourceKind = "ccxt"

    def __init__(self, root: Path, set_id: str) -> None:
        super().__init__(root, set_id)
        self.asked: list[tuple[str, int, int]] = []
        self.reach = True

    async def fetch_bars(
        self, symbol: str, timeframe: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame:
        self.asked.append(("bars", since_ms, until_ms))
        return await super().fetch_bars(symbol, timeframe, since_ms, until_ms)

    async def fetch_open_interest(
        self, symbol: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame | None:
        self.asked.append(("open_interest", since_ms, until_ms))
        if not self.reach:
            raise TradewindError(ErrorCode.EXCHANGE_UNREACHABLE, "no route", "Wait")
        return OPEN_INTEREST.filter(pl.col("ts").is_between(since_ms, until_ms))

    async def fetch_long_short_ratio(
        self, symbol: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame | None:
        bad = pl.DataFrame(
            {"ts": [START_MS + 1, None, END + 1], "long_short_ratio": [math.nan, 1.0, 2.0]}
        )
        return pl.concat([RATIO, bad]).filter(pl.col("ts").is_null() | (pl.col("ts") >= since_ms))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "binance_usdm_perp_15m"
    path.mkdir(parents=True)
    for symbol, frame in MARKET.items():
        frame.write_parquet(path / f"{symbol}_15m.parquet")
    return tmp_path / "data"


@pytest.fixture
def settings(folder: Path, make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(data=folder, market={"chunk_bars": 1000, "history_days": 400})


@pytest.fixture
def source(folder: Path) -> RecordingSource:
    return RecordingSource(folder, "binance_usdm_perp")


def work(settings: Settings, source: RecordingSource, now: int = END, **more: int) -> Work:
    return Work(settings, source, BarStore(settings.store_root, source.set_id), now, **more)


def ingest(task: Work, symbol: str = "BTCUSDT") -> SymbolIngest:
    return asyncio.run(task.ingest(symbol))


def test_companions_are_stored_and_unusable_rows_counted(
    settings: Settings, source: RecordingSource
) -> None:
    task = work(settings, source)
    done = ingest(task)
    assert done.error is None
    last = int(OPEN_INTEREST["ts"][-1])
    assert done.series == (
        SeriesIngest("open_interest", 200, 0, 0, last),
        SeriesIngest("long_short_ratio", 200, 0, 3, last),
    )  # and no funding, which this folder does not have
    read = task.store.read_series
    assert read("open_interest", "BTCUSDT", until_ms=END).equals(OPEN_INTEREST)
    assert read("long_short_ratio", "BTCUSDT", until_ms=END).equals(RATIO)


def test_twice_changes_no_byte_and_asks_only_for_the_end(
    settings: Settings, source: RecordingSource
) -> None:
    ingest(work(settings, source))
    before = sha256_tree(settings.store_root)
    source.asked.clear()
    again = ingest(work(settings, source))
    assert sha256_tree(settings.store_root) == before
    assert (again.added, again.replaced) == (0, 0)
    assert [s.added + s.replaced for s in again.series] == [0, 0]
    assert source.asked == [
        ("bars", END - 11 * STEP, END),
        ("open_interest", int(OPEN_INTEREST["ts"][-1]), END),
    ]


def test_a_young_symbol_is_asked_for_its_past_once(
    settings: Settings, source: RecordingSource
) -> None:
    later = END + 40 * STEP
    ingest(work(settings, source))
    assert min(start for _, start, _ in source.asked) < START_MS
    source.asked.clear()
    ingest(work(settings, source, later))
    assert min(start for _, start, _ in source.asked) >= START_MS
    source.asked.clear()
    ingest(work(settings, source, later, since_ms=START_MS - 500 * 96 * STEP))
    assert min(start for _, start, _ in source.asked) < START_MS  # asked for by name


def test_a_long_download_is_stored_piece_by_piece(
    settings: Settings, source: RecordingSource
) -> None:
    ingest(work(settings, source))
    spans = [end - start for kind, start, end in source.asked if kind == "bars"]
    assert len(spans) > 3
    assert max(spans) == 1000 * STEP
    store = BarStore(settings.store_root, source.set_id)
    assert store.read_bars("BTCUSDT", "15m", until_ms=END).equals(BTC)


def test_a_companion_out_of_reach_leaves_the_bars_and_says_why(
    settings: Settings, source: RecordingSource
) -> None:
    source.reach = False
    done = ingest(work(settings, source))
    assert done.error_code is ErrorCode.EXCHANGE_UNREACHABLE
    assert (done.added, done.last_ts) == (N, END - STEP)
    assert done.series == ()


def test_companions_are_in_the_fingerprint(settings: Settings, source: RecordingSource) -> None:
    prints = set()
    for kinds in (("bars",), ("open_interest",), ("long_short_ratio",)):
        task = work(settings, source)
        asyncio.run(
            Work(settings, source, task.store, END, kinds=frozenset(kinds)).ingest("BTCUSDT")  # type: ignore[arg-type]
        )
        prints.add(task.store.fingerprint(["BTCUSDT"], "15m", until_ms=END))
    assert len(prints) == 3


def test_a_confirmed_gap_stays_confirmed_when_it_is_not_asked_for_again(
    folder: Path, make_settings: Callable[..., Settings]
) -> None:
    row = pl.int_range(pl.len())
    holes = BTC.filter(~(row.is_between(300, 303) | row.is_between(900, 901) | (row == 2000)))
    holes.write_parquet(folder / "binance_usdm_perp_15m" / "BTCUSDT_15m.parquet")
    settings = make_settings(data=folder, market={"gap_requests": 2})
    run_ingest(settings, ManualClock(END), symbols=["BTCUSDT"])
    gaps = store_for(settings).gaps("BTCUSDT")
    assert gaps["confirmed"].to_list() == [False, True, True]  # newest first
    run_ingest(settings, ManualClock(END), symbols=["BTCUSDT"])
    assert store_for(settings).gaps("BTCUSDT")["confirmed"].all()


def test_confirmed_outages_of_an_exchange_are_asked_for_in_turn(
    settings: Settings, source: RecordingSource
) -> None:
    starts = (300, 900, 2000)
    path = source.root / "binance_usdm_perp_15m" / "BTCUSDT_15m.parquet"
    BTC.filter(~pl.int_range(pl.len()).is_in(starts)).write_parquet(path)
    assert ingest(work(settings, source)).gaps == 3
    holes = {START_MS + place * STEP for place in starts}

    def asked(now: int) -> list[int]:
        source.asked.clear()
        ingest(work(settings, source, now))
        return [start for kind, start, _ in source.asked if kind == "bars" and start in holes]

    turns = [asked(END + run * STEP) for run in range(3)]
    assert sorted(turns) == [[start] for start in sorted(holes)]
    BTC.write_parquet(path)  # the exchange has found its bars
    assert [ingest(work(settings, source, END + run * STEP)).gaps for run in range(3)][-1] == 0
    assert work(settings, source).store.timestamps("BTCUSDT", "15m").equals(BTC["ts"])


PLANTED = {
    10: ("close", math.nan),
    20: ("high", math.inf),
    30: ("high", 0.001),
    40: ("volume", -1.0),
    50: ("low", -5.0),
}
OFF_GRID = BTC.slice(60, 1).with_columns(pl.col("ts") + 1)
FUTURE = BTC.slice(70, 1).with_columns(ts=pl.lit(END + 96 * STEP))
REASONS = {
    "future": 1,
    "high_below_low": 1,
    "infinite": 1,
    "nan": 1,
    "negative_volume": 1,
    "off_grid": 1,
    "price_not_positive": 1,
}


class Careless(FolderSource):
    """A source that also hands out a bar which has not happened yet."""

    kind: SourceKind = "ccxt"

    async def fetch_bars(
        self, symbol: str, timeframe: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame:
        return pl.concat([await super().fetch_bars(symbol, timeframe, since_ms, until_ms), FUTURE])


def test_every_planted_bad_bar_is_refused_and_the_rest_stored(
    folder: Path, make_settings: Callable[..., Settings]
) -> None:
    bad, row = BTC, pl.int_range(pl.len())
    for place, (column, value) in PLANTED.items():
        bad = bad.with_columns(pl.when(row == place).then(value).otherwise(column).alias(column))
    pl.concat([bad, OFF_GRID]).write_parquet(
        folder / "binance_usdm_perp_15m" / "BTCUSDT_15m.parquet"
    )
    settings = make_settings(data=folder)
    store = BarStore(settings.store_root, "binance_usdm_perp")
    task = Work(settings, Careless(folder, store.set_id), store, END)
    done = asyncio.run(task.ingest("BTCUSDT"))
    assert (done.error, done.quarantined, done.gaps) == (None, 7, len(PLANTED))
    reasons = store.quarantined("BTCUSDT").group_by("reason").len().sort("reason").rows()
    assert dict(reasons) == REASONS
    stored = store.read_bars("BTCUSDT", "15m", until_ms=END)
    assert stored.equals(BTC.filter(~row.is_in(list(PLANTED))))
    before = sha256_tree(settings.store_root)
    assert asyncio.run(task.ingest("BTCUSDT")).quarantined == 0
    assert sha256_tree(settings.store_root) == before


def test_repair_fills_and_corrects_and_a_dry_run_tells_it_before(
    folder: Path, make_settings: Callable[..., Settings]
) -> None:
    path = folder / "binance_usdm_perp_15m" / "BTCUSDT_15m.parquet"
    row = pl.int_range(pl.len())
    BTC.filter(~row.is_between(500, 509)).with_columns(
        pl.when(row == 3000).then(7.0).otherwise("volume").alias("volume")
    ).write_parquet(path)
    settings, clock = make_settings(data=folder), ManualClock(END)
    run_ingest(settings, clock)
    BTC.write_parquet(path)
    before = sha256_tree(settings.store_root)
    dry = run_repair(settings, clock, symbols=["BTCUSDT", "XRPUSDT"], last_bars=400, dry_run=True)
    assert sha256_tree(settings.store_root) == before
    done = run_repair(settings, clock, symbols=["BTCUSDT"], last_bars=400)
    assert dry.symbols[0] == done.symbols[0]
    assert "no_bars" in (dry.symbols[1].error or "")
    assert (done.symbols[0].added, done.symbols[0].replaced) == (10, 1)
    assert (done.symbols[0].gaps_before, done.symbols[0].gaps_after) == (1, 0)
    store = store_for(settings)
    assert store.read_bars("BTCUSDT", "15m", until_ms=END).equals(BTC)
    assert store.gaps("BTCUSDT").is_empty()
