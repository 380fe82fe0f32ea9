"""Baselines learn from the training slice alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.samples import in_time_order, planted_samples
from tradewind.models import metrics as m
from tradewind.models.base import Samples
from tradewind.models.baselines import BASELINES, baseline_predictions


def _slices(strength: float) -> tuple[Samples, Samples]:
    samples = planted_samples(2_000, strength=strength)
    samples = replace(samples, wide_names=("ret_1", *samples.wide_names[1:]))
    train, test = in_time_order(samples, 0.6, 0.4)
    return train, test


def test_base_rate_is_the_training_slices() -> None:
    train, test = _slices(0.0)
    found = baseline_predictions(train, test)
    assert set(found) == set(BASELINES)
    assert np.unique(found["base_rate"]).tolist() == [train.y_up.mean()]


def test_momentum_and_logistic_find_what_the_last_sign_holds() -> None:
    train, test = _slices(1.0)  # the planted signal is the first column, here ret_1
    found = baseline_predictions(train, test)
    assert m.auc(found["momentum"], test.y_up) > 0.6
    assert m.auc(found["logistic"], test.y_up) > m.auc(found["momentum"], test.y_up)


def test_noise_beats_nobody() -> None:
    train, test = _slices(0.0)
    found = baseline_predictions(train, test)
    for name in ("momentum", "logistic"):
        assert m.auc(found[name], test.y_up) == pytest.approx(0.5, abs=0.05)


def test_the_test_slice_leaks_nothing_and_a_silent_column_is_no_error() -> None:
    train, test = _slices(1.0)
    train, test = (
        replace(part, wide=np.column_stack([part.wide[:, :-1], np.full(len(part), np.nan)]))
        for part in (train, test)
    )
    whole = baseline_predictions(train, test)
    half = baseline_predictions(train, replace(test, y_up=1 - test.y_up).subset(np.arange(50)))
    for name in BASELINES:
        assert whole[name][:50] == pytest.approx(half[name], abs=1e-12)
