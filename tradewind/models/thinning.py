"""Which rows a family is judged on, where a prediction costs more than a row tells.

A label of H bars shares all but one of them with the next bar's, so every k-th bar holds
nearly the information of all (k well below H). Boosted trees predict every row in a
moment; a network with S stochastic passes takes tens of milliseconds a row.
"""

from __future__ import annotations

import math

from tradewind.models.base import Samples
from tradewind.models.families import forecaster_class
from tradewind.settings import Settings


def thinned(settings: Settings, family: str, samples: Samples, stride: int) -> Samples:
    """Return the rows a family is judged on: all for trees, every ``stride``-th bar for others.

    Bars are counted from the epoch, so that every version and every symbol is judged on
    the same moments.
    """
    if stride == 1 or forecaster_class(family).reads_wide:
        return samples
    bar = samples.ts // settings.market.timeframe_ms
    return samples.subset(bar % stride == 0)


def judged_rows(settings: Settings, family: str, samples: Samples) -> Samples:
    """Return the rows that metrics are computed on."""
    return thinned(settings, family, samples, settings.training.judge_stride)


def overlap(settings: Settings, family: str, stride: int) -> int:
    """Return over how many neighbouring judged rows a label reaches."""
    horizon = settings.training.horizon
    return horizon if forecaster_class(family).reads_wide else math.ceil(horizon / stride)
