"""Names of sets: {exchange}_{market} for bars, and the companion series beside them."""

from __future__ import annotations

# How the folders of companion series are called: binance_usdm_oi_4h.
OPEN_INTEREST_NAME = "oi"
LONG_SHORT_RATIO_NAME = "long_short"
SIMULATED_SET = "simulated_usdm_perp"


def bars_folder(set_id: str, timeframe: str) -> str:
    """Return the folder of a set's bars, such as ``binance_usdm_perp_15m``."""
    return f"{set_id}_{timeframe}"


def companion_folder(set_id: str, kind: str, timeframe: str) -> str:
    """Return the folder of a companion series, such as ``binance_usdm_funding_8h``."""
    return f"{set_id.removesuffix('_perp')}_{kind}_{timeframe}"
