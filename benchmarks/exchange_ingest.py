"""Time to ingest a whole set through the replay exchange and ccxt, for several pauses of ccxt.

    TRADEWIND_DATA=… python benchmarks/exchange_ingest.py

A pause is milliseconds per unit of a request's weight; "ccxt" is what ccxt keeps by itself, and
what a real exchange needs. On loopback the rest is the client, the server and the store.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import structlog

from policy.replay_exchange import ReplayExchange
from tradewind.clock import ManualClock
from tradewind.market.folder import FolderSource
from tradewind.market.ingest import run_ingest
from tradewind.settings import load_settings

NOW_MS = 1_777_545_000_000  # the end of binance_usdm_perp_15m
START_MS = 1_704_067_200_000
PAUSES_MS = (1.0, 10.0, None)


def main() -> None:
    """Print a line for each pause."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    data = load_settings().data
    if data is None:
        raise SystemExit("set TRADEWIND_DATA to a folder with binance_usdm_perp_15m")
    print("| pause per weight | bars | requests | s | bars/s | against 1 ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    fastest = 0.0
    for pause in PAUSES_MS:
        bars, requests, seconds = measure(data, pause)
        fastest = fastest or seconds
        print(
            f"| {'ccxt' if pause is None else f'{pause:g} ms'} | {bars} | {requests}"
            f" | {seconds:.1f} | {bars / seconds:.0f} | {seconds / fastest:.2f} |",
            flush=True,
        )


def measure(data: Path, pause_ms: float | None) -> tuple[int, int, float]:
    """Return bars stored, requests made and seconds taken by one first ingestion."""
    source = FolderSource(data, "binance_usdm_perp")
    clock = ManualClock(NOW_MS)
    with (
        tempfile.TemporaryDirectory() as folder,
        ReplayExchange({"binanceusdm": source}, "15m", clock.now_ms, Path(folder)) as exchange,
    ):
        market = {
            "source": "ccxt",
            "exchanges": ("binanceusdm",),
            "proxy": exchange.proxy,
            "ca_file": exchange.ca_file,
            "rate_limit_ms": pause_ms,
        }
        settings = load_settings(home=Path(folder) / "home", data=None, market=market)
        started = time.perf_counter()
        report = run_ingest(settings, clock, since_ms=START_MS)
        seconds = time.perf_counter() - started
        return sum(done.added for done in report.symbols), exchange.answered, seconds


if __name__ == "__main__":
    main()
