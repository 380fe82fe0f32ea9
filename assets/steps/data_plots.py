"""Pictures of a symbol's bars, drawn only where a check found something."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import polars as pl

from tradewind.market.quality import OUTLIER_Z

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOOD, BAD, GUIDE = "#1f6f8b", "#c0563b", "#888888"


def coverage_plot(months: pl.DataFrame, title: str) -> bytes:
    """Return a PNG of the stored share of each month; months with holes stand out."""

    def paint(axes: Axes) -> None:
        shares = months["share"].to_list()
        colours = [GOOD if share == 1 else BAD for share in shares]
        axes.bar(range(len(shares)), shares, color=colours)
        every = max(1, len(shares) // 10)
        places = range(0, len(shares), every)
        axes.set_xticks(list(places), [months["month"][i] for i in places], rotation=45)
        axes.set(ylabel="share of the month's bars", title=title)
        lowest = min(shares)
        axes.set_ylim(max(0.0, lowest - 0.25 * (1 - lowest) - 0.001), 1.0)

    return _png(paint)


def outlier_plot(returns: pl.DataFrame, title: str) -> bytes:
    """Return a PNG of the robust z of every return over time, with the limits."""

    def paint(axes: Axes) -> None:
        times = pl.from_epoch(returns["ts"], time_unit="ms").to_numpy()
        far = returns["z"].abs() > OUTLIER_Z
        axes.plot(times, returns["z"].to_numpy(), color=GOOD, linewidth=0.4)
        mask = far.to_numpy()
        axes.scatter(times[mask], returns["z"].to_numpy()[mask], color=BAD, s=14, zorder=3)
        for limit in (-OUTLIER_Z, OUTLIER_Z):
            axes.axhline(limit, color=GUIDE, linestyle="--", linewidth=0.8)
        axes.set(ylabel="robust z of the return", title=title)

    return _png(paint)


def _png(paint: Callable[[Axes], None]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    paint(axes)
    axes.grid(visible=True, alpha=0.25)
    axes.set_axisbelow(True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
