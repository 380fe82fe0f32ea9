"""The members of a deep ensemble: networks of one family that differ in their seed.

The first member is the network that a fit without an ensemble would give, with its files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tradewind.models.base import EpochHook, FitReport


def member_seed(seed: int, member: int) -> int:
    """Return a member's seed; the first one's is the fit's own."""
    if member == 0:
        return seed
    return int(np.random.SeedSequence([seed, member]).generate_state(1)[0])


def member_folder(checkpoint_dir: Path | None, member: int) -> Path | None:
    """Return where a member keeps its checkpoint, None where none is kept."""
    if checkpoint_dir is None or member == 0:
        return checkpoint_dir
    return checkpoint_dir / f"member_{member}"


def weights_file(member: int) -> str:
    """Return the name of a member's weights in the saved folder."""
    return "weights.safetensors" if member == 0 else f"weights_{member}.safetensors"


def counted_on(on_epoch: EpochHook | None, before: int) -> EpochHook | None:
    """Return the hook of a later member, whose epochs come after ``before`` others."""
    if on_epoch is None or before == 0:
        return on_epoch
    return lambda epoch, metrics: on_epoch(before + epoch, metrics)


def together(reports: Sequence[FitReport]) -> FitReport:
    """Return one report of all members: epochs summed, metrics averaged."""
    if len(reports) == 1:
        return reports[0]
    losses = [report.metrics.get("valid_loss", math.inf) for report in reports]
    best = int(np.argmin(losses))
    names = set.intersection(*(set(report.metrics) for report in reports))
    return FitReport(
        epochs=sum(report.epochs for report in reports),
        best_epoch=sum(report.epochs for report in reports[:best]) + reports[best].best_epoch,
        metrics={
            name: float(np.mean([report.metrics[name] for report in reports]))
            for name in sorted(names)
        },
    )
