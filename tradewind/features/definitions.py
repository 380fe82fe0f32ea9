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
    """One feature.

    Parameters
    ----------
    name, group
        Its name, and the smallest set that it is in: deep or wide.
    formula
        What it is, in words.
    warmup
        Bars of unbroken history that it needs before its own: a number, or the setting of
        `features` that says it.
    source
        bars: the symbol's own; references: others' bars; clock; or a companion series.
    nullable
        Whether a row may be used without it.
    """

    name: str
    group: str
    formula: str
    warmup: int | str = 0
    source: str = "bars"
    nullable: bool = False

    @property
    def null_policy(self) -> str:
        """Say what a missing value means for the row."""
        return "kept, NaN" if self.nullable else "row refused"


RECURSIVE = "warmup_bars"
"""A recursive indicator: its warm-up is `features.warmup_bars`."""

TABLE: tuple[Feature, ...] = (
    Feature("ret_1", "deep", "log(close / close 1 bar earlier)", 1),
    Feature("ema_20", "deep", "log(close / EMA(close, 20))", RECURSIVE),
    Feature("ema_50", "deep", "log(close / EMA(close, 50))", RECURSIVE),
    Feature("ema_200", "deep", "log(close / EMA(close, 200))", RECURSIVE),
    Feature("z_20", "deep", "(log close − its 20-bar mean) / its 20-bar std; 0 when flat", 19),
    Feature("range", "deep", "(high − low) / close"),
    Feature("vol_20", "deep", "20-bar std of ret_1", 20),
    Feature(
        "ratio_BTC_ETH",
        "deep",
        "ratio_window z-score of log(reference 1 / reference 2)",
        "ratio_window",
        "references",
    ),
    Feature(
        "ratio_ETH_SOL",
        "deep",
        "ratio_window z-score of log(reference 2 / reference 3)",
        "ratio_window",
        "references",
    ),
    Feature(
        "lead_ret_BTC",
        "deep",
        "previous bar's ret_1 of reference 1; for it, reference 2's",
        2,
        "references",
    ),
    Feature("rsi_14", "wide", "RSI(close, 14) / 100", RECURSIVE),
    Feature("atr_14", "wide", "ATR(14) / close", RECURSIVE),
    Feature("adx_14", "wide", "ADX(14) / 100", RECURSIVE),
    Feature("di_diff_14", "wide", "(+DI(14) − −DI(14)) / 100", RECURSIVE),
    Feature("macd_hist", "wide", "histogram of MACD(close, 12, 26, 9) / close", RECURSIVE),
    Feature("bb_pctb_20", "wide", "place of close in its 20-bar 2σ band, 0..1; 0.5 when flat", 19),
    Feature("bb_width_20", "wide", "width of that band / its middle", 19),
    Feature("stoch_k_14", "wide", "place of close in the 14-bar high–low, 0..1; 0.5 when flat", 13),
    Feature("volume_ratio_20", "wide", "volume / its 20-bar mean; 0 when nothing traded", 19),
    Feature("ret_4", "wide", "log(close / close 4 bars earlier)", 4),
    Feature("ret_16", "wide", "log(close / close 16 bars earlier)", 16),
    Feature("ret_96", "wide", "log(close / close 96 bars earlier)", 96),
    Feature("vol_ratio_20_96", "wide", "vol_20 / 96-bar std of ret_1; 1 when flat", 96),
    Feature("hour_sin", "wide", "sin(2π · UTC time of day of the open)", source="clock"),
    Feature("hour_cos", "wide", "cos(2π · UTC time of day of the open)", source="clock"),
    Feature(
        "funding_rate",
        "wide",
        "last rate settled before the close; none older than 16 h",
        source="funding",
        nullable=True,
    ),
    Feature(
        "open_interest_change",
        "wide",
        "log(open interest / 24 h earlier), each the last before then, none older than 8 h",
        source="open_interest",
        nullable=True,
    ),
    Feature(
        "long_short_ratio",
        "wide",
        "log of the last long/short account ratio before the close; none older than 8 h",
        source="long_short_ratio",
        nullable=True,
    ),
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


def warmup_of(feature: Feature, settings: Settings) -> int:
    """Return the bars of unbroken history that a feature needs before its own bar."""
    if isinstance(feature.warmup, int):
        return feature.warmup
    bars = int(getattr(settings.features, feature.warmup))
    return bars if feature.warmup == RECURSIVE else bars - 1


def feature_table(settings: Settings) -> str:
    """Return the table as Markdown; the documentation shows exactly this."""
    rows = (
        f"| `{f.name}` | {f.group} | {f.formula} | {warmup_of(f, settings)} | {f.source} "
        f"| {f.null_policy} |"
        for f in TABLE
    )
    head = "| feature | set | what it is | warm-up, bars | source | when missing |"
    return "\n".join((head, "| --- | --- | --- | --- | --- | --- |", *rows))


def longest_window(settings: Settings) -> int:
    """Return the bars that the longest window feature spans, its own bar included."""
    return max(settings.features.ratio_window, SLOW, LONG) + 2


def window_periods(settings: Settings) -> tuple[int, int, int, int, int]:
    """Return the windows of features in bars, as `_kernel.window_features` takes them."""
    return FAST, LONG, PERIOD, settings.features.ratio_window, longest_window(settings)


def history_rows(settings: Settings) -> int:
    """Return how many bars before one decide its features, at most."""
    return max(settings.features.warmup_bars, longest_window(settings))
