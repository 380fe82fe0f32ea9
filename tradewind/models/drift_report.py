"""Evidently's drift report as one HTML file, for a person to read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tradewind.files import atomic_path
from tradewind.models.base import Samples

MAX_ROWS = 2000


def write_drift_html(reference: Samples, current: Samples, target: Path, *, seed: int = 0) -> Path:
    """Write the report comparing ``current`` with ``reference``; returns ``target``.

    Rows are sampled (at most 2,000 a side) and columns without a finite value on both
    sides, or constant on the reference side, are left out: Evidently refuses them.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from evidently import Report
    from evidently.presets import DataDriftPreset

    names = list(reference.wide_names)
    left, right = _sampled(reference, seed), _sampled(current, seed)
    usable = [
        i
        for i in range(len(names))
        if np.isfinite(left[:, i]).any()
        and np.isfinite(right[:, i]).any()
        and np.nanstd(left[:, i]) > 0
    ]
    frames = [_frame(values[:, usable], [names[i] for i in usable]) for values in (left, right)]
    snapshot = Report([DataDriftPreset(method="psi")]).run(frames[1], frames[0])
    with atomic_path(target) as temporary:
        snapshot.save_html(str(temporary))
    return target


def _sampled(samples: Samples, seed: int) -> np.ndarray:
    wide = samples.wide
    if len(samples) > MAX_ROWS:
        rows = np.random.default_rng(seed).choice(len(samples), MAX_ROWS, replace=False)
        wide = wide[np.sort(rows)]
    return np.where(np.isfinite(wide), wide, np.nan)


def _frame(values: np.ndarray, names: list[str]) -> object:
    import pandas as pd

    return pd.DataFrame(values, columns=pd.Index(names))
