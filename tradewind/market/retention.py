"""How far back the store keeps each kind of data: a setting, never less than models need."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from tradewind.settings import MS_PER_DAY, TIMEFRAME_MS, Settings

SPARE_BARS = 5_000
"""Bars before a model's first row that its features may reach, beside warm-up and windows."""


def needed_days(settings: Settings) -> int:
    """Return the days of history that training with the settings reads, warm-up included."""
    features, training = settings.features, settings.training
    bars = features.warmup_bars + features.window + features.ratio_window + training.horizon
    warmup = (bars + SPARE_BARS) * settings.market.timeframe_ms
    risk = features.risk_atr_bars * TIMEFRAME_MS[settings.sizing.risk_atr_timeframe]
    return training.days_back + math.ceil(max(warmup, risk) / MS_PER_DAY)


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
