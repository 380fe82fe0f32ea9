"""The product's replay exchange: over frames that a test holds, or as a user starts it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from policy.replay_exchange import Faults, ReplayExchange
from tradewind.errors import ErrorCode, TradewindError
from tradewind.market.sources import SourceKind, unknown_symbol

KLINES = "/fapi/v1/klines"
START_S = 60


@dataclass
class FrameSource:
    """Bars of one timeframe, and companion series, by symbol."""

    bars: Mapping[str, pl.DataFrame]
    timeframe: str
    funding: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    open_interest: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    long_short_ratio: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    name: str = "frames of a test"
    kind: SourceKind = "folder"
    set_id: str = "test_perp"

    async def fetch_bars(
        self, symbol: str, timeframe: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame:
        """Return rows as they are, in their order."""
        if timeframe != self.timeframe:
            raise TradewindError(ErrorCode.NO_BARS, f"no {timeframe} bars", "Ask for others")
        if symbol not in self.bars:
            raise unknown_symbol(symbol, self.bars, self.name)
        return self.bars[symbol].filter(pl.col("ts").is_between(since_ms, until_ms - 1))

    async def fetch_funding(self, symbol: str, since_ms: int, until_ms: int) -> pl.DataFrame | None:
        """Return rates, if there are any of that symbol."""
        return _between(self.funding.get(symbol), since_ms, until_ms)

    async def fetch_open_interest(
        self, symbol: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame | None:
        """Return open interest, if there is any of that symbol."""
        return _between(self.open_interest.get(symbol), since_ms, until_ms)

    async def fetch_long_short_ratio(
        self, symbol: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame | None:
        """Return ratios, if there are any of that symbol."""
        return _between(self.long_short_ratio.get(symbol), since_ms, until_ms)

    async def symbols(self) -> tuple[str, ...]:
        """Return the symbols with bars."""
        return tuple(sorted(self.bars))

    async def close(self) -> None:
        """Do nothing."""


def _between(rows: pl.DataFrame | None, since_ms: int, until_ms: int) -> pl.DataFrame | None:
    return None if rows is None else rows.filter(pl.col("ts").is_between(since_ms, until_ms))


class Exchange(ReplayExchange):
    """A replay exchange of frames, and the settings that lead to it."""

    def __init__(
        self,
        bars: Mapping[str, pl.DataFrame],
        timeframe: str,
        now_ms: Callable[[], int],
        folder: Path,
        *,
        exchange_id: str = "binanceusdm",
        faults: Faults | None = None,
        **series: Mapping[str, pl.DataFrame],
    ) -> None:
        source = FrameSource(bars, timeframe, **series)  # type: ignore[arg-type]
        super().__init__({exchange_id: source}, timeframe, now_ms, folder, faults)
        self.exchange_id = exchange_id

    @property
    def market(self) -> dict[str, Any]:
        """Settings that make a ccxt source come here, and fail fast."""
        return fast_settings(self)


def fast_settings(exchange: ReplayExchange) -> dict[str, Any]:
    """Return market settings that lead to an exchange on this machine, without its pauses."""
    return {
        "source": "ccxt",
        "exchanges": tuple(exchange.states),
        "proxy": exchange.proxy,
        "ca_file": exchange.ca_file,
        "backoff_s": 0.01,
        "backoff_max_s": 0.02,
        "rate_limit_ms": 1,
    }


@dataclass
class ExchangeProcess:
    """`tradewind replay-exchange` in a process of its own, and what it printed at its start."""

    process: subprocess.Popen[str]
    printed: str

    @property
    def variables(self) -> dict[str, str]:
        """The variables that it tells a user to set."""
        lines = [line for line in self.printed.splitlines() if line.startswith("export ")]
        return dict(shlex.split(line)[1].split("=", 1) for line in lines)


@contextmanager
def exchange_process(home: Path, *arguments: str) -> Iterator[ExchangeProcess]:
    """Run the command until the block ends; its state is below ``home``."""
    command = [sys.executable, "-m", "pipelines.cli", "replay-exchange", *arguments]
    environment = {**os.environ, "TRADEWIND_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            lines: list[str] = []
            deadline = time.monotonic() + START_S
            while not (lines and "CA_FILE" in lines[-1]):
                assert time.monotonic() < deadline
                assert process.poll() is None, lines
                lines.append(process.stdout.readline())
            yield ExchangeProcess(process, "".join(lines))
        finally:
            process.kill()
