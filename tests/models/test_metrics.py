"""Metrics against sklearn and by hand; bootstrap and the after-cost backtest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from tradewind.models import metrics as m
from tradewind.models.backtest import backtest, round_trip
from tradewind.models.bootstrap import interval, mean_interval
from tradewind.settings import MS_PER_DAY, CostSettings


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


def test_block_bootstrap_covers_and_is_wider_for_dependent_rows() -> None:
    rng = np.random.default_rng(0)
    daily = np.repeat(rng.normal(0, 1, 200), 96)  # every row of a day is the same
    ts = np.arange(len(daily)) * 900_000
    found = mean_interval(daily, ts, samples=500)
    assert found.low < 0 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.25)
    general = interval(lambda i: float(daily[i].mean()), ts, samples=200)
    assert general.high - general.low == pytest.approx(found.high - found.low, rel=0.3)


def test_backtest_charges_the_round_trip_and_holds_one_trade_a_symbol() -> None:
    ts = np.arange(8, dtype=np.int64) * 900_000
    p = np.full(8, 0.6)
    found = backtest(
        ts,
        np.zeros(8, dtype=np.int64),
        p,
        np.full(8, np.log(1.01)),
        threshold=0.55,
        horizon_ms=4 * 900_000,
        costs=CostSettings(),
    )
    assert found.metrics["trades"] == 2
    assert found.trade_net == pytest.approx([0.01 - round_trip(CostSettings())] * 2)
    assert found.metrics["win_rate"] == 1


def test_backtest_without_trades_is_all_zero_and_finite() -> None:
    ts = np.arange(200, dtype=np.int64) * 900_000
    found = backtest(
        ts,
        np.zeros(200, dtype=np.int64),
        np.full(200, 0.5),
        np.zeros(200),
        threshold=0.55,
        horizon_ms=MS_PER_DAY,
        costs=CostSettings(),
    )
    assert set(found.metrics.values()) == {0.0}
    assert found.equity.tolist() == [1.0] * len(found.day)
