"""Are a row's inputs like those that the model was trained on?

Neither a bag of trees nor Monte Carlo dropout notices inputs far outside the training range:
trees answer with their outermost leaf, and passes agree with one another there. So ranges are
checked apart, against those that the version keeps (`Reference.low`, `Reference.high`).
"""

from __future__ import annotations

import numpy as np

from tradewind.models.base import BoolArray, Samples
from tradewind.models.reference import Reference
from tradewind.settings import RangeSettings


def out_of_range(
    samples: Samples, reference: Reference, rules: RangeSettings, *, reads_wide: bool
) -> BoolArray:
    """Return which features of each row are outside, shape (n, F) over ``reference.names``.

    A family that reads the wide features is asked about those of the row. For one that reads
    a window of the deep features, which are the first of the wide ones, a feature is outside
    when its newest bar is, or more than ``rules.window_share`` of the window's bars are: one
    wild bar among many is not yet a strange window.
    """
    if reads_wide:
        return reference.out_of_range(samples.wide, margin=rules.margin)
    deep = samples.deep
    found = np.zeros((len(samples), len(reference.names)), dtype=np.bool_)
    for code, bars in enumerate(deep.rows):
        rows = np.flatnonzero(deep.symbol == code)
        outside = reference.out_of_range(bars, margin=rules.margin)
        through = np.cumsum(np.vstack([np.zeros_like(outside[:1]), outside]), axis=0)
        end = deep.end[rows] + 1
        share = (through[end] - through[end - deep.width]) / deep.width
        found[rows, : bars.shape[1]] = outside[end - 1] | (share > rules.window_share)
    return found


def names_outside(found: BoolArray, reference: Reference) -> list[tuple[str, ...]]:
    """Return the names of the features that are outside, row by row."""
    names = np.asarray(reference.names)
    return [tuple(str(name) for name in names[row]) for row in found]
