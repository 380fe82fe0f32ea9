"""A backfill as the asset page launches it: one run a symbol, and one that fails stops none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.dagster_ui import Ui, until, web_and_daemon
from tests.support.synthetic import random_walk_market
from tradewind.ledger import open_ledger, set_replay_clock
from tradewind.market.active import store_for
from tradewind.settings import load_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SET = "binance_usdm_perp"
N = 1600
MARKET = random_walk_market(N)
KINDS = ("bars", "funding", "open_interest", "long_short_ratio")
START = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
BACKFILL = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status }
    ... on PythonError { message }
  }
}
"""
RUNS = """
query ($filter: RunsFilter!) {
  runsOrError(filter: $filter) { ... on Runs { results { status tags { key value } } } }
}
"""
ENDED = ("COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED", "FAILED", "CANCELED")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home whose clock stands at the newest close of a folder with one corrupt file."""
    folder = tmp_path / "bars" / f"{SET}_15m"
    folder.mkdir(parents=True)
    for symbol, frame in MARKET.items():
        frame.write_parquet(folder / f"{symbol}_15m.parquet")
    (folder / "ETHUSDT_15m.parquet").write_bytes(b"junk")
    settings = load_settings(home=tmp_path / "home", clock="replay")
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, int(MARKET["BTCUSDT"]["ts"][-1]) + 900_000)
    return tmp_path / "home"


@pytest.fixture
def ui(home: Path, tmp_path: Path) -> Iterator[Ui]:
    variables = {"TRADEWIND_CLOCK": "replay", "TRADEWIND_DATA": str(tmp_path / "bars")}
    with (
        pytest.MonkeyPatch.context() as patch,
        web_and_daemon(home, tmp_path, **variables) as found,
    ):
        patch.setenv("DAGSTER_HOME", "")
        yield found


def test_a_backfill_is_one_run_a_symbol(ui: Ui, home: Path) -> None:
    launched = ui.ask(
        START,
        params={
            "assetSelection": [{"path": [kind]} for kind in KINDS],
            "partitionNames": list(MARKET),
        },
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    backfill = launched["backfillId"]

    def status() -> str:
        return str(ui.ask(BACKFILL, id=backfill)["partitionBackfillOrError"]["status"])

    until(lambda: status() in ENDED, f"the backfill ends ({status()})", 240)
    chosen = {"tags": [{"key": "dagster/backfill", "value": backfill}]}
    runs: list[dict[str, Any]] = ui.ask(RUNS, filter=chosen)["runsOrError"]["results"]
    by_symbol = {
        next(tag["value"] for tag in run["tags"] if tag["key"] == "dagster/partition"): run[
            "status"
        ]
        for run in runs
    }
    assert by_symbol == {"BTCUSDT": "SUCCESS", "ETHUSDT": "FAILURE", "SOLUSDT": "SUCCESS"}
    store = store_for(load_settings(home=home, clock="replay"))
    for symbol in ("BTCUSDT", "SOLUSDT"):
        got: pl.DataFrame = store.read_bars(symbol, "15m", until_ms=2**45)
        assert got.equals(MARKET[symbol])
