"""Windows of time to ask an exchange for, and what is missing from its answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from tradewind.market.schema import Columns, empty

Row = tuple[int, float]


def windows(since_ms: int, until_ms: int, length_ms: int) -> Iterator[tuple[int, int]]:
    """Yield half-open ``[start, end)`` that cover ``[since_ms, until_ms)``.

    Pages are windows of time, so an outage longer than a page cannot end a download.
    """
    for start in range(since_ms, until_ms, length_ms):
        yield start, min(start + length_ms, until_ms)


def has_holes(bars: pl.DataFrame, start_ms: int, end_ms: int, step: int) -> bool:
    """Return whether an answer lacks a bar of ``[start_ms, end_ms)``, or gives one twice over.

    A bar given with two contents counts as lacking: nobody can say which one is right.
    """
    first = -(-start_ms // step) * step
    expected = max(0, -(-(end_ms - first) // step))
    inside = bars.filter(pl.col("ts").is_between(first, end_ms - 1)).unique()
    return inside["ts"].n_unique() < expected or inside["ts"].is_duplicated().any()


def series_frame(
    rows: Sequence[Row], columns: Columns, since_ms: int, until_ms: int
) -> pl.DataFrame:
    """Return rows of ``[since_ms, until_ms]`` in order of time; the last given of a time wins."""
    if not rows:
        return empty(columns)
    frame = pl.DataFrame(rows, schema=dict(columns), orient="row")
    return (
        frame.filter(pl.col("ts").is_between(since_ms, until_ms))
        .unique("ts", keep="last", maintain_order=True)
        .sort("ts")
    )


def series_holes(rows: pl.DataFrame, since_ms: int, until_ms: int) -> list[tuple[int, int]]:
    """Return closed spans where values are missing, judged by the commonest step between them.

    The step may truly have changed (funding went from 8 to 4 hours on many contracts), so a
    hole is a reason to ask again and no more.

    Parameters
    ----------
    rows
        Values in order of time.
    since_ms, until_ms
        The span that was asked for.
    """
    stamps = rows["ts"]
    if stamps.len() < 2:
        return []
    steps = stamps.diff().drop_nulls()
    usual = int(steps.mode().min())  # type: ignore[arg-type]
    wide = rows.select(pl.col("ts").shift(1).alias("before"), "ts").filter(
        pl.col("ts") - pl.col("before") > usual
    )
    holes = [(before + 1, ts - 1) for before, ts in wide.iter_rows()]
    if stamps[0] - since_ms >= usual:
        holes.insert(0, (since_ms, stamps[0] - 1))
    if until_ms - stamps[-1] >= 2 * usual:  # the newest value may be late
        holes.append((stamps[-1] + 1, until_ms))
    return holes
