"""What the detector says of given metrics: rules, hysteresis, restarts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.errors import TradewindError
from tradewind.regimes.detector import REGIMES, RegimeSeries, detect
from tradewind.regimes.kinds import METRICS, Regime
from tradewind.settings import RegimeSettings, RegimeThresholds, load_settings

CALM = {
    "adx": 15.0,
    "di_diff": 0.0,
    "alignment": 0.0,
    "atr_ratio": 1.0,
    "risk_atr_pct": 0.02,
    "range_ratio": 1.0,
    "momentum": 0.0,
    "volume_ratio": 1.0,
    "liquidity_ratio": 1.0,
}
UP = {"adx": 30.0, "alignment": 1.0, "di_diff": 10.0}
DOWN = {"adx": 30.0, "alignment": -1.0, "di_diff": -10.0}
LIMITS = RegimeThresholds()


def run(
    bars: list[dict[str, float]], *, first: int = 0, limits: RegimeThresholds = LIMITS, **how: int
) -> RegimeSeries:
    """Detect over bars that differ from a calm one as given."""
    metrics = {n: np.array([{**CALM, **bar}[n] for bar in bars], dtype=float) for n in METRICS}
    place = np.arange(first, first + len(bars))
    given: dict[str, Any] = {"confirm_bars": 3, "memory_bars": 64, "anchor_bars": 1024, **how}
    return detect("15m", place, metrics, limits, **given)


def names(series: RegimeSeries) -> list[Regime]:
    return [REGIMES[code] for code in series.codes]


def one(**bar: float) -> Regime:
    return names(run([bar]))[0]


@pytest.mark.parametrize(
    ("bar", "regime"),
    [
        ({}, "RANGE_LOW_VOL"),
        (UP, "TREND_UP"),
        (DOWN, "TREND_DOWN"),
        ({**UP, "adx": 25.0}, "RANGE_LOW_VOL"),
        ({**UP, "adx": 25.01}, "TREND_UP"),
        ({**UP, "alignment": 0.0}, "RANGE_LOW_VOL"),
        ({"adx": 19.9, "alignment": 1.0}, "RANGE_LOW_VOL"),
        ({"atr_ratio": 1.2}, "RANGE_LOW_VOL"),
        ({"atr_ratio": 1.21}, "RANGE_HIGH_VOL"),
        ({"risk_atr_pct": 0.04}, "RANGE_LOW_VOL"),
        ({"risk_atr_pct": 0.0401}, "HIGH_VOLATILITY"),
        ({"risk_atr_pct": 0.05, "atr_ratio": 2.0}, "HIGH_VOLATILITY"),
        ({**UP, "risk_atr_pct": 0.05}, "TREND_UP"),
        ({"range_ratio": 2.0, "momentum": 4.0}, "BREAKOUT"),
        ({"range_ratio": 2.0, "momentum": -4.0, "risk_atr_pct": 0.05}, "BREAKOUT"),
        ({"range_ratio": 2.0, "momentum": 1.0}, "RANGE_LOW_VOL"),
        ({"range_ratio": 1.5, "momentum": 4.0}, "RANGE_LOW_VOL"),
        ({**UP, "volume_ratio": 0.2}, "ILLIQUID"),
        ({"liquidity_ratio": 0.2, "range_ratio": 2.0, "momentum": 4.0}, "ILLIQUID"),
        *(({**UP, "volume_ratio": 0.2, name: math.nan}, "UNKNOWN") for name in METRICS),
    ],
)
def test_the_rule_of_one_bar(bar: dict[str, float], regime: str) -> None:
    assert one(**bar) is Regime(regime)


def test_between_the_adx_limits_what_was_decided_stays() -> None:
    between = {"adx": 22.0, "alignment": 1.0}
    assert set(names(run([UP] * 5 + [between] * 20))) == {Regime.TREND_UP}
    assert set(names(run([{"adx": 15.0, "alignment": 1.0}] * 5 + [between] * 20))) == {
        Regime.RANGE_LOW_VOL
    }
    # A trend whose averages are no longer in order is none; neither is one the other way.
    assert names(run([UP] * 5 + [{"adx": 22.0, "alignment": 0.0}] * 3))[-1] is Regime.RANGE_LOW_VOL
    assert names(run([UP] * 5 + [{"adx": 22.0, "alignment": -1.0}] * 3))[-1] is Regime.RANGE_LOW_VOL


def test_another_regime_is_believed_when_it_has_lasted() -> None:
    assert names(run([UP] * 4 + [{}] * 2 + [UP] * 3)) == [Regime.TREND_UP] * 9
    seen = names(run([UP] * 4 + [{}] * 4))
    assert seen == [Regime.TREND_UP] * 6 + [Regime.RANGE_LOW_VOL] * 2
    # Flapping every bar changes nothing; without hysteresis it changes every time.
    flapping = [UP, {}] * 20
    assert set(names(run(flapping))) == {Regime.TREND_UP}
    free = names(run(flapping, confirm_bars=1))
    assert free == [Regime.TREND_UP, Regime.RANGE_LOW_VOL] * 20


def test_unknown_is_believed_at_once_and_forgotten_at_once() -> None:
    lost = {"adx": math.nan}
    assert names(run([UP, UP, lost, {}, UP, UP, UP])) == [
        *(Regime.TREND_UP, Regime.TREND_UP, Regime.UNKNOWN),
        *(Regime.RANGE_LOW_VOL, Regime.RANGE_LOW_VOL, Regime.RANGE_LOW_VOL, Regime.TREND_UP),
    ]


def test_confidence_grows_beyond_the_threshold_and_shrinks_before_a_change() -> None:
    weak, strong = run([{**UP, "adx": 26.0}]).confidence, run([{**UP, "adx": 60.0}]).confidence
    assert 0.5 < weak[0] < strong[0] <= 1
    series = run([UP] * 3 + [{}] * 3)
    assert list(series.confidence[3:5]) == pytest.approx([0.5 * 2 / 3, 0.5 / 3])
    assert series.confidence[5] > 0.5
    assert run([{"adx": math.nan}]).confidence[0] == 0
    reading = series.reading(0)
    assert (reading.timeframe, reading.regime) == ("15m", Regime.TREND_UP)
    assert reading.metrics == {**CALM, **UP}


bars = st.lists(
    st.fixed_dictionaries(
        {
            "adx": st.sampled_from([10.0, 22.0, 30.0, 60.0, math.nan]),
            "alignment": st.sampled_from([-1.0, 0.0, 1.0]),
            "di_diff": st.floats(-60, 60),
            "risk_atr_pct": st.sampled_from([0.01, 0.05]),
            "atr_ratio": st.floats(0, 3),
            "range_ratio": st.floats(0, 4),
            "momentum": st.floats(-9, 9),
            "volume_ratio": st.floats(0, 3),
            "liquidity_ratio": st.floats(0, 3),
        }
    ),
    min_size=1,
    max_size=60,
)


@given(bars, st.integers(0, 59), st.integers(0, 40))
def test_no_bar_knows_the_next_and_memory_is_bounded(
    given_bars: list[dict[str, float]], cut: int, first: int
) -> None:
    how = {"memory_bars": 8, "anchor_bars": 16}
    whole = run(given_bars, first=first, **how)
    assert np.all((whole.confidence >= 0) & (whole.confidence <= 1))
    cut = min(cut, len(given_bars) - 1)
    past = run(given_bars[: cut + 1], first=first, **how)
    assert names(past) == names(whole)[: cut + 1]
    # From the restart's memory on, what was before cannot be seen.
    start = max(0, (first + cut) // 16 * 16 - 8 - first)
    tail = run(given_bars[start:], first=first + start, **how)
    assert names(tail)[cut - start] is names(whole)[cut]
    assert tail.confidence[cut - start] == whole.confidence[cut]


@given(bars)
def test_a_regime_that_is_believed_was_seen(given_bars: list[dict[str, float]]) -> None:
    free, held = names(run(given_bars, confirm_bars=1)), names(run(given_bars))
    for row, regime in enumerate(held):
        assert regime in free[: row + 1]
        assert (regime is Regime.UNKNOWN) == (free[row] is Regime.UNKNOWN)
    changes = sum(a is not b for a, b in itertools.pairwise(held))
    assert changes <= sum(a is not b for a, b in itertools.pairwise(free))


def test_rows_that_do_not_exist_are_unknown() -> None:
    taken = run([UP, UP]).take(np.array([-1, 1]))
    assert names(taken) == [Regime.UNKNOWN, Regime.TREND_UP]
    assert taken.confidence[0] == 0
    assert np.isnan(taken.metrics["adx"][0])
    assert names(run([]).take(np.array([-1]))) == [Regime.UNKNOWN]


def test_thresholds_differ_by_symbol_where_they_are_told_to() -> None:
    settings = RegimeSettings(symbol_thresholds={"SOLUSDT": {"high_volatility": 0.07}})
    sol, btc = settings.of("SOLUSDT"), settings.of("BTCUSDT")
    assert (sol.high_volatility, btc.high_volatility) == (0.07, 0.04)
    assert sol.adx_trend == btc.adx_trend == 25
    bar = [{"risk_atr_pct": 0.06}]
    assert names(run(bar, limits=sol)) == [Regime.RANGE_LOW_VOL]
    assert names(run(bar, limits=btc)) == [Regime.HIGH_VOLATILITY]


@pytest.mark.parametrize(
    "bad",
    [
        {"symbol_thresholds": {"SOLUSDT": {"adx_trnd": 30}}},
        {"symbol_thresholds": {"SOLUSDT": {"adx_trend": 10}}},
        {"thresholds": {"adx_range": 30}},
        {"confirm_bars": 0},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(TradewindError, match="regimes"):
        load_settings(regimes=bad)
