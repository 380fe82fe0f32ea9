"""What would show that the evaluation fools itself: looks ahead, overlaps, or learns noise."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from tradewind.clock import ManualClock
from tradewind.features.lookahead import CHECK_CUTS, CHECK_ROWS, check_store
from tradewind.market.store import BarStore
from tradewind.models.rolling.walk import Walk
from tradewind.settings import Settings

COIN = 0.5
SLICES = ("fit", "valid", "calib", "test")


def lookahead(
    settings: Settings,
    store: BarStore,
    symbols: Sequence[str],
    until_ms: int,
    *,
    rows: int = CHECK_ROWS,
    cuts: int = CHECK_CUTS,
) -> dict[str, Any]:
    """Return whether any feature of the newest bars changes when the future is removed."""
    found: dict[str, Any] = {}
    for symbol in symbols:
        report = check_store(
            settings, ManualClock(until_ms), symbol, store=store, rows=rows, cuts=cuts
        )
        found[symbol] = {
            "ok": report.ok,
            "rows": report.rows,
            "cuts": report.cuts,
            "offending": list(report.offending),
        }
    return {"ok": all(part["ok"] for part in found.values()), "symbols": found}


def slices_apart(settings: Settings, walks: Mapping[str, Walk]) -> dict[str, Any]:
    """Return whether the label of every slice's last row ends before the next slice begins.

    ``least_gap_bars`` counts bars between the bar at which a label is known and the first row
    of the slice after it, over all folds: 0 or more, or a slice was judged on what the one
    before it had learnt.
    """
    step = settings.market.timeframe_ms
    gaps = [
        (result.spans[later][0] - result.spans[earlier][1]) // step - settings.training.horizon - 1
        for walk in walks.values()
        for results in walk.results.values()
        for result in results
        for earlier, later in itertools.pairwise(SLICES)
    ]
    least = min(gaps)
    return {"ok": least >= 0, "boundaries": len(gaps), "least_gap_bars": least}


def coin_flips(
    figures: Mapping[str, Mapping[str, Mapping[str, Any]]], level: float
) -> dict[str, Any]:
    """Return whether each forecaster's AUC may be 0.5, as shuffled labels demand.

    Each interval of ``level`` is widened as for so many tests at once (Bonferroni, a normal
    error), so that one honest forecaster of many does not raise an alarm.
    """
    from scipy.stats import norm

    tail = (1 - level) / 2
    wider = norm.ppf(tail / max(1, len(figures))) / norm.ppf(tail)
    found = {}
    for name, parts in figures.items():
        own = parts["pooled"]
        low = own["auc"] - (own["auc"] - own["auc_low"]) * wider
        high = own["auc"] + (own["auc_high"] - own["auc"]) * wider
        found[name] = bool(low <= COIN <= high)
    return {"ok": all(found.values()), "forecasters": found}
