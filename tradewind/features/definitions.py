"""The table of features: the one place that says what each of them is.

`tradewind.features.compute` computes exactly these names, in this order; the version that
every prediction and model carries is a hash of this table and of its parameters.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from tradewind.settings import Settings

CODE_REVISION = 1
"""Raise it when a feature's numbers change although its text below does not."""

ANCHOR_BARS = 1024
"""Recursive indicators restart at multiples of this many bars of absolute time; see compute."""

FAST, MIDDLE, SLOW = 20, 50, 200
PERIOD = 14
LONG = 96
MACD = (12, 26, 9)
BAND_WIDTH = 2.0


class Feature(NamedTuple):
    """One feature: its name, the smallest set it is in, and its formula."""

    name: str
    group: str
    formula: str
    nullable: bool = False


TABLE: tuple[Feature, ...] = (
    Feature("ret_1", "deep", "log(close / close 1 bar earlier)"),
    Feature("ema_20", "deep", "log(close / EMA(close, 20))"),
    Feature("ema_50", "deep", "log(close / EMA(close, 50))"),
    Feature("ema_200", "deep", "log(close / EMA(close, 200))"),
    Feature("z_20", "deep", "(log close − its 20-bar mean) / its 20-bar std; 0 when flat"),
    Feature("range", "deep", "(high − low) / close"),
    Feature("vol_20", "deep", "20-bar std of ret_1"),
    Feature("ratio_BTC_ETH", "deep", "ratio_window z-score of log(reference 1 / reference 2)"),
    Feature("ratio_ETH_SOL", "deep", "ratio_window z-score of log(reference 2 / reference 3)"),
    Feature("lead_ret_BTC", "deep", "previous bar's ret_1 of reference 1; for it, reference 2's"),
    Feature("rsi_14", "wide", "RSI(close, 14) / 100"),
    Feature("atr_14", "wide", "ATR(14) / close"),
    Feature("adx_14", "wide", "ADX(14) / 100"),
    Feature("di_diff_14", "wide", "(+DI(14) − −DI(14)) / 100"),
    Feature("macd_hist", "wide", "histogram of MACD(close, 12, 26, 9) / close"),
    Feature("bb_pctb_20", "wide", "place of close in its 20-bar 2σ band, 0..1; 0.5 when flat"),
    Feature("bb_width_20", "wide", "width of that band / its middle"),
    Feature("stoch_k_14", "wide", "place of close in the 14-bar high–low, 0..1; 0.5 when flat"),
    Feature("volume_ratio_20", "wide", "volume / its 20-bar mean; 0 when nothing traded"),
    Feature("ret_4", "wide", "log(close / close 4 bars earlier)"),
    Feature("ret_16", "wide", "log(close / close 16 bars earlier)"),
    Feature("ret_96", "wide", "log(close / close 96 bars earlier)"),
    Feature("vol_ratio_20_96", "wide", "vol_20 / 96-bar std of ret_1; 1 when flat"),
    Feature("hour_sin", "wide", "sin(2π · UTC time of day of the open)"),
    Feature("hour_cos", "wide", "cos(2π · UTC time of day of the open)"),
    Feature("funding_rate", "wide", "last rate settled before the close", nullable=True),
    Feature("open_interest_change", "wide", "not collected yet: always NaN", nullable=True),
    Feature("long_short_ratio", "wide", "not collected yet: always NaN", nullable=True),
)

DEEP: tuple[str, ...] = tuple(f.name for f in TABLE if f.group == "deep")
WIDE: tuple[str, ...] = tuple(f.name for f in TABLE)
NULLABLE_FEATURES: tuple[str, ...] = tuple(f.name for f in TABLE if f.nullable)
REQUIRED_FEATURES: tuple[str, ...] = tuple(f.name for f in TABLE if not f.nullable)


def feature_version(settings: Settings) -> str:
    """Return a short hash of the table and of every parameter that changes a number."""
    described = {
        "table": TABLE,
        "code": CODE_REVISION,
        "anchor": ANCHOR_BARS,
        "timeframe": settings.market.timeframe,
        "references": settings.market.reference_symbols,
        "settings": settings.features.model_dump(exclude={"risk_atr_bars"}),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


def longest_window(settings: Settings) -> int:
    """Return the bars that the longest window feature spans, its own bar included."""
    return max(settings.features.ratio_window, SLOW, LONG) + 2


def history_rows(settings: Settings) -> int:
    """Return how many bars before one decide its features, at most."""
    return max(settings.features.warmup_bars, longest_window(settings))
