"""How fast the store is: the last 128 bars by three ways, and what one more symbol costs.

    python benchmarks/store.py [--symbols 1 3 10 50] [--bars 5000] [--reads 2000]

Prints ONE JSON object: p50 and p99 in microseconds of each way of reading, interleaved in one
run, their ratios to reading from memory, and the seconds of ingesting n symbols.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from tradewind.clock import ManualClock
from tradewind.market.ingest import run_ingest
from tradewind.market.recent import RecentBars
from tradewind.market.store import BarStore
from tradewind.market.views import connect
from tradewind.settings import load_settings

START_MS = 1_735_689_600_000
STEP_MS = 900_000
WINDOW = 128
SETTLE_S = 2.1  # a folder's time is trusted once it is older than two seconds
HISTORY = 80_000


def walk(n: int, seed: int) -> pl.DataFrame:
    """Return n bars of a random walk."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, n)))
    ts = START_MS + np.arange(n, dtype=np.int64) * STEP_MS
    return pl.DataFrame(
        {
            "ts": ts,
            "open": close,
            "high": close * 1.001,
            "low": close * 0.999,
            "close": close,
            "volume": rng.lognormal(3, 1, n),
        }
    )


def ways(store: BarStore, until_ms: int) -> dict[str, Callable[[int], int]]:
    """Return the ways to read the last bars; each takes the number of the read."""
    recent = RecentBars(store)
    sql = connect(store)
    query = (
        "SELECT ts, open, high, low, close, volume FROM bars "
        "WHERE symbol = 'S0' AND timeframe = '15m' AND ts <= $until ORDER BY ts DESC LIMIT 128"
    )

    def memory(i: int) -> int:
        return recent.last("S0", "15m", WINDOW, until_ms=until_ms - i * STEP_MS).height

    def files(i: int) -> int:
        moment = until_ms - i * STEP_MS
        return store.read_bars("S0", "15m", until_ms=moment, last=WINDOW).height

    def duckdb(i: int) -> int:
        moment = until_ms - i * STEP_MS - STEP_MS
        return len(sql.execute(query, {"until": moment}).fetchall())

    return {"memory": memory, "files": files, "duckdb": duckdb}


def reading(root: Path, reads: int) -> dict[str, object]:
    """Measure every way, in turns, each at moments of its own."""
    store = BarStore(root, "bench_perp")
    store.write_bars("S0", "15m", walk(HISTORY, 0))
    until_ms = START_MS + HISTORY * STEP_MS
    time.sleep(SETTLE_S)
    readers = ways(store, until_ms)
    took: dict[str, list[float]] = {name: [] for name in readers}
    for name, read in readers.items():
        if read(0) != WINDOW:
            raise SystemExit(f"{name} gave no {WINDOW} bars")
    for i in range(reads):
        for name, read in readers.items():
            if name != "memory" and i % 20:  # the slow ways need fewer reads
                continue
            begun = time.perf_counter_ns()
            read(i % 1000)
            took[name].append((time.perf_counter_ns() - begun) / 1000)
    found: dict[str, object] = {}
    base = float(np.median(took["memory"]))
    for name, values in took.items():
        p50, p99 = np.percentile(values, [50, 99])
        found[name] = {
            "reads": len(values),
            "p50_us": round(float(p50), 1),
            "p99_us": round(float(p99), 1),
            "ratio_to_memory": round(float(p50) / base, 1),
        }
    return found


def ingesting(root: Path, counts: list[int], bars: int) -> list[dict[str, float]]:
    """Ingest n symbols from a folder into an empty store, and then once more."""
    rows = []
    for n in counts:
        home, data = root / f"home{n}", root / f"data{n}"
        folder = data / "bench_perp_15m"
        folder.mkdir(parents=True)
        names = [f"S{i}" for i in range(n)]
        for i, name in enumerate(names):
            walk(bars, i).write_parquet(folder / f"{name}_15m.parquet")
        market = {"set_id": "bench_perp", "symbols": names, "reference_symbols": names[:1]}
        settings = load_settings(home=home, data=data, market=market)
        clock = ManualClock(START_MS + bars * STEP_MS)
        seconds = []
        for _ in range(2):
            begun = time.perf_counter()
            if run_ingest(settings, clock).failed:
                raise SystemExit("a symbol failed")
            seconds.append(time.perf_counter() - begun)
        rows.append(
            {
                "symbols": n,
                "first_s": round(seconds[0], 3),
                "again_s": round(seconds[1], 3),
                "first_ms_per_symbol": round(1000 * seconds[0] / n, 1),
                "again_ms_per_symbol": round(1000 * seconds[1] / n, 1),
            }
        )
    return rows


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, nargs="+", default=[1, 3, 10, 50])
    parser.add_argument("--bars", type=int, default=5000)
    parser.add_argument("--reads", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        last = reading(root / "reading", options.reads)
        growth = ingesting(root, options.symbols, options.bars)
    few, many = growth[min(1, len(growth) - 1)], growth[-1]
    print(
        json.dumps(
            {
                "last_bars": WINDOW,
                "stored_bars": HISTORY,
                "reading": last,
                "ingest": growth,
                "cost_per_symbol_ratio": round(
                    many["first_ms_per_symbol"] / few["first_ms_per_symbol"], 2
                ),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
