"""From passes to a forecast, with numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tradewind.models.base import RawForecast
from tradewind.models.calibration import Calibrator
from tradewind.models.reference import Reference
from tradewind.models.uncertainty import combine

IDENTITY = Calibrator("identity")
REFERENCE = Reference.fit(np.zeros((101, 1)), ("x",), np.linspace(0.5, 1.0, 101))


def test_known_numbers() -> None:
    raw = RawForecast(
        p=np.array([[0.6], [0.7], [0.8], [0.7]]),
        mu=np.array([[0.01], [0.03], [0.02], [0.02]]),
        sigma=np.array([[0.01], [0.03], [0.02], [0.02]]),
    )
    forecast = combine(raw, IDENTITY, REFERENCE)
    assert forecast.p_up == pytest.approx(0.7)
    assert forecast.mu == pytest.approx(0.02)
    assert forecast.epistemic == pytest.approx(0.01 / 2**0.5)
    assert forecast.aleatoric == pytest.approx(0.02)
    assert forecast.uncertainty == pytest.approx((0.01**2 / 2 + 0.02**2) ** 0.5)
    assert forecast.epistemic_p == pytest.approx(0.1 / 2**0.5)
    assert forecast.confidence == pytest.approx(0.4)
    assert forecast.conviction == pytest.approx(0.4, abs=0.02)
    assert forecast.passes == 4


def test_the_golden_confidence() -> None:
    raw = RawForecast(p=np.full((1, 1), 0.6234), mu=np.zeros((1, 1)), sigma=np.ones((1, 1)))
    assert combine(raw, IDENTITY, REFERENCE).confidence[0] == pytest.approx(0.2468)


def test_one_pass_has_no_epistemic_spread() -> None:
    raw = RawForecast(p=np.full((1, 3), 0.6), mu=np.ones((1, 3)), sigma=np.ones((1, 3)))
    forecast = combine(raw, IDENTITY, REFERENCE)
    assert (forecast.epistemic == 0).all()
    assert (forecast.epistemic_p == 0).all()


def test_spread_of_p_is_measured_after_calibration() -> None:
    flattening = Calibrator("isotonic", x=(0.0, 1.0), y=(0.45, 0.55))
    raw = RawForecast(p=np.array([[0.2], [0.8]]), mu=np.zeros((2, 1)), sigma=np.ones((2, 1)))
    forecast = combine(raw, flattening, REFERENCE)
    assert forecast.p_up == pytest.approx(0.5)
    assert forecast.epistemic_p == pytest.approx(0.03)


@given(
    arrays(np.float64, (5, 4), elements=st.floats(1e-6, 1 - 1e-6)),
    arrays(np.float64, (5, 4), elements=st.floats(-0.5, 0.5)),
    arrays(np.float64, (5, 4), elements=st.floats(1e-6, 0.5)),
)
def test_ranges_hold_for_any_passes(p: np.ndarray, mu: np.ndarray, sigma: np.ndarray) -> None:
    forecast = combine(RawForecast(p, mu, sigma), IDENTITY, REFERENCE)
    assert ((forecast.p_up > 0) & (forecast.p_up < 1)).all()
    assert (forecast.uncertainty >= np.maximum(forecast.epistemic, forecast.aleatoric)).all()
    assert ((forecast.epistemic_p >= 0) & (forecast.epistemic_p <= 0.5)).all()
    assert ((forecast.confidence >= 0) & (forecast.confidence <= 1)).all()
    assert ((forecast.conviction >= 0) & (forecast.conviction <= 1)).all()
