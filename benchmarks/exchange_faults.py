"""What an ingestion does when an exchange misbehaves: one line a fault.

Each fault meets a request for bars of a replay exchange that holds made-up ones: once, then
on every request ("always"). Printed is what that ingestion said and stored, and whether the
next one, from an exchange that is well again, made it whole.

    python benchmarks/exchange_faults.py [binanceusdm|bybit]
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import structlog

from policy.replay_exchange import Fault, FaultKind, ReplayClock, ReplayExchange
from tradewind.clock import ManualClock
from tradewind.market.active import store_for
from tradewind.market.ccxt_source import SETS
from tradewind.market.folder import FolderSource
from tradewind.market.ingest import run_ingest
from tradewind.market.repair import run_repair
from tradewind.settings import Settings, load_settings

STEP = 900_000
START_MS = 1_767_225_600_000  # 2026-01-01T00:00Z
BARS = 2400
END_MS = START_MS + BARS * STEP
NOW_MS = END_MS + STEP // 2  # one more bar is open
SYMBOL = "BTCUSDT"
ALWAYS = 10_000
SKEW_MS = 10 * 60_000
ROWS = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Outcome:
    """What became of one fault.

    Parameters
    ----------
    fault
        Its name.
    said
        "ok", or the run's error.
    requests
        Requests for bars of the run that met it.
    seconds
        How long that run took.
    missing
        Closed bars it did not store.
    recorded
        Missing bars inside the stored span that the store names as gaps.
    wrong
        Stored rows that differ from the truth.
    healed
        Whether the next run stored exactly the truth.
    repaired
        Whether `data repair` after it left exactly the truth.
    """

    fault: str
    said: str
    requests: int
    seconds: float
    missing: int
    recorded: int
    wrong: int
    healed: bool
    repaired: bool


def truth() -> pl.DataFrame:
    """Return the bars of the exchange, the open one last."""
    rng = np.random.default_rng(11)
    close = 50_000 * np.exp(np.cumsum(rng.normal(0, 0.002, BARS + 1)))
    opening = np.concatenate([[50_000.0], close[:-1]])
    return pl.DataFrame(
        {
            "ts": START_MS + np.arange(BARS + 1, dtype=np.int64) * STEP,
            "open": opening,
            "high": np.maximum(opening, close) * 1.001,
            "low": np.minimum(opening, close) * 0.999,
            "close": close,
            "volume": rng.lognormal(3, 1, BARS + 1),
        }
    )


def write_set(root: Path, set_id: str) -> None:
    """Write the bars as a set of one symbol."""
    folder = root / f"{set_id}_15m"
    folder.mkdir(parents=True)
    truth().write_parquet(folder / f"{SYMBOL}_15m.parquet")


def trial(folder: Path, exchange_id: str, fault: Fault | None, skew_ms: int = 0) -> Outcome:
    """Ingest with a fault, then without.

    Parameters
    ----------
    folder
        An empty folder for the bars and the home.
    exchange_id
        ``binanceusdm`` or ``bybit``.
    fault
        What goes wrong; None only skews the exchange's clock.
    skew_ms
        How far the exchange's clock is ahead of ours.
    """
    set_id = SETS[exchange_id]
    write_set(folder / "data", set_id)
    source = FolderSource(folder / "data", set_id)
    clock = ReplayClock(NOW_MS + skew_ms, speed=0)
    with ReplayExchange({exchange_id: source}, "15m", clock.now_ms, folder) as exchange:
        settings = load_settings(
            home=folder / "home",
            market={
                "source": "ccxt",
                "exchanges": (exchange_id,),
                "symbols": (SYMBOL,),
                "reference_symbols": (SYMBOL,),
                "proxy": exchange.proxy,
                "ca_file": exchange.ca_file,
                "network_attempts": 3,
                "backoff_s": 0.05,
                "backoff_max_s": 0.1,
                "request_timeout_s": 0.6,
                "rate_limit_ms": 1,
            },
        )
        if fault is not None:
            exchange.add_fault(fault)
        started = time.perf_counter()
        report = run_ingest(settings, ManualClock(NOW_MS), symbols=[SYMBOL], since_ms=START_MS)
        seconds = time.perf_counter() - started
        asked = sum("kline" in path for path, _ in exchange.requests)
        stored, gaps = _stored(settings)
        exchange.faults.clear()
        clock.set(NOW_MS)
        run_ingest(settings, ManualClock(NOW_MS), symbols=[SYMBOL], since_ms=START_MS)
        healed = _stored(settings)[0].equals(truth().head(BARS))
        run_repair(settings, ManualClock(NOW_MS), symbols=[SYMBOL])
        repaired = _stored(settings)[0].equals(truth().head(BARS))
    name = f"clock skew {skew_ms // 60_000:+d} min" if fault is None else _name(fault)
    error = report.symbols[0].error
    wrong = stored.join(truth().head(BARS), on=["ts", *ROWS], how="anti").height
    missing = BARS - stored.height
    return Outcome(name, error or "ok", asked, seconds, missing, gaps, wrong, healed, repaired)


def cases() -> list[tuple[Fault | None, int]]:
    """Return every fault once, every fault always, and clocks that differ."""
    kinds = [kind for kind in FaultKind if kind is not FaultKind.BODY]
    once = [
        (Fault(kind, path="kline", after=1, retry_after_s=0.3, delay_s=1.0), 0) for kind in kinds
    ]
    always = [
        (
            Fault(kind, path="kline", after=1, times=ALWAYS, retry_after_s=0.1, delay_s=1.0),
            0,
        )
        for kind in kinds
    ]
    skews: list[tuple[Fault | None, int]] = [(None, SKEW_MS), (None, -SKEW_MS)]
    return [*once, *always, *skews]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "exchange", nargs="?", default="binanceusdm", choices=["binanceusdm", "bybit"]
    )
    exchange_id = parser.parse_args().exchange
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    print(f"{exchange_id}, {BARS} bars of 15m, fault on the second request for bars and after")
    print("| fault | run said | requests | s | missing | in gaps | wrong | next run |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for fault, skew_ms in cases():
        with tempfile.TemporaryDirectory() as folder:
            done = trial(Path(folder), exchange_id, fault, skew_ms)
        print(
            f"| {done.fault} | {_short(done.said)} | {done.requests} | {done.seconds:.1f}"
            f" | {done.missing} | {done.recorded} | {done.wrong}"
            f" | {_whole(done)} |",
            flush=True,
        )


def _whole(done: Outcome) -> str:
    if done.healed:
        return "whole"
    return "whole after `data repair`" if done.repaired else "NOT WHOLE"


def _name(fault: Fault) -> str:
    return f"{fault.kind} {'always' if fault.times > 1 else 'once'}"


def _stored(settings: Settings) -> tuple[pl.DataFrame, int]:
    """Return what is stored, and how many missing bars are recorded."""
    store = store_for(settings)
    if SYMBOL not in store.symbols("15m"):
        return truth().clear(), 0
    bars = store.read_bars(SYMBOL, "15m", until_ms=END_MS + 10 * STEP)
    gaps = store.gaps(SYMBOL)
    return bars, int(gaps["bars"].sum())


def _short(text: str) -> str:
    code, _, detail = text.partition(": ")
    inside = re.search(r" \((.*)\)\. Check", detail)
    return f"{code}: {inside[1][:70]}" if inside else text[:70]


if __name__ == "__main__":
    main()
