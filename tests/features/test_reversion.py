"""The reversion label: back to the mean in time, before the stop."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.features import STEP
from tests.support.synthetic import START_MS
from tradewind.features.reversion import add_reversion

HORIZON = 4
QUIET = 20
"""Bars at a price of 100 before the bar that is labelled: their mean is nearly 100."""


def label(
    path: list[tuple[float, float]], *, close: float = 98.0, z: float = -2.0, atr: float = 1.0
) -> float:
    """Return the label of a bar at ``close`` that (low, high) bars follow."""
    closes = [100.0] * QUIET + [close] + [(low + high) / 2 for low, high in path]
    lows = [*closes[: QUIET + 1], *(low for low, _ in path)]
    highs = [*closes[: QUIET + 1], *(high for _, high in path)]
    count = len(closes)
    frame = pl.DataFrame(
        {
            "ts": START_MS + STEP * np.arange(count),
            "high": highs,
            "low": lows,
            "close": closes,
            "atr": [atr] * count,
            "z_20": [z] * count,
        }
    )
    found = add_reversion(frame, HORIZON, "15m", stop_atr=2.0, min_distance=1.0)
    return float(found["reverted"][QUIET])


AWAY = (97.5, 98.5)
BACK = (97.5, 100.5)
STOP = (95.9, 98.5)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([AWAY, AWAY, AWAY, BACK], 1.0),
        ([AWAY] * 4, 0.0),
        ([AWAY, STOP, BACK, AWAY], 0.0),
        ([AWAY, BACK, STOP, AWAY], 1.0),
        ([AWAY, (95.9, 100.5), BACK, BACK], 0.0),
        ([AWAY, AWAY, AWAY, AWAY, BACK], 0.0),
        ([AWAY, AWAY, BACK], math.nan),
    ],
    ids=["last", "never", "stopped", "stopped-later", "both", "too-late", "no-future"],
)
def test_a_price_below_its_mean(path: list[tuple[float, float]], expected: float) -> None:
    assert label(path) == pytest.approx(expected, nan_ok=True)


def test_a_price_above_its_mean_is_the_mirror() -> None:
    def mirrored(path: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(200 - high, 200 - low) for low, high in path]

    assert label(mirrored([AWAY, BACK, AWAY, AWAY]), close=102.0, z=2.0) == 1.0
    assert label(mirrored([STOP, BACK, AWAY, AWAY]), close=102.0, z=2.0) == 0.0


def test_near_its_mean_or_without_atr_there_is_no_label() -> None:
    path = [AWAY, BACK, AWAY, AWAY]
    assert label(path, z=-1.0) == 1.0
    assert math.isnan(label(path, z=-0.99))
    assert math.isnan(label(path, z=math.nan))
    assert math.isnan(label(path, atr=0.0))
    assert math.isnan(label(path, atr=math.nan))


def _market(bars: list[int], seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, len(bars))))
    spread = np.abs(rng.normal(0, 0.01, len(bars))) * close
    return pl.DataFrame(
        {
            "ts": START_MS + STEP * np.array(bars, dtype=np.int64),
            "high": close + spread,
            "low": close - spread,
            "close": close,
            "atr": np.full(len(bars), 1.5),
            "z_20": rng.normal(0, 2, len(bars)),
        }
    )


def _plainly(frame: pl.DataFrame, row: int) -> float:
    bars = {int(ts): place for place, ts in enumerate(frame["ts"])}
    ts = int(frame["ts"][row])
    behind = [bars.get(ts - k * STEP) for k in range(20)]
    ahead = [bars.get(ts + k * STEP) for k in range(1, HORIZON + 1)]
    if None in behind or None in ahead or abs(frame["z_20"][row]) < 1:
        return math.nan
    close = frame["close"][row]
    mean = math.exp(sum(math.log(frame["close"][place]) for place in behind) / 20)
    side = -1 if close < mean else 1
    for place in ahead:
        away, home = (
            (frame["low"][place], frame["high"][place])
            if side < 0
            else (frame["high"][place], frame["low"][place])
        )
        if side * (away - (close + side * 2 * frame["atr"][row])) >= 0:
            return 0.0
        if side * (home - mean) <= 0:
            return 1.0
    return 0.0


@given(st.sets(st.integers(0, 120), max_size=12), st.integers(0, 100))
def test_it_is_what_a_plain_loop_says_and_holes_have_none(holes: set[int], seed: int) -> None:
    frame = _market([bar for bar in range(121) if bar not in holes], seed)
    found = add_reversion(frame, HORIZON, "15m", stop_atr=2.0, min_distance=1.0)
    expected = [_plainly(frame, row) for row in range(frame.height)]
    np.testing.assert_array_equal(found["reverted"].to_numpy(), expected)


def test_bars_after_the_horizon_do_not_matter() -> None:
    frame = _market(list(range(200)), 3)
    whole = add_reversion(frame, HORIZON, "15m", stop_atr=2.0, min_distance=1.0)
    for end in range(30, 200, 17):
        part = add_reversion(frame[:end], HORIZON, "15m", stop_atr=2.0, min_distance=1.0)
        known = end - HORIZON
        np.testing.assert_array_equal(part["reverted"][:known], whole["reverted"][:known])
        assert part["reverted"][known:].is_nan().all()


@pytest.mark.parametrize("count", [0, 1, HORIZON, 19, 24])
def test_short_frames(count: int) -> None:
    found = add_reversion(
        _market(list(range(count)), 1), HORIZON, "15m", stop_atr=2.0, min_distance=0.0
    )
    # The first label needs 19 bars before its own and HORIZON after it.
    assert int(found["reverted"].is_not_nan().sum()) == max(count - 19 - HORIZON, 0)
