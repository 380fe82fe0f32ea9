"""Calibration maps: they repair what is wrong, never reverse, and survive JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models import metrics as m
from tradewind.models.calibration import KINDS, Calibrator, _fit, fit_calibrator


def _overconfident(n: int, slope: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Raw p whose logit is too steep: the truth is ``slope`` times as far from one half."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1.5, n)
    raw = 1 / (1 + np.exp(-logit))
    y = (rng.random(n) < 1 / (1 + np.exp(-slope * logit))).astype(float)
    return raw, y


def test_an_over_confident_forecast_is_repaired_out_of_sample() -> None:
    raw, y = _overconfident(20_000, slope=0.4)
    choice = fit_calibrator(raw[:10_000], y[:10_000], ts=np.arange(10_000), horizon=1)
    before = m.ece(raw[10_000:], y[10_000:])
    after = m.ece(choice.calibrator.apply(raw[10_000:]), y[10_000:])
    assert before > 0.1
    assert after < 0.02
    assert choice.scores[choice.kind] == min(choice.scores.values())
    assert set(choice.scores) == set(KINDS)


def test_overlapping_labels_hold_the_map_closer_to_the_raw_probability() -> None:
    raw, y = _overconfident(2_000, slope=0.0)
    free = _fit("temperature", raw, y, 1.0).x[0]
    held = _fit("temperature", raw, y, 1 / 160).x[0]
    assert free < 0.1
    assert free < held < 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_map_is_monotone_and_survives_json(kind: str) -> None:
    raw, y = _overconfident(3_000, slope=0.7)
    fitted = _fit(kind, raw, y, 1.0)
    grid = np.linspace(0.001, 0.999, 500)
    out = fitted.apply(grid)
    assert np.all(np.diff(out) >= -1e-12)
    assert np.all((out > 0) & (out < 1))
    again = Calibrator.from_json(json.loads(json.dumps(fitted.to_json())))
    assert np.array_equal(again.apply(grid), out)


@given(p=st.floats(0, 1), a=st.floats(0, 3), b=st.floats(-1, 1))
def test_output_is_always_a_probability(p: float, a: float, b: float) -> None:
    out = Calibrator("platt", (a, b)).apply(np.array([p]))
    assert 0 < out[0] < 1


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "magic", "x": [], "y": []},
        {"kind": "isotonic", "x": [0.2, 0.1], "y": [0.1, 0.2]},
        {"kind": "isotonic", "x": [0.1, 0.2], "y": [0.2, 0.1]},
    ],
)
def test_a_tampered_map_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(TradewindError) as caught:
        Calibrator.from_json(values)
    assert caught.value.code is ErrorCode.MODEL_UNUSABLE


def test_too_few_rows_or_one_class_are_refused() -> None:
    for y in (np.ones(500), np.array([0.0, 1.0] * 20)):
        with pytest.raises(TradewindError, match="not_enough_bars"):
            fit_calibrator(np.full(len(y), 0.5), y, ts=np.arange(len(y)), horizon=1)


def test_isotonic_rises_steadily_between_breakpoints_that_rest_on_enough_labels() -> None:
    raw, y = _overconfident(4_000, slope=0.3)
    fitted = _fit("isotonic", raw, y, 1 / 16)
    assert 2 <= len(fitted.x) <= 4_000 / 16 / 30
    assert np.all(np.diff(fitted.y) > 0)
    inside = np.linspace(fitted.x[0], fitted.x[-1], 2_000)
    steps = np.diff(fitted.apply(inside))
    assert np.all(steps > 0)
    assert steps.max() < 0.01


def test_isotonic_of_a_constant_or_reversed_forecast_is_the_base_rate() -> None:
    y = (np.random.default_rng(0).random(3_000) < 0.4).astype(float)
    constant = _fit("isotonic", np.full(3_000, 0.5), y, 1.0)
    assert constant.apply(np.array([0.1, 0.5, 0.9])) == pytest.approx([0.4] * 3, abs=0.02)
    raw, labels = _overconfident(3_000, slope=-1.0)
    assert np.ptp(_fit("isotonic", raw, labels, 1.0).apply(np.linspace(0.1, 0.9, 9))) < 1e-9


def test_labels_that_are_not_known_yet_do_not_leak_into_a_fold() -> None:
    """Labels that copy the past 50 bars ahead help only a fit that may see them too soon."""
    rng = np.random.default_rng(5)
    y = np.repeat(rng.integers(0, 2, 12), 50).astype(float)
    p = np.full(len(y), 0.5)
    early = fit_calibrator(p, y, ts=np.arange(len(y)), horizon=1)
    late = fit_calibrator(p, y, ts=np.arange(len(y)), horizon=100)
    assert early.scores["identity"] == late.scores["identity"]
    assert early.scores["isotonic"] != late.scores["isotonic"]


def test_a_probability_that_is_nan_is_refused() -> None:
    y = np.array([0.0, 1.0] * 100)
    with pytest.raises(TradewindError, match="model_unusable"):
        fit_calibrator(np.where(np.arange(200) == 3, np.nan, 0.5), y, ts=np.arange(200))


def test_a_richer_map_has_to_be_clearly_better_than_a_simpler_one() -> None:
    days = 60
    ts = np.repeat(np.arange(days * 96, dtype=np.int64), 3) * 900_000
    kinds: dict[float, list[str]] = {1.0: [], 0.3: []}
    for slope, found in kinds.items():
        for seed in range(6):
            rng = np.random.default_rng(seed)
            logit = rng.normal(0, 0.15 / slope, len(ts))
            y = (rng.random(len(ts)) < 1 / (1 + np.exp(-slope * logit))).astype(float)
            raw = 1 / (1 + np.exp(-logit))
            found.append(fit_calibrator(raw, y, ts=ts, horizon=16).kind)
    assert kinds[1.0].count("identity") >= 5, "nothing is wrong, so nothing is repaired"
    assert "identity" not in kinds[0.3], "three times too sure is seen"
