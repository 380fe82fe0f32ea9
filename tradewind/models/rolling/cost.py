"""What a walk will cost, told before it starts.

Seconds are an estimate from rates measured on one core of a small server; what a machine
really takes is told fold by fold as it goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tradewind.models.base import IntArray
from tradewind.models.dataset import TrainingSet
from tradewind.models.families import forecaster_class
from tradewind.models.rolling.folds import bar_on_stride
from tradewind.models.rolling.walk import planned, planned_record
from tradewind.models.splits import Fold
from tradewind.models.training import rows_of
from tradewind.settings import Settings

TREE_ROUND_S = 6e-8
"""Seconds a row and round of one booster."""
TREE_FIXED_S = 0.3
"""Seconds a booster beside its rounds: binning the rows."""
DEEP_TRAIN_S = 7e-3
"""Seconds a sample and epoch of a network of the default size."""
DEEP_PASS_S = 2e-3
"""Seconds a row and stochastic pass."""


@dataclass(frozen=True)
class WalkCost:
    """What one family's walk takes for one key; ``seconds`` is an estimate."""

    family: str
    key: str
    folds: int
    first_fit_rows: int
    last_fit_rows: int
    test_rows: int
    compared_rows: int
    seconds: float


def walk_cost(
    settings: Settings,
    training_set: TrainingSet,
    family: str,
    keys: Sequence[str],
    *,
    record: bool = False,
) -> list[WalkCost]:
    """Return the cost of a walk of ``family`` for each of ``keys``; nothing is fitted.

    ``record`` as of `walk_family`: its folds cost time, and none of their rows is judged.
    """
    found = []
    for key in keys:
        ts = rows_of(training_set.samples, key).ts
        folds = planned(settings, training_set, family, key)
        before = planned_record(settings, training_set, family, key) if record else []
        walked = [*before, *folds]
        test = np.concatenate([fold.test for fold in folds])
        found.append(
            WalkCost(
                family=family,
                key=key,
                folds=len(walked),
                first_fit_rows=len(walked[0].fit),
                last_fit_rows=len(folds[-1].fit),
                test_rows=len(test),
                compared_rows=int(bar_on_stride(settings, ts[test]).sum()),
                seconds=round(sum(_seconds(settings, family, fold, ts) for fold in walked), 1),
            )
        )
    return found


def _seconds(settings: Settings, family: str, fold: Fold, ts: IntArray) -> float:
    chosen = settings.evaluation
    if forecaster_class(family).reads_wide:
        boosters = 2 * chosen.bag + 1
        rows = len(fold.fit) / chosen.fit_stride
        return boosters * (TREE_FIXED_S + TREE_ROUND_S * rows * chosen.max_rounds)
    judged = np.concatenate([fold.calib, fold.test])
    passes = int(bar_on_stride(settings, ts[judged]).sum()) * chosen.passes
    drawn = min(len(fold.fit), chosen.max_epoch_samples) * chosen.epochs
    return DEEP_TRAIN_S * drawn + DEEP_PASS_S * passes
