"""Pictures of live metrics and of drift over time."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tradewind.settings import DriftSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from assets.steps.live_metrics import LiveSeries

GUIDE = "#888888"
PSI_COLOUR, LOSS_COLOUR, ALERT = "#1f6f8b", "#7a9e3f", "#c0563b"
MOST_SERIES = 8
"""Lines that one picture can tell apart."""


@dataclass(frozen=True)
class DriftLook:
    """One measurement of drift: its market time and figures, None where not measured."""

    at_ms: int
    version: str
    worst_psi: float
    over_limit: float | None
    log_loss: float | None
    expected_log_loss: float | None


def live_plot(series: Sequence[LiveSeries], days: int) -> bytes:
    """Return a PNG of log-loss less the base rate's, and of ECE, over windows of ``days``."""
    shown = [item for item in series if item.days][:MOST_SERIES]

    def gap(axes: Axes) -> None:
        for item in shown:
            points = [(point.at_ms, point.windows[days]) for point in item.days]
            _line(
                axes,
                [at for at, _ in points],
                [_less(f["log_loss"], f["log_loss_base_rate"]) for _, f in points],
                f"{item.label.removeprefix('tradewind.')} {item.alias}",
            )
        axes.axhline(0, color=GUIDE, linestyle="--", label="base rate")
        axes.set(ylabel="log-loss − base rate (nats)", title=f"Live, {days} days to each midnight")
        axes.legend(fontsize=7)

    def ece(axes: Axes) -> None:
        for item in shown:
            values = [point.windows[days]["ece"] for point in item.days]
            _line(axes, [point.at_ms for point in item.days], values, None)
        axes.set(ylabel="ECE", ylim=(0, None))

    return _png(gap, ece)


def drift_plot(looks: Sequence[DriftLook], settings: DriftSettings, title: str) -> bytes:
    """Return a PNG of the worst PSI over its limit, and of the live log-loss, look by look."""
    times = [look.at_ms for look in looks]

    def psi(axes: Axes) -> None:
        # Columns have limits of their own: only as multiples of them do looks compare.
        over = [
            look.worst_psi / settings.alert if look.over_limit is None else look.over_limit
            for look in looks
        ]
        _line(axes, times, over, "worst PSI / its limit", PSI_COLOUR)
        axes.axhline(1, color=ALERT, linestyle="--", label="alert")
        for before, after in pairwise(looks):
            if after.version != before.version:
                moment: Any = np.datetime64(after.at_ms, "ms")  # which the axis converts
                axes.axvline(moment, color=GUIDE, label=f"v{after.version.rpartition('/')[2]}")
        axes.set(ylabel="PSI / limit", title=title, ylim=(0, None))
        axes.legend(fontsize=7)

    def loss(axes: Axes) -> None:
        _line(axes, times, [look.log_loss for look in looks], "live log-loss", LOSS_COLOUR)
        expected = [look.expected_log_loss for look in looks]
        _line(axes, times, expected, "expected by its own p_up", GUIDE)
        axes.set(ylabel="nats")
        axes.legend(fontsize=7)

    return _png(psi, loss)


def _line(
    axes: Axes,
    at_ms: Sequence[int],
    values: Sequence[float | None],
    label: str | None,
    colour: str | None = None,
) -> None:
    times = np.array(at_ms, dtype="datetime64[ms]")
    heights = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    axes.plot(times, heights, "o-", markersize=3, linewidth=1, label=label, color=colour)


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _png(*painters: Callable[[Axes], None]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(painters), 1, sharex=True)
    for axes, paint in zip(panels, painters, strict=True):
        paint(axes)
        axes.grid(visible=True, alpha=0.25)
        axes.set_axisbelow(True)
    panels[-1].tick_params(axis="x", rotation=20, labelsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
