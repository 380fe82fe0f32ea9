"""The canonical regimes, and what a detector says of one bar."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

METRICS = (
    "adx",
    "di_diff",
    "alignment",
    "atr_ratio",
    "risk_atr_pct",
    "range_ratio",
    "momentum",
    "volume_ratio",
    "liquidity_ratio",
)
"""What a regime is judged by; `docs/regimes.md` says how each is computed.

adx and di_diff are in points (0..100), alignment is +1 (EMA 20 > 50 > 200), −1 (the reverse)
or 0, momentum is in ATR, the rest are ratios and shares of the price.
"""


class Regime(StrEnum):
    """What kind of market one timeframe is in."""

    TREND_UP = "TREND_UP"
    TREND_DOWN = "TREND_DOWN"
    RANGE_LOW_VOL = "RANGE_LOW_VOL"
    RANGE_HIGH_VOL = "RANGE_HIGH_VOL"
    BREAKOUT = "BREAKOUT"
    HIGH_VOLATILITY = "HIGH_VOLATILITY"
    ILLIQUID = "ILLIQUID"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class RegimeReading:
    """The regime of one timeframe as of one closed bar.

    ``confidence`` is 0..1 (0 for UNKNOWN); ``metrics`` has every name of `METRICS`, NaN where
    there were too few bars.
    """

    timeframe: str
    regime: Regime
    confidence: float
    metrics: dict[str, float]
