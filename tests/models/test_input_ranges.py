"""Inputs unlike training: what no spread over passes tells, and the range check does."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from tests.support.samples import WIDE_NAMES, in_time_order, planted_samples
from tests.support.tiny import tiny_forecaster
from tradewind.features.definitions import DEEP, WIDE
from tradewind.models.base import Forecaster, Samples
from tradewind.models.families import FAMILIES
from tradewind.models.input_ranges import names_outside, out_of_range
from tradewind.models.reference import Reference
from tradewind.settings import RangeSettings

RULES = RangeSettings()


@functools.cache
def _slices() -> tuple[Samples, Samples, Samples]:
    train, valid, test = in_time_order(planted_samples(600), 0.6, 0.2, 0.2)
    return train, valid, test


@functools.cache
def _fitted(family: str) -> Forecaster:
    train, valid, _ = _slices()
    forecaster = tiny_forecaster(family)
    forecaster.fit(train, valid, seed=3)
    return forecaster


def _reference() -> Reference:
    train = _slices()[0]
    return Reference.fit(train.wide, WIDE_NAMES, np.linspace(0.3, 0.7, len(train)))


def _further(samples: Samples, times: float) -> Samples:
    """Return the rows with every input so many times the edge of its training range."""
    reference = _reference()
    edge = np.maximum(np.abs(reference.low), np.abs(reference.high))
    wide = times * edge * np.where(np.isnan(samples.wide), np.nan, np.sign(samples.wide))
    rows = tuple(
        (times * edge[: part.shape[1]] * np.sign(part)).astype(np.float32)
        for part in samples.deep.rows
    )
    return replace(samples, wide=wide, deep=replace(samples.deep, rows=rows))


def _names(samples: Samples, *, reads_wide: bool, rules: RangeSettings = RULES) -> list[object]:
    reference = _reference()
    found = out_of_range(samples, reference, rules, reads_wide=reads_wide)
    return list(names_outside(found, reference))


@pytest.mark.parametrize("family", ["lightgbm", "transformer", "xgboost"])
def test_passes_do_not_notice_inputs_three_times_outside_and_the_check_does(family: str) -> None:
    forecaster, rows = _fitted(family), _slices()[2].subset(np.arange(60))

    def spread(samples: Samples) -> float:
        raw = forecaster.sample(samples, n_samples=40, seeds=samples.ts)
        return float(np.median(raw.p.std(axis=0)))

    def flagged(samples: Samples) -> float:
        names = _names(samples, reads_wide=forecaster.reads_wide)
        return float(np.mean([bool(row) for row in names]))

    strange = _further(rows, 3.5)
    assert flagged(rows) < 0.1
    assert flagged(strange) == 1.0
    # The limit that makes a model abstain is 0.05; the spread of strange rows is no wider.
    assert spread(strange) < 1.5 * spread(rows)


def test_the_wide_row_is_asked_about_for_trees_and_the_window_for_networks() -> None:
    rows = _slices()[2].subset(np.arange(6))
    wide = rows.wide.copy()
    wide[2, 1] = 50.0
    assert _names(replace(rows, wide=wide), reads_wide=True)[1:4] == [(), ("x1",), ()]
    bars = tuple(part.copy() for part in rows.deep.rows)
    bars[0][rows.deep.end[2], 3] = -50.0  # row 2 is of the first symbol: its newest bar
    strange = replace(rows, deep=replace(rows.deep, rows=bars))
    assert _names(strange, reads_wide=True) == [()] * 6
    assert _names(strange, reads_wide=False)[2] == ("x3",)
    assert _names(strange, reads_wide=False)[1] == ()


def test_one_wild_bar_makes_no_strange_window_and_several_do() -> None:
    rows = _slices()[2].subset(np.arange(1))
    end, width = int(rows.deep.end[0]), rows.deep.width
    rules = RangeSettings(window_share=1.5 / width)
    for wild, expected in ((1, ()), (2, ("x0",))):
        bars = tuple(part.copy() for part in rows.deep.rows)
        bars[0][end - wild : end, 0] = 99.0
        strange = replace(rows, deep=replace(rows.deep, rows=bars))
        assert _names(strange, reads_wide=False, rules=rules) == [expected]


def test_a_wider_margin_flags_no_more() -> None:
    rows = _further(_slices()[2], 1.2)
    shares = [
        np.mean([bool(row) for row in _names(rows, reads_wide=True, rules=rules)])
        for rules in (RangeSettings(margin=0.0), RangeSettings(margin=0.5), RULES)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1.0
    assert shares[-1] == 0.0


def test_what_is_not_collected_is_not_outside() -> None:
    reference = Reference.fit(
        np.column_stack([np.linspace(0, 1, 100), np.full(100, np.nan)]),
        ("a", "never"),
        np.linspace(0.4, 0.6, 100),
    )
    rows = np.array([[np.nan, 1e9], [9.0, np.nan]])
    assert reference.out_of_range(rows).tolist() == [[False, False], [True, False]]


def test_one_wild_training_bar_does_not_set_the_range() -> None:
    values = np.random.default_rng(0).normal(size=(1000, 1))
    values[7] = 1e6
    reference = Reference.fit(values[:100], ("a",), np.linspace(0.4, 0.6, 100), trained_on=values)
    assert reference.high[0] < 5
    assert reference.out_of_range(np.array([[20.0]])).all()


def test_the_deep_features_are_the_first_of_the_wide_ones() -> None:
    assert WIDE[: len(DEEP)] == DEEP


def test_every_family_says_what_it_reads() -> None:
    reads = {family: tiny_forecaster(family).reads_wide for family in FAMILIES}
    assert reads["lightgbm"]
    assert not reads["transformer"]
