"""Metrics against an independent implementation and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from tradewind.models import metrics as m


def _rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.2, 0.8, n)
    return p, (rng.random(n) < p).astype(float)


def test_metrics_agree_with_an_independent_implementation() -> None:
    p, y = _rows(3_000)
    p = np.round(p, 2)  # ties
    found = m.classification_metrics(p, y)
    assert found["auc"] == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert found["log_loss"] == pytest.approx(sklearn_log_loss(y, p), abs=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(y, p), abs=1e-12)


def test_ece_of_calibrated_and_of_shifted_probabilities() -> None:
    p, y = _rows(30_000)
    assert m.ece(p, y) == pytest.approx(m.perfect_ece(p), abs=0.005)
    assert m.ece(np.clip(p + 0.1, 0, 1), y) == pytest.approx(0.1, abs=0.01)


def test_perfect_ece_at_864_rows_is_not_zero() -> None:
    p = np.random.default_rng(0).normal(0.5, 0.02, 864)
    assert 0.04 < m.perfect_ece(p) < 0.07


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_ece_lies_in_the_unit_interval_and_auc_mirrors(seed: int) -> None:
    p, y = _rows(200, seed)
    assert 0 <= m.ece(p, y) <= 1
    assert m.auc(p, y) + m.auc(1 - p, y) == pytest.approx(1)


def test_risk_coverage_orders_by_uncertainty() -> None:
    coverage, risk = m.risk_coverage(np.array([3.0, 1.0, 2.0]), np.array([9.0, 1.0, 2.0]))
    assert coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert risk.tolist() == pytest.approx([1, 1.5, 4])


def test_overlapping_labels_leave_a_perfect_model_a_larger_ece() -> None:
    p = np.random.default_rng(0).normal(0.5, 0.02, 3_000)
    ts, symbol = np.arange(1_500).repeat(2) * 900_000, np.tile([0, 1], 1_500)
    apart = m.perfect_ece_overlapping(p, ts, symbol, horizon=1)
    assert apart == pytest.approx(m.perfect_ece(p), rel=0.1)
    ordered = np.sort(p)  # neighbours in time share a bin, as slow features make them
    assert m.perfect_ece_overlapping(ordered, ts, symbol, horizon=16) > 2 * apart


def test_error_by_decile_puts_the_most_certain_first() -> None:
    uncertainty = np.random.default_rng(0).permutation(1_000).astype(float)
    assert m.error_by_decile(uncertainty, uncertainty) == pytest.approx(
        np.arange(49.5, 1_000, 100).tolist()
    )


def test_a_single_class_has_no_ranking() -> None:
    assert m.auc(np.array([0.2, 0.7]), np.ones(2)) == 0.5
