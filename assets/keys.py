"""Keys of the asset graph."""

from __future__ import annotations

from dagster import AssetKey

BARS = AssetKey("bars")
FEATURES = AssetKey("features")


def family_key(family: str, stage: str) -> AssetKey:
    """Return the key of a family's stage: training_set, model, evaluation, drift, promotion."""
    return AssetKey([family, stage])
