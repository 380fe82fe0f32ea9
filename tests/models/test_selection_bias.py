"""Deflated Sharpe ratio and probability of backtest overfitting, against known values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tradewind.errors import TradewindError
from tradewind.models.backtest import deflated_sharpe as of_backtest
from tradewind.models.base import FloatArray
from tradewind.models.selection_bias import (
    deflated_sharpe,
    expected_maximum_sharpe,
    overfitting,
    probabilistic_sharpe,
    sharpe_ratios,
)


def test_the_example_of_the_paper() -> None:
    """Bailey and López de Prado (2014): 100 trials, five years of days, annual ratio 2.5."""
    luck = expected_maximum_sharpe(np.sqrt(0.5 / 250), 100)
    assert luck == pytest.approx(0.1132, abs=5e-5)
    found = probabilistic_sharpe(2.5 / np.sqrt(250), luck, days=1250, skewness=-3, kurtosis=10)
    assert found == pytest.approx(0.9004, abs=5e-4)


def test_the_luckiest_of_many_is_what_simulation_finds() -> None:
    drawn = np.random.default_rng(0).normal(size=(20_000, 50)).max(axis=1).mean()
    assert expected_maximum_sharpe(1.0, 50) == pytest.approx(drawn, rel=0.02)
    assert expected_maximum_sharpe(1.0, 1) == 0


@examples(deadline=None)  # the first one imports SciPy
@given(st.integers(0, 50), st.floats(0.0, 0.3))
def test_more_trials_never_make_a_ratio_surer(seed: int, drift: float) -> None:
    daily = np.random.default_rng(seed).normal(drift, 1, 300)
    found = [deflated_sharpe(daily, trials) for trials in (1, 2, 5, 20, 100, 1000)]
    assert all(a >= b for a, b in itertools.pairwise(found))
    assert all(0 <= value <= 1 for value in found)


def test_wider_spread_of_the_trials_deflates_more() -> None:
    daily = np.random.default_rng(1).normal(0.1, 1, 400)
    narrow, wide = (deflated_sharpe(daily, 20, spread=spread) for spread in (0.02, 0.1))
    assert wide < narrow


def test_nothing_can_be_said_of_too_little() -> None:
    assert deflated_sharpe(np.array([0.1, 0.2]), 1) == 0
    assert deflated_sharpe(np.zeros(50), 1) == 0
    assert of_backtest is deflated_sharpe


def _one_by_one(daily: FloatArray, blocks: int) -> tuple[float, float]:
    """CSCV as its definition reads: every split on its own."""
    length = len(daily) // blocks
    parts = [daily[i * length : (i + 1) * length] for i in range(blocks)]
    below, lost = [], []
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        train = np.concatenate([parts[i] for i in chosen])
        test = np.concatenate([parts[i] for i in range(blocks) if i not in chosen])
        best = int(np.argmax(sharpe_ratios(train)))
        ratios = sharpe_ratios(test)
        rank = 1 + int((ratios < ratios[best]).sum())
        relative = rank / (daily.shape[1] + 1)
        below.append(np.log(relative / (1 - relative)) <= 0)
        lost.append(ratios[best] < 0)
    return float(np.mean(below)), float(np.mean(lost))


@examples(deadline=None)
@given(st.integers(0, 1000))
def test_it_is_what_the_definition_says(seed: int) -> None:
    daily = np.random.default_rng(seed).normal(0, 0.01, (48, 5))
    found = overfitting(daily, blocks=6)
    assert (found.probability, found.loss_probability) == pytest.approx(_one_by_one(daily, 6))
    assert found.splits == 20


def test_pure_noise_is_a_coin_flip() -> None:
    found = [
        overfitting(np.random.default_rng(seed).normal(0, 0.01, (400, 20)), blocks=8).probability
        for seed in range(40)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)


def test_one_skilled_strategy_is_found_again() -> None:
    daily = np.random.default_rng(3).normal(0, 0.01, (480, 12))
    daily[:, 4] += 0.005
    found = overfitting(daily, blocks=12)
    assert found.probability == 0
    assert found.loss_probability == 0


def test_strategies_that_take_turns_are_overfitted() -> None:
    """Each earns in a quarter of its own: the best of one half is the worst of the other."""
    daily = np.random.default_rng(4).normal(-0.002, 0.001, (480, 4))
    for quarter in range(4):
        daily[quarter * 120 : (quarter + 1) * 120, quarter] += 0.01
    found = overfitting(daily, blocks=4)
    assert (found.probability, found.loss_probability) == (1, 1)
    assert found.slope <= 0


@pytest.mark.parametrize(("shape", "blocks"), [((40, 3), 5), ((40, 1), 4), ((7, 3), 4)])
def test_what_cannot_be_compared_is_refused(shape: tuple[int, int], blocks: int) -> None:
    with pytest.raises(TradewindError, match="bad_input"):
        overfitting(np.random.default_rng(0).normal(size=shape), blocks=blocks)
