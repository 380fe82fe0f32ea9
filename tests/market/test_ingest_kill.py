"""Ingestion killed with -9 at random moments: the same bytes at the end, no torn read.

    KILLS=50 KILL_SEED=1 python -m pytest tests/market/test_ingest_kill.py -k real -s

kills as often as asked, and prints where each one hit.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.exchange import exchange_process
from tests.support.synthetic import random_walk_market
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import sha256_tree
from tradewind.market.store import BarStore
from tradewind.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
SET = "binance_usdm_perp"
STEP = 900_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
WHOLE_S = 240
READS_A_KILL = 20
INGEST = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tradewind.clock import ManualClock
from tradewind.market.ingest import run_ingest
from tradewind.settings import load_settings
settings = load_settings(home=Path(sys.argv[2]), **json.loads(sys.argv[3]))
print("started", flush=True)
report = run_ingest(settings, ManualClock(int(sys.argv[4])), since_ms=int(sys.argv[5]))
print("failed" if report.failed else "done", flush=True)
"""


@dataclass
class Rehearsal:
    """Ingestions of one source into one home, killed and begun again.

    ``bars`` is the truth; ``chosen`` the settings that lead to the source.
    """

    home: Path
    bars: dict[str, pl.DataFrame]
    chosen: dict[str, Any]
    rng: random.Random
    reads: int = 0
    hits: list[str] = field(default_factory=list)

    @property
    def now_ms(self) -> int:
        return max(int(frame["ts"][-1]) for frame in self.bars.values()) + STEP

    def start(self, home: Path) -> subprocess.Popen[str]:
        since_ms = min(int(frame["ts"][0]) for frame in self.bars.values())
        arguments = [REPOSITORY, home, json.dumps(self.chosen), self.now_ms, since_ms]
        process = subprocess.Popen(
            [sys.executable, "-c", INGEST, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        return process

    def whole(self, home: Path) -> float:
        """Ingest without being killed; return how long it took."""
        process = self.start(home)
        begun = time.monotonic()
        out, _ = process.communicate(timeout=WHOLE_S)
        assert out == "done\n"
        return time.monotonic() - begun

    def finish(self) -> None:
        """Ingest the home to its end, reading all the while."""
        process = self.start(self.home)
        while process.poll() is None:
            self.read()
        out, _ = process.communicate()
        assert out == "done\n"

    def read(self) -> None:
        """Read a symbol beside the writer: what is there is whole and true."""
        symbol = self.rng.choice(SYMBOLS)
        store = BarStore(self.home / "store", SET)
        try:
            got = store.read_bars(symbol, "15m", until_ms=self.now_ms, last=3000)
        except TradewindError as error:
            if error.code is not ErrorCode.NO_BARS:
                raise
            return  # nothing of it is stored yet
        true = self.bars[symbol]
        first = true["ts"].search_sorted(got["ts"][0])
        assert got.equals(true.slice(int(first), got.height))
        self.reads += 1

    def kill_after(self, took: float) -> bool:
        """Kill an ingestion at a random moment, reading all the while; True: it had ended."""
        process = self.start(self.home)
        moment = self.rng.uniform(0, took)
        end, before = time.monotonic() + moment, self.reads
        while time.monotonic() < end:
            self.read()
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=30)
        if not out:
            reads = self.reads - before
            self.hits.append(f"after {moment:5.2f} s, {reads:4d} reads: {self.where()}")
        return bool(out)

    def where(self) -> str:
        """Say how far the killed ingestion had come: months of bars and of funding a symbol."""
        store = self.home / "store"
        halves = [path.name.split(".")[1] for path in store.rglob(".*.tmp")]
        counts = [
            f"{symbol} {len(list((store / SET / '15m' / symbol).glob('*.parquet')))}"
            f"+{len(list((store / SET / 'funding_8h' / symbol).glob('*.parquet')))}"
            for symbol in SYMBOLS
        ]
        return f"{', '.join(counts)}; half-written: {', '.join(halves) or 'none'}"


def rehearse(rehearsal: Rehearsal, kills: int, reads: int) -> None:
    """Kill ``kills`` ingestions in all; whenever a home is full, go on with a new one."""
    root = rehearsal.home
    took = rehearsal.whole(root / "uninterrupted")
    store = BarStore(root / "uninterrupted" / "store", SET)
    for symbol, frame in rehearsal.bars.items():
        assert store.read_bars(symbol, "15m", until_ms=rehearsal.now_ms).equals(frame)
    expected = sha256_tree(root / "uninterrupted" / "store")
    homes = 0
    while len(rehearsal.hits) < kills:
        rehearsal.home = root / f"home{homes}"
        homes += 1
        for _ in range(5):
            if len(rehearsal.hits) == kills or rehearsal.kill_after(took):
                break
        rehearsal.finish()
        assert sha256_tree(rehearsal.home / "store") == expected, rehearsal.hits
    for number, hit in enumerate(rehearsal.hits, start=1):
        print(f"kill {number:2d} {hit}")
    print(
        f"{len(rehearsal.hits)} kills within {took:.1f} s of an ingestion; {rehearsal.reads} reads"
        f" beside it, none torn; {homes} homes, each equal at the end"
    )
    assert rehearsal.reads >= reads


def test_five_kills_change_nothing(tmp_path: Path, make_settings: Callable[..., Settings]) -> None:
    bars = random_walk_market(20_000, symbols=SYMBOLS)
    folder = tmp_path / "data" / f"{SET}_15m"
    folder.mkdir(parents=True)
    for symbol, frame in bars.items():
        frame.write_parquet(folder / f"{symbol}_15m.parquet")
    chosen = {"data": str(tmp_path / "data")}
    rehearse(Rehearsal(tmp_path, bars, chosen, random.Random(3)), kills=5, reads=50)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("source", "kills"), [("folder", 50), ("exchange", 4)])
def test_kills_of_the_real_set_change_nothing(
    data_root: Path, tmp_path: Path, source: str, kills: int
) -> None:
    bars = {
        symbol: pl.read_parquet(data_root / f"{SET}_15m" / f"{symbol}_15m.parquet")
        for symbol in SYMBOLS
    }
    kills = int(os.environ.get("KILLS", kills))
    rng = random.Random(int(os.environ.get("KILL_SEED", 11)))
    rehearsal = Rehearsal(tmp_path, bars, {"data": str(data_root)}, rng)
    if source == "folder":
        rehearse(rehearsal, kills, reads=READS_A_KILL * kills)
        return
    start = datetime.fromtimestamp(rehearsal.now_ms / 1000, UTC).isoformat()
    options = ("--data", str(data_root), "--set", SET, "--start", start, "--speed", "0")
    with exchange_process(tmp_path / "exchange", *options) as exchange:
        variables = exchange.variables
        market = {
            "source": "ccxt",
            "exchanges": json.loads(variables["TRADEWIND_MARKET__EXCHANGES"]),
            "proxy": variables["TRADEWIND_MARKET__PROXY"],
            "ca_file": variables["TRADEWIND_MARKET__CA_FILE"],
            "rate_limit_ms": 1,
        }
        rehearsal.chosen = {"data": None, "market": market}
        rehearse(rehearsal, kills, reads=READS_A_KILL * kills)
