"""How good what was served has been, over rolling windows, once the outcomes are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tradewind.models import metrics as m
from tradewind.models.base import BoolArray, FloatArray, IntArray
from tradewind.models.conformal import independent_labels
from tradewind.settings import MS_PER_DAY

QUALITY = ("auc", "log_loss", "log_loss_base_rate", "brier", "ece", "coverage", "abstain_share")


@dataclass(frozen=True, eq=False)
class Served:
    """Answers with their outcomes; arrays of shape (n,), sorted by ``ts``.

    ``ts`` is the bar's open in ms and ``known_ms`` when the label's last bar closed; ``mu_low``,
    ``mu_high`` and ``epistemic_p`` are NaN where they were not logged. ``fwd_ret`` and the
    bounds are in log-return units.
    """

    ts: IntArray
    known_ms: IntArray
    p_up: FloatArray
    y: FloatArray
    fwd_ret: FloatArray
    mu_low: FloatArray
    mu_high: FloatArray
    epistemic_p: FloatArray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ts)

    def subset(self, mask: BoolArray) -> Served:
        """Return the rows of a mask."""
        return Served(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))

    def within(self, at_ms: int, days: int) -> Served:
        """Return what had become known by ``at_ms``, in the ``days`` before it."""
        since = at_ms - days * MS_PER_DAY
        return self.subset((self.known_ms > since) & (self.known_ms <= at_ms))


@dataclass(frozen=True)
class Rules:
    """The settings behind the figures.

    ``base_rate`` is the share of rises in the version's training rows: what a forecaster without
    any skill would have said. A row abstains above ``epistemic_limit``.
    """

    base_rate: float
    horizon: int
    ece_bins: int
    min_labels: int
    epistemic_limit: float


def window_figures(rows: Served, rules: Rules) -> dict[str, float | None]:
    """Return the figures of one window; None where they cannot be told.

    ``labels`` are rows, ``independent`` how many moments have labels that do not overlap, and
    ``intervals`` the rows that an interval was logged for. Below ``min_labels`` only the numbers
    are told; ``auc`` needs both classes.
    """
    inside = np.isfinite(rows.mu_low) & np.isfinite(rows.mu_high)
    figures: dict[str, float | None] = {
        "labels": float(len(rows)),
        "independent": independent_labels(rows.ts, rules.horizon),
        "intervals": float(inside.sum()),
        **dict.fromkeys(QUALITY),
    }
    if len(rows) < rules.min_labels:
        return figures
    p, y = rows.p_up, rows.y
    figures |= {
        "auc": m.auc(p, y) if 0 < y.sum() < len(y) else None,
        "log_loss": m.log_loss(p, y),
        "log_loss_base_rate": m.log_loss(np.full(len(y), rules.base_rate), y),
        "brier": m.brier(p, y),
        "ece": m.ece(p, y, rules.ece_bins),
    }
    if inside.any():
        held = (rows.fwd_ret >= rows.mu_low) & (rows.fwd_ret <= rows.mu_high)
        figures["coverage"] = float(held[inside].mean())
    spread = rows.epistemic_p[np.isfinite(rows.epistemic_p)]
    if len(spread):
        figures["abstain_share"] = float((spread > rules.epistemic_limit).mean())
    return figures


def midnights(rows: Served, now_ms: int, days: int) -> list[int]:
    """Return the UTC midnights of the last ``days`` up to now, from the first known label on."""
    if not len(rows):
        return []
    last = now_ms // MS_PER_DAY
    first = max(last - days + 1, int(rows.known_ms.min()) // MS_PER_DAY + 1)
    return [day * MS_PER_DAY for day in range(first, last + 1)]
