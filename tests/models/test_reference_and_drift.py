"""Conviction ranks, PSI golden cases, and the drift report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tradewind.models.calibration import Calibrator
from tradewind.models.drift import drift_report, psi, status_of
from tradewind.models.reference import PREDICTION, Bins, Reference
from tradewind.settings import DriftSettings

NAMES = ("a", "b", "constant", "silent")


def _wide(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wide = np.column_stack(
        [rng.normal(shift, 1, n), rng.normal(0, 1, n), np.ones(n), np.full(n, np.nan)]
    )
    return np.asarray(wide)


def _reference(n: int = 20_000) -> Reference:
    p = np.random.default_rng(1).uniform(0.4, 0.6, n)
    return Reference.fit(_wide(n, 0), NAMES, p)


def test_psi_of_a_sample_against_itself_is_zero() -> None:
    values = np.random.default_rng(0).normal(size=5_000)
    bins = Bins.fit(values, 10)
    assert psi(bins.shares, bins.shares_of(values)) == 0


def test_psi_of_two_normals_a_sigma_apart() -> None:
    rng = np.random.default_rng(0)
    bins = Bins.fit(rng.normal(0, 1, 200_000), 10)
    found = psi(bins.shares, bins.shares_of(rng.normal(1, 1, 200_000)))
    assert found == pytest.approx(0.926, abs=0.02)


def test_conviction_is_the_percentile_rank_of_confidence() -> None:
    reference = _reference()
    rank = reference.conviction(np.array([0.0, 0.1, 0.2, 0.9]))
    assert rank == pytest.approx([0.0, 0.5, 1.0, 1.0], abs=0.01)
    assert np.all(np.diff(rank) >= 0)


def test_a_shifted_feature_and_a_dead_feed_alarm_and_the_rest_is_fine() -> None:
    reference, settings = _reference(), DriftSettings()
    p = np.random.default_rng(2).uniform(0.4, 0.6, 2_000)
    calm = drift_report(reference, _wide(2_000, 5), NAMES, p, settings=settings)
    assert calm.status == "fine"
    assert calm.psi["constant"] == 0
    moved = drift_report(reference, _wide(2_000, 5, shift=1.0), NAMES, p, settings=settings)
    assert (moved.status, moved.worst_feature) == ("alert", "a")
    dead = _wide(2_000, 5)
    dead[:, 1] = np.nan
    silent = drift_report(reference, dead, NAMES, p, settings=settings)
    assert (silent.status, silent.worst_feature) == ("alert", "b")
    assert next(iter(silent.to_metrics())) == "psi_b"


def test_drift_of_the_prediction_is_reported_by_its_own_name() -> None:
    p = np.full(2_000, 0.59)
    report = drift_report(_reference(), _wide(2_000, 5), NAMES, p, settings=DriftSettings())
    assert report.worst_feature == "p_up"
    assert report.prediction_psi == report.worst_psi > 0.2


def test_limits() -> None:
    settings = DriftSettings()
    assert [status_of(v, settings) for v in (0.05, 0.1, 0.2, 0.21)] == [
        "fine",
        "warn",
        "warn",
        "alert",
    ]


def test_reference_survives_json_and_flags_inputs_out_of_range() -> None:
    reference = _reference()
    again = Reference.from_json(json.loads(json.dumps(reference.to_json())))
    assert again == reference
    rows = np.array([[0.0, 0.0, 1.0, np.nan], [500.0, 0.0, 1.0, 3.0]])
    assert again.out_of_range(rows).tolist() == [[False] * 4, [True, False, False, False]]


def test_predictions_may_be_of_fewer_rows_than_features() -> None:
    p = np.random.default_rng(2).uniform(0.4, 0.6, 500)
    report = drift_report(_reference(), _wide(2_000, 5), NAMES, p, settings=DriftSettings())
    assert (report.status, report.rows) == ("fine", 2_000)


def test_an_update_of_the_calibrator_moves_the_bins_and_silences_no_drift() -> None:
    before = _reference()
    update = Calibrator("platt", (0.5, 0.1))
    served = np.random.default_rng(3).uniform(0.2, 0.8, 5000)
    after = before.recalibrated(update, update.apply(served))
    old, new = before.bins[PREDICTION], after.bins[PREDICTION]
    assert new.shares_of(update.apply(served)) == old.shares_of(served)
    assert new.shares == old.shares
    # Ranks are those of the updated rows; what was learned of the inputs stays.
    ranks = after.conviction(2 * np.abs(update.apply(served) - 0.5))
    assert ranks.mean() == pytest.approx(0.5, abs=0.01)
    assert (after.low, after.high, after.names) == (before.low, before.high, before.names)
