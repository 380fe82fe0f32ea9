"""Labels look exactly H bars ahead, or say that they cannot."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tests.support.features import STEP
from tests.support.synthetic import START_MS
from tradewind.features.labels import add_labels


def rows(closes: dict[int, float]) -> pl.DataFrame:
    """Return feature rows at the given bar numbers."""
    return pl.DataFrame(
        {
            "ts": [START_MS + bar * STEP for bar in closes],
            "close": list(closes.values()),
            "vol_20": [0.01] * len(closes),
        },
        schema_overrides={"ts": pl.Int64},
    )


def test_labels_of_a_rise_a_fall_and_no_move() -> None:
    frame = add_labels(rows({0: 100.0, 1: 50.0, 2: 110.0, 3: 40.0, 4: 110.0}), 2, "15m")
    expected = [math.log(1.1), math.log(0.8), 0.0, math.nan, math.nan]
    np.testing.assert_allclose(frame["fwd_ret"].to_numpy(), expected, rtol=1e-12)
    np.testing.assert_array_equal(frame["y_up"].to_numpy(), [1, 0, 0, math.nan, math.nan])
    np.testing.assert_allclose(frame["scale"].to_numpy(), 0.01 * math.sqrt(2))


def test_a_gap_never_shortens_the_horizon() -> None:
    frame = add_labels(rows({0: 1.0, 1: 2.0, 2: 3.0, 4: 5.0, 5: 6.0}), 2, "15m")
    # Bar 1 would end at the missing bar 3: it has no label, and bar 2 ends at bar 4.
    np.testing.assert_allclose(
        frame["fwd_ret"].to_numpy(), [math.log(3), math.nan, math.log(5 / 3), math.nan, math.nan]
    )


def test_no_rows_give_no_labels() -> None:
    assert add_labels(rows({}), 4, "15m").columns == [
        *("ts", "close", "vol_20", "fwd_ret", "y_up", "scale")
    ]


@given(st.sets(st.integers(0, 60), max_size=40), st.integers(1, 20))
def test_every_label_is_that_of_the_bar_exactly_h_later(bars: set[int], horizon: int) -> None:
    closes = {bar: 100.0 + 7 * (bar % 5) for bar in sorted(bars)}
    frame = add_labels(rows(closes), horizon, "15m")
    for bar, fwd_ret, y_up in zip(closes, frame["fwd_ret"], frame["y_up"], strict=True):
        if bar + horizon in closes:
            assert math.isclose(
                fwd_ret, math.log(closes[bar + horizon] / closes[bar]), rel_tol=1e-12
            )
            assert y_up == float(closes[bar + horizon] > closes[bar])
        else:
            assert math.isnan(fwd_ret)
            assert math.isnan(y_up)
