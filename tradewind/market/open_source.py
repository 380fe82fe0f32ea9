"""Choose where bars come from, and never change it silently."""

from __future__ import annotations

import asyncio

import structlog

from tradewind.clock import Clock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.market.active import ActiveSet, active_set, remember
from tradewind.market.ccxt_source import first_reachable, set_of
from tradewind.market.folder import FolderSource
from tradewind.market.simulated import ORIGIN_MS, SimulatedSource
from tradewind.market.sources import BarSource
from tradewind.settings import Settings

log = structlog.get_logger(__name__)


async def open_source(settings: Settings, clock: Clock) -> BarSource:
    """Open the source that ``settings.market.source`` asks for.

    ``auto`` takes the folder ``settings.data`` if one is set, else the first exchange that
    answers, else the simulated market. Once a set is in use, ``auto`` stays with it, and
    ``ccxt`` with its exchange while ``exchanges`` names it: an exchange that fails later is an
    error, never a switch to other prices.

    Raises
    ------
    TradewindError
        ``bad_setting``, ``data_unreadable``, ``no_bars``, ``exchange_unreachable``.
    """
    wanted = settings.market.source
    if wanted == "folder" or (wanted == "auto" and settings.data is not None):
        return _folder(settings)
    if wanted == "simulated":
        return _simulated(settings, clock)
    if wanted == "ccxt":
        return await first_reachable(settings, _usable(settings, active_set(settings)))
    return await _automatic(settings, clock, active_set(settings))


def settle_source(settings: Settings, clock: Clock) -> ActiveSet:
    """Find the source that ingestion would open, and stay with its set from now on.

    Raises
    ------
    TradewindError
        As `open_source`, and as `remember`.
    """
    before = active_set(settings)

    async def look() -> ActiveSet:
        source = await open_source(settings, clock)
        await source.close()
        return ActiveSet(set_id=source.set_id, source_kind=source.kind, source_name=source.name)

    found = asyncio.run(look())
    remember(settings, found, before)
    return found


async def _automatic(settings: Settings, clock: Clock, active: ActiveSet | None) -> BarSource:
    if active is None:
        try:
            return await first_reachable(settings, settings.market.exchanges)
        except TradewindError as error:
            if error.code is not ErrorCode.EXCHANGE_UNREACHABLE:
                raise
            log.warning("market_simulated", reason=error.detail)
            return _simulated(settings, clock)
    if active.simulated:
        return _simulated(settings, clock)
    return await first_reachable(settings, _usable(settings, active))


def _usable(settings: Settings, active: ActiveSet | None) -> tuple[str, ...]:
    """Return the exchange whose set is in use; all of them before there is one."""
    exchanges = settings.market.exchanges
    if active is None:
        return exchanges
    return tuple(name for name in exchanges if set_of(name) == active.set_id) or exchanges


def _folder(settings: Settings) -> FolderSource:
    if settings.data is None:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            "setting market.source = 'folder', and no folder of bars is set",
            "Set TRADEWIND_DATA to a folder of sets such as binance_usdm_perp_15m",
        )
    source = FolderSource(settings.data, settings.market.set_id)
    source.check(settings.market.timeframe)
    return source


def _simulated(settings: Settings, clock: Clock) -> SimulatedSource:
    if clock.now_ms() <= ORIGIN_MS:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"the clock stands at {clock.now_ms()} ms, before the simulated market begins"
            f" ({ORIGIN_MS} ms, 2022-01-01)",
            "Move the replay clock to 2022 or later, or use another source",
        )
    return SimulatedSource(settings.market.all_symbols, settings.market.simulated_seed)
