"""The store: closed bars only, byte-identical rewrites, fingerprints, clear errors."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import sha256_tree
from tradewind.market._files import LocalFiles
from tradewind.market.sets import bars_folder, companion_folder
from tradewind.market.store import BarStore, WriteReport

STEP = 900_000
N = 6000  # January to March
END = START_MS + N * STEP
BARS = random_walk_bars(N)


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    """Return a store with three months of one symbol."""
    store = BarStore(tmp_path / "store", "x_perp")
    assert store.write_bars("BTCUSDT", "15m", BARS) == WriteReport(N, 0, 3)
    return store


def partition(store: BarStore, month: str = "2025-02") -> Path:
    return store.folder / "15m" / "BTCUSDT" / f"{month}.parquet"


def test_folder_names() -> None:
    assert bars_folder("binance_usdm_perp", "15m") == "binance_usdm_perp_15m"
    assert companion_folder("binance_usdm_perp", "oi", "4h") == "binance_usdm_oi_4h"
    assert companion_folder("bybit_linear", "funding", "8h") == "bybit_linear_funding_8h"


def test_bars_come_back_whole(store: BarStore) -> None:
    assert store.read_bars("BTCUSDT", "15m", until_ms=END).equals(BARS)
    assert store.symbols("15m") == ("BTCUSDT",)
    assert store.symbols("1h") == ()
    assert store.first_ts("BTCUSDT", "15m") == START_MS
    assert store.last_ts("BTCUSDT", "15m") == END - STEP
    assert store.last_ts("ETHUSDT", "15m") is None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    until=st.integers(START_MS - STEP, END + STEP),
    start=st.none() | st.integers(START_MS - STEP, END + STEP),
    last=st.none() | st.integers(0, N + 10),
)
def test_only_bars_closed_at_the_clock_are_read(
    store: BarStore, until: int, start: int | None, last: int | None
) -> None:
    got = store.read_bars("BTCUSDT", "15m", until_ms=until, start_ms=start, last=last)
    expected = BARS.filter(pl.col("ts") + STEP <= until)
    if start is not None:
        expected = expected.filter(pl.col("ts") >= start)
    assert got.equals(expected if last is None else expected.tail(last))


def test_a_store_that_remembers_reads_what_is_stored_now(
    store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = BarStore(store.root, store.set_id, remembered=2)
    reads: list[str] = []
    read = LocalFiles.read

    def counted(files: LocalFiles, key: str) -> bytes:
        reads.append(key[-15:-8])
        return read(files, key)

    def told() -> pl.DataFrame:
        return reader.read_bars("BTCUSDT", "15m", until_ms=END, start_ms=START_MS + 3000 * STEP)

    assert told().equals(BARS[3000:])
    monkeypatch.setattr(LocalFiles, "read", counted)
    assert told().equals(BARS[3000:])
    assert reads == []
    corrected = BARS[5000:5001].with_columns(pl.col("volume") * 2)
    store.write_bars("BTCUSDT", "15m", corrected)
    reads.clear()
    assert told()["volume"][2000] == corrected["volume"][0]
    assert reads == ["2025-02"]
    assert reader.read_bars("BTCUSDT", "15m", until_ms=END).height == N  # three do not fit
    partition(store, "2025-03").unlink()
    assert told().height == BARS.filter(pl.col("ts") < 1_740_787_200_000)[3000:].height


def test_a_read_opens_only_the_partitions_it_needs(store: BarStore) -> None:
    partition(store, "2025-01").write_bytes(b"broken")
    assert store.read_bars("BTCUSDT", "15m", until_ms=END, last=100).height == 100
    march = START_MS + 59 * 96 * STEP
    assert store.read_bars("BTCUSDT", "15m", until_ms=END, start_ms=march).height == N - 59 * 96
    with pytest.raises(TradewindError):
        store.read_bars("BTCUSDT", "15m", until_ms=END, last=N)


def test_the_same_rows_in_any_order_and_split_give_the_same_bytes(
    store: BarStore, tmp_path: Path
) -> None:
    other = BarStore(tmp_path / "other", "x_perp")
    rng = random.Random(5)
    shuffled = BARS.sample(fraction=1, shuffle=True, seed=1)
    at = 0
    while at < N:
        size = rng.randint(500, 2500)
        other.write_bars("BTCUSDT", "15m", shuffled.slice(max(0, at - 50), size + 50))
        at += size
    assert sha256_tree(other.root) == sha256_tree(store.root)


def test_writing_again_changes_no_byte_and_no_file(store: BarStore) -> None:
    before = sha256_tree(store.root)
    times = {path: path.stat().st_mtime_ns for path in store.root.rglob("*.parquet")}
    token = store.change_token("BTCUSDT", "15m")
    assert store.write_bars("BTCUSDT", "15m", BARS.tail(500)) == WriteReport()
    assert sha256_tree(store.root) == before
    assert times == {path: path.stat().st_mtime_ns for path in store.root.rglob("*.parquet")}
    assert store.change_token("BTCUSDT", "15m") == token


def test_a_corrected_bar_replaces_and_shows_everywhere(store: BarStore) -> None:
    print_before = store.fingerprint(["BTCUSDT"], "15m", until_ms=END)
    token = store.change_token("BTCUSDT", "15m")
    corrected = BARS.slice(10, 2).with_columns(
        pl.when(pl.int_range(pl.len()) == 0).then(1.5).otherwise("volume").alias("volume")
    )
    assert store.write_bars("BTCUSDT", "15m", corrected) == WriteReport(0, 1, 1)
    assert store.read_bars("BTCUSDT", "15m", until_ms=END)["volume"][10] == 1.5
    assert store.fingerprint(["BTCUSDT"], "15m", until_ms=END) != print_before
    assert store.change_token("BTCUSDT", "15m") != token


def test_fingerprint_is_of_content_up_to_the_clock(store: BarStore, tmp_path: Path) -> None:
    middle = START_MS + 3500 * STEP + 17
    shorter = BarStore(tmp_path / "shorter", "x_perp")
    shorter.write_bars("BTCUSDT", "15m", BARS.filter(pl.col("ts") + STEP <= middle))
    expected = shorter.fingerprint(["BTCUSDT"], "15m", until_ms=middle)
    assert store.fingerprint(["BTCUSDT"], "15m", until_ms=middle) == expected
    assert store.fingerprint(["BTCUSDT"], "15m", until_ms=END) != expected
    for path in store.root.rglob("*.parquet"):  # other encoding, same content
        pl.read_parquet(path).write_parquet(path, compression="snappy", row_group_size=100)
    assert store.fingerprint(["BTCUSDT"], "15m", until_ms=middle) == expected


def test_fingerprint_names_its_symbols_whatever_their_order(store: BarStore) -> None:
    store.write_bars("ETHUSDT", "15m", BARS)
    both = store.fingerprint(["BTCUSDT", "ETHUSDT"], "15m", until_ms=END)
    assert both == store.fingerprint(["ETHUSDT", "BTCUSDT"], "15m", until_ms=END)
    one = store.fingerprint(["BTCUSDT"], "15m", until_ms=END)
    assert len({both, one, store.fingerprint(["ETHUSDT"], "15m", until_ms=END)}) == 3


def test_side_by_side_sets_never_mix(store: BarStore) -> None:
    other = BarStore(store.root, "y_linear")
    other.write_bars("BTCUSDT", "15m", BARS.head(5))
    assert other.read_bars("BTCUSDT", "15m", until_ms=END).height == 5
    assert store.read_bars("BTCUSDT", "15m", until_ms=END).height == N


def test_series_are_known_from_their_time_on(store: BarStore) -> None:
    rates = pl.DataFrame({"ts": [START_MS, START_MS + 100], "funding_rate": [1e-4, 2e-4]})
    assert store.read_series("funding_8h", "BTCUSDT", until_ms=END).columns == list(rates.columns)
    assert store.write_series("funding_8h", "BTCUSDT", rates).added == 2
    early = store.read_series("funding_8h", "BTCUSDT", until_ms=START_MS + 99)
    assert early.equals(rates.head(1))
    late = store.read_series("funding_8h", "BTCUSDT", until_ms=END, start_ms=START_MS + 1)
    assert late.equals(rates.tail(1))
    with pytest.raises(TradewindError, match="bad_input: series kind"):
        store.read_series("weather_8h", "BTCUSDT", until_ms=END)


def test_quarantine_keeps_each_bad_bar_once(store: BarStore) -> None:
    bad = BARS.head(2).with_columns(
        pl.lit(float("nan")).alias("close"), pl.lit("nan").alias("reason")
    )
    assert store.quarantined().is_empty()
    assert store.add_quarantine("BTCUSDT", "15m", bad) == 2
    assert store.add_quarantine("BTCUSDT", "15m", bad.reverse()) == 0
    table = store.quarantined("BTCUSDT")
    assert table.select("symbol", "timeframe", "reason").row(0) == ("BTCUSDT", "15m", "nan")
    assert table.height == 2
    assert store.quarantined("ETHUSDT").is_empty()


def test_gaps_are_replaced_as_a_whole(store: BarStore) -> None:
    gaps = pl.DataFrame(
        {"from_ts": [START_MS], "to_ts": [START_MS], "bars": [1], "confirmed": [True]}
    )
    store.replace_gaps("BTCUSDT", "15m", gaps)
    assert store.gaps().row(0) == ("BTCUSDT", "15m", START_MS, START_MS, 1, True)
    store.replace_gaps("BTCUSDT", "15m", gaps.clear())
    assert store.gaps().is_empty()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all" * 100])
def test_a_corrupt_partition_is_named_with_its_remedy(store: BarStore, content: bytes) -> None:
    partition(store).write_bytes(content)
    for attempt in (
        lambda: store.read_bars("BTCUSDT", "15m", until_ms=END),
        lambda: store.fingerprint(["BTCUSDT"], "15m", until_ms=END),
        lambda: store.write_bars("BTCUSDT", "15m", BARS),
    ):
        with pytest.raises(TradewindError) as caught:
            attempt()
        assert caught.value.code is ErrorCode.CORRUPT_FILE
        assert str(partition(store)) in caught.value.detail
        assert "tradewind ingest" in caught.value.hint
    assert partition(store).read_bytes() == content


def test_a_damaged_partition_never_raises_anything_else(store: BarStore) -> None:
    whole = partition(store).read_bytes()
    rng = random.Random(11)
    codes = set()
    for _ in range(150):
        damaged = bytearray(whole[: rng.randint(1, len(whole))])
        for _ in range(rng.randint(0, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        partition(store).write_bytes(damaged)
        try:
            store.read_bars("BTCUSDT", "15m", until_ms=END)
        except TradewindError as error:
            codes.add(error.code)
    assert codes == {ErrorCode.CORRUPT_FILE}


def test_parquet_of_other_columns_is_corrupt(store: BarStore) -> None:
    BARS.select("ts", "open").write_parquet(partition(store))
    with pytest.raises(TradewindError, match="corrupt_file"):
        store.read_bars("BTCUSDT", "15m", until_ms=END)


def test_bars_that_were_never_stored(store: BarStore) -> None:
    for symbol in ("ETHUSDT",):
        with pytest.raises(TradewindError) as caught:
            store.read_bars(symbol, "15m", until_ms=END)
        assert caught.value.code is ErrorCode.NO_BARS
        assert "ETHUSDT" in caught.value.detail
        assert "tradewind ingest" in caught.value.hint


@pytest.mark.parametrize("symbol", ["../../etc", "BTC/USDT", "", ".lock", "BTC USDT"])
def test_a_symbol_cannot_leave_the_store(store: BarStore, symbol: str) -> None:
    with pytest.raises(TradewindError) as caught:
        store.read_bars(symbol, "15m", until_ms=END)
    assert caught.value.code is ErrorCode.UNKNOWN_SYMBOL
    with pytest.raises(TradewindError):
        store.write_bars(symbol, "15m", BARS)


class Vanishing(LocalFiles):
    """A folder in which retention removes the oldest month just after it was listed."""

    def partitions(self, folder: str) -> list[str]:
        """List a month more than there is."""
        found = super().partitions(folder)
        return [f"{folder}/2024-12.parquet", *found] if found else []


def test_a_month_that_vanishes_after_it_was_listed_is_no_error(store: BarStore) -> None:
    read = [
        lambda: store.read_bars("BTCUSDT", "15m", until_ms=END).height,
        lambda: store.fingerprint(["BTCUSDT"], "15m", until_ms=END),
        lambda: store.change_token("BTCUSDT", "15m"),
    ]
    before = [ask() for ask in read]
    store.files = Vanishing(store.root, 1.0)
    assert [ask() for ask in read] == before


def test_what_is_no_bar_is_refused_and_nothing_changes(store: BarStore) -> None:
    before = sha256_tree(store.root)
    for frame in (
        BARS.drop("close"),
        BARS.with_columns(pl.col("ts") + 1),
        BARS.with_columns(pl.lit(None, dtype=pl.Int64).alias("ts")),
    ):
        with pytest.raises(TradewindError, match="bad_input"):
            store.write_bars("BTCUSDT", "15m", frame)
    with pytest.raises(TradewindError, match="timeframe"):
        store.write_bars("BTCUSDT", "7m", BARS)
    assert sha256_tree(store.root) == before


def test_fingerprint_covers_the_funding_that_was_known(tmp_path: Path) -> None:
    store = BarStore(tmp_path, "binance_usdm_perp")
    store.write_bars("BTCUSDT", "15m", random_walk_bars(200))
    until = START_MS + 100 * 900_000
    bare = store.fingerprint(["BTCUSDT"], "15m", until_ms=until)
    rate = pl.DataFrame({"ts": [START_MS], "funding_rate": [0.0001]})
    store.write_series("funding_8h", "BTCUSDT", rate)
    known = store.fingerprint(["BTCUSDT"], "15m", until_ms=until)
    assert known != bare
    later = pl.DataFrame({"ts": [until + 1], "funding_rate": [0.0002]})
    store.write_series("funding_8h", "BTCUSDT", later)
    assert store.fingerprint(["BTCUSDT"], "15m", until_ms=until) == known
