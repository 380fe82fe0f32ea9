"""Timeframes made of the trading one's bars, and how far back they reach."""

from __future__ import annotations

from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import TIMEFRAME_MS, Settings

SLOW_ANCHOR_BARS = 128
"""Indicators of a slower timeframe restart at multiples of this many of its bars."""


def risk_ms(settings: Settings) -> int:
    """Return the length of a bucket of `sizing.risk_atr_timeframe`.

    Raises
    ------
    TradewindError
        ``bad_setting`` when it cannot be made of the trading timeframe's bars.
    """
    length = TIMEFRAME_MS[settings.sizing.risk_atr_timeframe]
    if length % settings.market.timeframe_ms:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"sizing.risk_atr_timeframe = {settings.sizing.risk_atr_timeframe} "
            f"cannot be made of {settings.market.timeframe} bars",
            "Choose a timeframe that is a multiple of market.timeframe",
        )
    return length


def slower_timeframes(settings: Settings) -> tuple[str, ...]:
    """Return the regime timeframes beside the trading one: its multiples."""
    step = settings.market.timeframe_ms
    slower = (t for t in settings.regimes.timeframes if TIMEFRAME_MS[t] > step)
    return tuple(sorted(set(slower), key=lambda t: TIMEFRAME_MS[t]))


def regime_rows(settings: Settings) -> int:
    """Return how many trading bars before one decide its regimes, at most."""
    cfg, step = settings.regimes, settings.market.timeframe_ms
    slowest = max((TIMEFRAME_MS[t] for t in slower_timeframes(settings)), default=0)
    windows = cfg.memory_bars + max(cfg.range_bars + cfg.average_bars, cfg.volume_average_bars)
    pieces = 1 + -(-windows // SLOW_ANCHOR_BARS)
    slow = (pieces * SLOW_ANCHOR_BARS + cfg.warmup_bars + 2) * (slowest // step)
    # One bucket more at either end: the oldest may be cut, the newest be unfinished.
    risk = (settings.features.risk_atr_bars + 2) * (risk_ms(settings) // step)
    return max(slow, risk + cfg.memory_bars)
