"""Concept drift: whether outcomes have left what a version says of them.

A version that says p expects a log-loss of H(p) = −p·log p − (1−p)·log(1−p) on that row. Where
the relation of inputs and outcomes holds, the excess (the loss less H(p)) has mean zero whatever
the inputs are; where it has changed, the excess is positive. Inputs that moved alone do not move
it, which is how concept drift is told apart from data drift.

Labels of H bars overlap and symbols move together, so rows are no independent evidence. A block
is a day (or four horizons, if that is longer) and holds the rows of every symbol whose label ends
within it: no bar counts in two blocks. The mean excess is tested by its spread over blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tradewind.models import metrics as m
from tradewind.models.base import FloatArray, IntArray
from tradewind.models.drift import Status
from tradewind.settings import MS_PER_DAY, DriftSettings

HORIZONS_A_BLOCK = 4
SMALLEST_P = 1e-16


class Verdict(StrEnum):
    """What outcomes say of a version."""

    NONE = "none"
    WARN = "warn"
    ALERT = "alert"


class DriftKind(StrEnum):
    """Which drift was found: of the inputs, of what follows from them, of both, or neither."""

    NEITHER = "neither"
    DATA = "data"
    CONCEPT = "concept"
    BOTH = "both"


ADVICE: Mapping[DriftKind, str] = {
    DriftKind.NEITHER: "nothing to do",
    DriftKind.DATA: "look at the feed of the worst feature first: a dead or rescaled input is not "
    "mended by training; if it is sound, retrain on recent bars",
    DriftKind.CONCEPT: "inputs are as in training and outcomes are not: retrain on recent bars; "
    "until then roll back, or recalibrate where the auc still holds",
    DriftKind.BOTH: "look at the feed of the worst feature; if it is sound the market has changed: "
    "retrain on recent bars, and roll back or stop trading on this version until then",
}


@dataclass(frozen=True)
class ConceptReport:
    """What the test found; ``z`` is None where blocks were too few to judge.

    ``excess`` is the mean log-loss less what the version's own probabilities expect, in nats;
    ``p_value`` is one-sided, of Student's t over ``blocks``, and ``z`` the normal quantile of it.
    ``holdout_log_loss`` is what the version showed when it was judged, None if not kept.
    """

    verdict: Verdict
    blocks: int
    labels: int
    z: float | None = None
    p_value: float | None = None
    excess: float | None = None
    log_loss: float | None = None
    expected_log_loss: float | None = None
    holdout_log_loss: float | None = None

    def figures(self) -> dict[str, float | int | str | None]:
        """Return ``concept`` (the verdict) and ``concept_{figure}``."""
        return {
            "concept": self.verdict.value,
            "concept_z": self.z,
            "concept_p_value": self.p_value,
            "concept_excess": self.excess,
            "concept_log_loss": self.log_loss,
            "concept_expected_log_loss": self.expected_log_loss,
            "concept_holdout_log_loss": self.holdout_log_loss,
            "concept_labels": self.labels,
            "concept_blocks": self.blocks,
        }


def concept_drift(
    ts: IntArray,
    p_up: FloatArray,
    y: FloatArray,
    *,
    horizon_ms: int,
    settings: DriftSettings,
    holdout_log_loss: float | None = None,
) -> ConceptReport:
    """Test the log-loss of answers against what they themselves expect.

    A verdict needs a log-loss above ``holdout_log_loss`` too: a version that does no worse than
    when it was judged has lost nothing.

    Parameters
    ----------
    ts
        Opens of the answered bars in epoch ms, any order, shape (n,).
    p_up, y
        Served probabilities and outcomes (0 or 1), shape (n,).
    horizon_ms
        From a bar's open to the close of its label's last bar.
    """
    block_ms = max(MS_PER_DAY, HORIZONS_A_BLOCK * horizon_ms)
    whole = ts // block_ms == (ts + horizon_ms - 1) // block_ms
    block, p, y = ts[whole] // block_ms, np.clip(p_up[whole], m.CLIP, 1 - m.CLIP), y[whole]
    _, place = np.unique(block, return_inverse=True)
    blocks = int(place.max()) + 1 if len(place) else 0
    if blocks < settings.concept_min_blocks:
        return ConceptReport(Verdict.NONE, blocks, len(p), holdout_log_loss=holdout_log_loss)
    loss = m.row_log_loss(p, y)
    expected = -(p * np.log(p) + (1 - p) * np.log1p(-p))
    z, p_value = _tested(loss - expected, place, blocks)
    worse = holdout_log_loss is None or loss.mean() > holdout_log_loss
    return ConceptReport(
        _verdict(z, settings) if worse else Verdict.NONE,
        blocks,
        len(p),
        z=z,
        p_value=p_value,
        excess=float((loss - expected).mean()),
        log_loss=float(loss.mean()),
        expected_log_loss=float(expected.mean()),
        holdout_log_loss=holdout_log_loss,
    )


def drift_kind(data: Status, concept: Verdict) -> DriftKind:
    """Return which drift has its alarm."""
    if concept is Verdict.ALERT:
        return DriftKind.BOTH if data == "alert" else DriftKind.CONCEPT
    return DriftKind.DATA if data == "alert" else DriftKind.NEITHER


def _tested(excess: FloatArray, place: IntArray, blocks: int) -> tuple[float, float]:
    """Return the normal quantile and one-sided p-value of a mean over blocks of unequal size."""
    from scipy.stats import norm, t

    rows = np.bincount(place, minlength=blocks)
    residual = np.bincount(place, weights=excess - excess.mean(), minlength=blocks)
    error = np.sqrt(blocks / (blocks - 1) * (residual**2).sum()) / rows.sum()
    if error == 0:  # every p was one half: nothing was said that could be wrong
        return 0.0, 0.5
    p_value = float(t.sf(excess.mean() / error, blocks - 1))
    return float(norm.isf(np.clip(p_value, SMALLEST_P, 1 - SMALLEST_P))), p_value


def _verdict(z: float, settings: DriftSettings) -> Verdict:
    if z >= settings.concept_alert_z:
        return Verdict.ALERT
    return Verdict.WARN if z >= settings.concept_warn_z else Verdict.NONE
