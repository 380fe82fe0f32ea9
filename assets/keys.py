"""Keys of the asset graph."""

from __future__ import annotations

from dagster import AssetKey

BARS = AssetKey("bars")
FUNDING = AssetKey("funding")
OPEN_INTEREST = AssetKey("open_interest")
LONG_SHORT_RATIO = AssetKey("long_short_ratio")
COMPANIONS = (FUNDING, OPEN_INTEREST, LONG_SHORT_RATIO)
FEATURES = AssetKey("features")
HISTORY_EVALUATION = AssetKey("history_evaluation")


def family_key(family: str, stage: str) -> AssetKey:
    """Return the key of a family's stage: training_set, model, evaluation, drift, promotion."""
    return AssetKey([family, stage])
