"""The data commands, run as a person runs them on a home of a few bars."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from pipelines.cli.main import app
from tests.support.synthetic import START_MS, random_walk_market
from tradewind.files import sha256_tree
from tradewind.market.schema import COMPANIONS
from tradewind.market.store import BarStore

SET = "binance_usdm_perp"
STEP = 900_000
N = 3200
END = START_MS + N * STEP
MARKET = random_walk_market(N)
Call = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of bars with a hole in BTC."""
    folder = tmp_path / "bars" / f"{SET}_15m"
    folder.mkdir(parents=True)
    row = pl.int_range(pl.len())
    for symbol, frame in MARKET.items():
        kept = frame.filter(~row.is_between(500, 509)) if symbol == "BTCUSDT" else frame
        kept.write_parquet(folder / f"{symbol}_15m.parquet")
    return tmp_path / "bars"


@pytest.fixture
def call(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command in a home whose clock stands at the newest close."""
    from tradewind.ledger import open_ledger
    from tradewind.ledger.clock import set_replay_clock
    from tradewind.settings import load_settings

    monkeypatch.setenv("TRADEWIND_DATA", str(data))
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRADEWIND_CLOCK", "replay")
    monkeypatch.setenv("COLUMNS", "80")
    with open_ledger(load_settings()) as ledger:
        set_replay_clock(ledger, END)

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == code, result.output
        return result

    return run


def test_ingest_takes_symbols_with_commas_and_another_timeframe(call: Call, data: Path) -> None:
    done = json.loads(call("ingest", "--symbols", "BTCUSDT,ETHUSDT", "--json").stdout)
    assert [item["symbol"] for item in done["symbols"]] == ["BTCUSDT", "ETHUSDT"]
    hourly = data / f"{SET}_1h"
    hourly.mkdir()
    bars = random_walk_market(10, symbols=("SOLUSDT",))["SOLUSDT"]
    bars.with_columns(ts=START_MS + pl.int_range(pl.len()) * 4 * STEP).write_parquet(
        hourly / "SOLUSDT_1h.parquet"
    )
    call("ingest", "--symbols", "SOLUSDT", "--timeframe", "1h", "--since", "2025-01-01")
    found = json.loads(call("data", "status", "--json").stdout)
    kinds = {(item["symbol"], item["timeframe"]) for item in found["series"]}
    assert kinds == {("BTCUSDT", "15m"), ("ETHUSDT", "15m"), ("SOLUSDT", "1h")}


def test_a_failed_symbol_stands_in_the_table_and_stops_no_other(call: Call) -> None:
    result = call("ingest", "-s", "BTCUSDT,NOPEUSDT", code=1)
    (row,) = [line for line in result.stdout.splitlines() if "NOPEUSDT" in line]
    assert "failed: unknown_symbol" in row
    assert "3190" in result.stdout
    assert "Use one it knows, such as" in result.stderr


def test_a_start_that_is_not_past_is_refused(call: Call) -> None:
    result = call("ingest", "--since", "2025-02-04", code=2)
    assert "since = 2025-02-04 00:00 UTC is not before market time, 2025-02-03 08:00" in (
        result.stderr
    )
    assert "nothing is stored" in call("data", "status").stdout


def test_status_names_symbols_that_are_not_there_and_other_sets(
    call: Call, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("ingest")
    assert "nothing of XRPUSDT is stored" in call("data", "status", "-s", "XRPUSDT").stdout
    (data / f"{SET}_15m").rename(data / "other_15m")
    monkeypatch.setenv("TRADEWIND_MARKET__SET_ID", "other")
    assert "stored beside it" not in call("data", "status").stdout
    call("ingest")
    assert f"stored beside it: {SET};" in call("data", "status").stdout


def test_status_says_span_rows_gaps_and_age_within_eighty_columns(call: Call) -> None:
    assert "nothing is stored" in call("data", "status").stdout
    call("ingest")
    text = call("data", "status").stdout
    assert max(len(line) for line in text.splitlines() if "stored in" not in line) <= 80
    for part in ("2025-01-01", "2025-02-03", "3190", "1 (10 bars)", "fresh"):
        assert part in text
    status = {
        item["symbol"]: item
        for item in json.loads(call("data", "status", "--json").stdout)["series"]
    }
    btc = status["BTCUSDT"]
    assert (btc["rows"], btc["gaps"], btc["missing"], btc["confirmed"]) == (N - 10, 1, 10, 1)
    assert (btc["first_ts"], btc["last_ts"], btc["staleness_s"]) == (START_MS, END - STEP, 0)


def test_status_shows_every_kind_that_the_store_keeps(call: Call, tmp_path: Path) -> None:
    call("ingest")
    store = BarStore(tmp_path / "home" / "store", SET)
    values = {"before": "UNKNOWN", "after": "TREND_UP"}
    for kind, columns in COMPANIONS.items():
        row = {name: values.get(name, 1.0) for name in columns} | {"ts": START_MS}
        store.write_series(f"{kind}_1h", "ETHUSDT", pl.DataFrame([row]))
    text = call("data", "status", "-s", "ETHUSDT").stdout
    shown = [line.split("│")[2].strip() for line in text.splitlines() if "ETHUSDT" in line]
    assert sorted(shown) == ["bars 15m", "funding", "long/short", "mark", "open int.", "regime 1h"]


def test_status_of_a_corrupt_series_names_it_and_tells_the_others(
    call: Call, tmp_path: Path
) -> None:
    call("ingest")
    path = tmp_path / "home" / "store" / SET / "15m" / "ETHUSDT" / "2025-01.parquet"
    path.write_bytes(b"junk")
    result = call("data", "status", code=1)
    assert "unreadable" in result.stdout
    assert "corrupt_file" in result.stderr
    assert "3190" in result.stdout


def test_gaps_are_listed(call: Call) -> None:
    assert "no gaps" in call("data", "gaps").stdout
    call("ingest")
    text = call("data", "gaps", "--symbols", "BTCUSDT").stdout
    (row,) = [line for line in text.splitlines() if "BTCUSDT" in line]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        *("BTCUSDT", "15m", "2025-01-06 05:00", "2025-01-06 07:15", "10", "yes")
    ]
    (gap,) = json.loads(call("data", "gaps", "--json").stdout)["gaps"]
    assert (gap["symbol"], gap["bars"], gap["confirmed"]) == ("BTCUSDT", 10, True)
    assert json.loads(call("data", "gaps", "-s", "ETHUSDT", "--json").stdout)["gaps"] == []


def test_refused_bars_are_listed_with_their_reasons(call: Call, data: Path) -> None:
    call("ingest", "-s", "BTCUSDT")
    assert "no bar was refused" in call("data", "refused").stdout
    bad = pl.int_range(pl.len())
    eth = MARKET["ETHUSDT"].with_columns(
        ts=pl.when(bad == 30).then(pl.col("ts") + 1).otherwise("ts"),
        close=pl.when(bad == 10).then(math.nan).otherwise("close"),
        volume=pl.when(bad == 20).then(-1.0).otherwise("volume"),
    )
    eth.write_parquet(data / f"{SET}_15m" / "ETHUSDT_15m.parquet")
    call("ingest")
    text = call("data", "refused", "-s", "ETHUSDT").stdout
    assert "3 bars refused" in text
    for word in ("2025-01-01 02:30", "nan", "negative_volume", "off_grid"):
        assert word in text
    rows = json.loads(call("data", "refused", "--json").stdout)["refused"]
    assert [row["reason"] for row in rows] == ["nan", "negative_volume", "off_grid"]
    assert rows[0]["close"] == "nan"
    assert rows[1]["volume"] == -1.0


def test_repair_fills_a_gap_once_the_source_has_it(call: Call, data: Path, tmp_path: Path) -> None:
    call("ingest")
    MARKET["BTCUSDT"].write_parquet(data / f"{SET}_15m" / "BTCUSDT_15m.parquet")
    before = sha256_tree(tmp_path / "home" / "store")
    dry = json.loads(call("data", "repair", "--dry-run", "--json").stdout)
    assert sha256_tree(tmp_path / "home" / "store") == before
    done = json.loads(call("data", "repair", "--last", "100", "--json").stdout)
    assert dry["symbols"] == done["symbols"]
    assert done["symbols"][0]["added"] == 10
    assert "no gaps" in call("data", "gaps").stdout
    assert "would change" in call("data", "repair", "--dry-run").stdout


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_export_writes_a_range_to_a_file(call: Call, tmp_path: Path, suffix: str) -> None:
    call("ingest")
    file = tmp_path / f"out.{suffix}"
    span = ("--since", "2025-01-02", "--until", "2025-01-03")
    assert "96 rows" in call("data", "export", str(file), "-s", "ETHUSDT", *span).stdout
    got = pl.read_csv(file) if suffix == "csv" else pl.read_parquet(file)
    assert got.equals(MARKET["ETHUSDT"].slice(96, 96))
    assert (
        "no rows" in call("data", "export", str(file), "-s", "ETHUSDT", "--kind", "funding").stdout
    )


def test_export_refuses_what_it_cannot_write(call: Call, tmp_path: Path) -> None:
    call("ingest")
    for arguments, said in (
        ([str(tmp_path / "x.xlsx"), "-s", "BTCUSDT"], "does not end in"),
        ([str(tmp_path / "x.csv"), "-s", "BTCUSDT", "--kind", "trades"], "kind = 'trades'"),
        ([str(tmp_path / "x.csv"), "-s", "BTCUSDT", "--since", "May"], "is not a date"),
    ):
        assert said in call("data", "export", *arguments, code=2).stderr
    assert (
        "no_bars" in call("data", "export", str(tmp_path / "x.csv"), "-s", "XRPUSDT", code=1).stderr
    )
    other = call("data", "export", str(tmp_path / "x.csv"), "-s", "BTCUSDT", "-t", "1h", code=1)
    assert "(there are 15m bars of it)" in other.stderr
    assert not list(tmp_path.glob("x.*"))


def test_upkeep_says_what_it_would_do(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("ingest")
    assert "nothing to drop" in call("data", "upkeep", "--dry-run").stdout
    path = tmp_path / "home" / "store" / SET / "15m" / "BTCUSDT" / "2025-01.parquet"
    pl.read_parquet(path).write_parquet(path, compression="uncompressed")
    monkeypatch.setenv("TRADEWIND_RETENTION__BARS_DAYS", "10")
    text = call("data", "upkeep", "--dry-run").stdout
    assert "would be" in text
    assert "compact" in text
    assert "since training reads them" in text
    done = json.loads(call("data", "upkeep", "--json").stdout)
    assert [change["action"] for change in done["changes"]] == ["compact"]
    assert json.loads(call("data", "upkeep", "--json").stdout)["changes"] == []
