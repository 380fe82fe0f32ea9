"""How far back the store keeps each kind of data: a setting, never less than models need."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from tradewind.market.timeframes import regime_rows
from tradewind.settings import MS_PER_DAY, Settings

SPARE_BARS = 2_048
"""Two blocks of bars more: a block's indicators begin before it, see `features._indicators`."""


def needed_days(settings: Settings) -> int:
    """Return the days of history that training with the settings reads.

    Behind its first row lie the warm-up and, further back, what regimes of slower timeframes and
    the ATR of the risk timeframe are made of.
    """
    features, training = settings.features, settings.training
    behind = max(features.warmup_bars + features.ratio_window, regime_rows(settings))
    bars = behind + features.window + training.horizon + SPARE_BARS
    return training.days_back + math.ceil(bars * settings.market.timeframe_ms / MS_PER_DAY)


def kept_days(settings: Settings, kind: str) -> int | None:
    """Return the days kept of a kind (``bars``, ``funding``, …); None: for ever."""
    asked: int | None = getattr(settings.retention, f"{kind}_days", None)
    return None if asked is None else max(asked, needed_days(settings))


def keep_from(settings: Settings, kind: str, now_ms: int) -> int | None:
    """Return the start of the oldest month that is kept; None: everything is.

    Months are kept or dropped whole, so some days more than asked for stay.
    """
    days = kept_days(settings, kind)
    if days is None:
        return None
    oldest = datetime.fromtimestamp(max(0, now_ms - days * MS_PER_DAY) / 1000, UTC)
    first = oldest.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return int(first.timestamp() * 1000)
