"""What a version must answer for a bar and a seed, computed apart from the server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks._serving_world import ServingWorld
from serving.loaded import Forward, Item
from tradewind.clock import ManualClock
from tradewind.features.view import FeatureView
from tradewind.market.active import store_for
from tradewind.models.bundle import ModelBundle

ROWS = 64
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Point:
    """One answer to be checked: a version, a symbol's bar, and the seed if one was given."""

    model_version: str
    symbol: str
    bar_ts: int
    seed: int | None = None


class Oracle:
    """Computes `Point` → p_up with the bundles that were registered."""

    def __init__(self, world: ServingWorld) -> None:
        settings = world.settings
        self._view = FeatureView(settings, store_for(settings), ManualClock(world.last_ms))
        self._settings = settings
        self._bundles: dict[str, ModelBundle] = {
            version.label: bundle
            for family, versions in world.versions.items()
            for version, bundle in zip(versions, world.bundles[family], strict=True)
        }

    def p_up(self, points: Iterable[Point], n_samples: int) -> dict[Point, float]:
        """Return the probability of every point, each computed once."""
        found: dict[Point, float] = {}
        different = dict.fromkeys(points)
        for version, bundle in self._bundles.items():
            mine = [point for point in different if point.model_version == version]
            forward = Forward(bundle, version, self._settings.serving.ranges)
            for start in range(0, len(mine), ROWS):
                part = mine[start : start + ROWS]
                items = [Item(self._view.at(p.symbol, p.bar_ts), p.seed) for p in part]
                for point, row in zip(part, forward(items, n_samples), strict=True):
                    found[point] = row.p_up
        return found
