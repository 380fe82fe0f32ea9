"""Ingestion killed with -9 at random moments: the same bytes at the end, no torn read."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

from tests.support.synthetic import START_MS, random_walk_market
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import sha256_tree
from tradewind.market.store import BarStore
from tradewind.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
SET = "binance_usdm_perp"
INGEST = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tradewind.clock import ManualClock
from tradewind.market.ingest import run_ingest
from tradewind.settings import load_settings
home, data, market = Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
settings = load_settings(home=home, data=data, market=market)
print("started", flush=True)
report = run_ingest(settings, ManualClock(int(sys.argv[5])))
print("failed" if report.failed else "done", flush=True)
"""


@dataclass
class Rehearsal:
    """Ingestions of one folder into one home, killed and begun again."""

    home: Path
    data: Path
    now_ms: int
    symbols: tuple[str, ...]
    bars: dict[str, pl.DataFrame]
    rng: random.Random
    reads: int = 0
    hits: list[str] = field(default_factory=list)

    def start(self, home: Path) -> subprocess.Popen[str]:
        market = {"symbols": self.symbols, "reference_symbols": self.symbols}
        arguments = [REPOSITORY, home, self.data, json.dumps(market), self.now_ms]
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
        out, _ = process.communicate(timeout=120)
        assert out == "done\n"
        return time.monotonic() - begun

    def read(self) -> None:
        """Read a symbol beside the writer: what is there is whole and true."""
        symbol = self.rng.choice(self.symbols)
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
        end = time.monotonic() + self.rng.uniform(0, took)
        while time.monotonic() < end:
            self.read()
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=30)
        if not out:
            self.hits.append(self.where())
        return bool(out)

    def where(self) -> str:
        """Say how far the killed ingestion had come."""
        store = self.home / "store"
        halves = [path.name.split(".")[1] for path in store.rglob(".*.tmp")]
        counts = [
            f"{symbol} {len(list((store / SET / '15m' / symbol).glob('*.parquet')))}"
            f"+{len(list((store / SET / 'funding_8h' / symbol).glob('*.parquet')))}"
            for symbol in self.symbols
        ]
        return f"{', '.join(counts)}; half-written: {', '.join(halves) or 'none'}"


def rehearse(rehearsal: Rehearsal, kills: int, reads: int) -> None:
    """Kill ``kills`` ingestions in all; whenever a home is full, go on with a new one."""
    root = rehearsal.home
    took = rehearsal.whole(root / "uninterrupted")
    expected = sha256_tree(root / "uninterrupted" / "store")
    homes = 0
    while len(rehearsal.hits) < kills:
        rehearsal.home = root / f"home{homes}"
        homes += 1
        for _ in range(5):
            if len(rehearsal.hits) == kills or rehearsal.kill_after(took):
                break
        rehearsal.whole(rehearsal.home)
        assert sha256_tree(rehearsal.home / "store") == expected, rehearsal.hits
    while rehearsal.reads < reads:
        rehearsal.read()
    for number, hit in enumerate(rehearsal.hits, start=1):
        print(f"kill {number:2d}: {hit}")
    print(f"{rehearsal.reads} reads beside it, none torn; {homes} homes, each equal at the end")


def test_five_kills_change_nothing(tmp_path: Path, make_settings: Callable[..., Settings]) -> None:
    n = 20_000
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    bars = random_walk_market(n, symbols=symbols)
    folder = tmp_path / "data" / f"{SET}_15m"
    folder.mkdir(parents=True)
    for symbol, frame in bars.items():
        frame.write_parquet(folder / f"{symbol}_15m.parquet")
    rehearsal = Rehearsal(
        tmp_path, tmp_path / "data", START_MS + n * 900_000, symbols, bars, random.Random(3)
    )
    rehearse(rehearsal, kills=5, reads=100)


@pytest.mark.slow
@pytest.mark.data
def test_fifty_kills_of_real_bars_change_nothing(data_root: Path, tmp_path: Path) -> None:
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    bars = {
        symbol: pl.read_parquet(data_root / f"{SET}_15m" / f"{symbol}_15m.parquet")
        for symbol in symbols
    }
    now_ms = max(int(frame["ts"][-1]) for frame in bars.values()) + 900_000
    rehearsal = Rehearsal(tmp_path, data_root, now_ms, symbols, bars, random.Random(11))
    rehearse(rehearsal, kills=50, reads=1000)
