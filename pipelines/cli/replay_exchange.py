"""An exchange on this machine, for a rehearsal."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pipelines.cli.output import friendly
from tradewind.clock import SECOND, parse_moment, utc_text
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import MS_PER_DAY, Settings, load_settings

if TYPE_CHECKING:
    from policy.replay_exchange import ReplayExchange
    from tradewind.market.sources import BarSource

DEFAULT_DAYS = 14
REPORT_S = 60.0
FOLDER = "replay-exchange"

Data = typer.Option(None, help="Folder of sets; default: TRADEWIND_DATA, else a simulated market.")
Sets = typer.Option(
    [], "--set", help="binance_usdm_perp or bybit_linear; repeatable; default: the setting's."
)
FaultRates = typer.Option(
    [], "--fault", help="KIND:PROBABILITY of a bad answer, such as 429:0.05; repeatable."
)


@friendly
def replay_exchange(
    data: Path | None = Data,
    sets: list[str] = Sets,
    start: str = typer.Option(
        "", help=f"UTC time it starts at; default: {DEFAULT_DAYS} days before the newest bar."
    ),
    speed: float = typer.Option(1.0, min=0, help="Market seconds per second; 900: a 15m bar."),
    follow_clock: bool = typer.Option(
        False, "--follow-clock", help="Take the time of this home's clock instead."
    ),
    fault: list[str] = FaultRates,
    seed: int = typer.Option(0, help="Seed of the faults."),
    port: int = typer.Option(0, min=0, max=65535, help="Port of the proxy; 0: a free one."),
) -> None:
    """Run an exchange on this machine until Ctrl-C: stored bars in a real exchange's format.

    Prints the variables that lead Tradewind to it. Programs that use its proxy reach no other
    host.
    """
    from policy.replay_exchange import Faults, ReplayExchange, parse_fault

    settings = load_settings()
    timeframe = settings.market.timeframe
    sources = _sources(settings, data or settings.data, sets or [settings.market.set_id])
    exchange = ReplayExchange(
        sources,
        timeframe,
        _clock(settings, sources, start, speed, follow_clock),
        settings.home.absolute() / FOLDER,
        Faults(dict(parse_fault(text) for text in fault), seed),
        port,
    )
    with exchange:
        _print_start(exchange, sources)
        try:
            while True:
                time.sleep(REPORT_S)
                _print_state(exchange)
        except KeyboardInterrupt:
            _print_state(exchange)


def _sources(settings: Settings, data: Path | None, sets: list[str]) -> dict[str, BarSource]:
    """Return what each exchange answers from; several sets are several exchanges."""
    from policy.replay_exchange.server import DIALECTS
    from tradewind.market.ccxt_source import SETS
    from tradewind.market.folder import FolderSource
    from tradewind.market.simulated import SimulatedSource

    names = {SETS[exchange]: exchange for exchange in DIALECTS}
    found: dict[str, BarSource] = {}
    for set_id in dict.fromkeys(sets):
        if set_id not in names:
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"--set {set_id!r} belongs to no exchange that can be replayed",
                f"Use one of {', '.join(names)}",
            )
        if data is None:
            market = settings.market
            found[names[set_id]] = SimulatedSource(market.all_symbols, market.simulated_seed)
        else:
            folder = FolderSource(data, set_id)
            folder.check(settings.market.timeframe)
            found[names[set_id]] = folder
    return found


def _clock(
    settings: Settings,
    sources: dict[str, BarSource],
    start: str,
    speed: float,
    follow_clock: bool,
) -> Callable[[], int]:
    from policy.replay_exchange import ReplayClock
    from tradewind.ledger.clock import open_clock

    if follow_clock:
        if start:
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"--start {start} and --follow-clock contradict each other",
                "Set the time with `tradewind clock set`, or leave --follow-clock out",
            )
        return open_clock(settings).now_ms
    start_ms = parse_moment(start, "--start") if start else _default_start(settings, sources)
    return ReplayClock(start_ms, speed).now_ms


def _default_start(settings: Settings, sources: dict[str, BarSource]) -> int:
    import asyncio

    now_ms = time.time_ns() // 1_000_000
    market = settings.market

    async def newest(source: BarSource) -> int:
        symbols = await source.symbols()
        names = [name for name in market.all_symbols if name in symbols] or list(symbols)
        bars = await source.fetch_bars(names[0], market.timeframe, 0, now_ms)
        return int(bars["ts"][-1]) if bars.height else now_ms

    async def oldest_end() -> int:
        return min([await newest(source) for source in sources.values()])

    return asyncio.run(oldest_end()) - DEFAULT_DAYS * MS_PER_DAY


def _print_start(exchange: ReplayExchange, sources: dict[str, BarSource]) -> None:
    lines = [
        *(f"# {name}: {source.name}" for name, source in sources.items()),
        f"# exchange time {_time_of(exchange)} UTC; proxy {exchange.proxy}; CA {exchange.ca_file}",
        "# Set these where Tradewind runs, then e.g. `tradewind ingest`. Ctrl-C stops.",
        *(f"export {name}={shlex.quote(text)}" for name, text in exchange.environment().items()),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _print_state(exchange: ReplayExchange) -> None:
    faults = ", ".join(f"{kind} × {n}" for kind, n in sorted(exchange.faults.done.items()))
    refused = ", ".join(sorted(set(exchange.refused_hosts)))
    sys.stdout.write(
        f"# {_time_of(exchange)} UTC, {exchange.answered} requests"
        f"; faults: {faults or 'none'}; refused hosts: {refused or 'none'}\n"
    )
    sys.stdout.flush()


def _time_of(exchange: ReplayExchange) -> str:
    state = next(iter(exchange.states.values()))
    return utc_text(state.now_ms(), SECOND)
