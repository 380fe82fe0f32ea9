"""Bins that notice, PSI's properties, and Evidently's report as a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.samples import in_time_order, planted_samples
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import FloatArray
from tradewind.models.concept_drift import DriftKind, Verdict, drift_kind
from tradewind.models.drift import drift_report, psi
from tradewind.models.drift_report import write_drift_html
from tradewind.models.reference import Bins, Reference
from tradewind.settings import DriftSettings

shares = st.lists(st.floats(0, 1), min_size=3, max_size=12)


@given(expected=shares, seed=st.integers(0, 1_000))
def test_psi_is_zero_for_the_same_symmetric_and_never_negative(
    expected: list[float], seed: int
) -> None:
    actual = np.random.default_rng(seed).permutation(expected).tolist()
    assert psi(expected, expected) == 0
    assert psi(expected, actual) == pytest.approx(psi(actual, expected))
    assert 0 <= psi(expected, actual) < np.inf


@pytest.mark.parametrize("values", [[3.0], [0.0, 1.0], [-1.0, 0.0, 1.0, 2.0]])
def test_a_few_valued_column_has_a_bin_a_value_and_notices_new_ones(values: list[float]) -> None:
    column = np.repeat(values, 100)
    bins = Bins.fit(column, 10)
    assert sorted(share for share in bins.shares if share > 0) == [1 / len(values)] * len(values)
    for moved in (min(values) - 1, max(values) + 1, np.nan):
        assert psi(bins.shares, bins.shares_of(np.full(100, moved))) > 1


@given(seed=st.integers(0, 1_000), n=st.integers(0, 300), holes=st.floats(0, 1))
def test_shares_sum_to_one_whatever_the_values(seed: int, n: int, holes: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(size=n), 1)
    values[rng.random(n) < holes] = np.nan
    bins = Bins.fit(values, 10)
    assert len(bins.shares) == len(bins.edges) + 2
    assert sum(bins.shares) == pytest.approx(1 if n else 0)
    assert np.all(np.diff(bins.edges) > 0)


def test_every_column_has_a_figure_and_a_status() -> None:
    samples = planted_samples(2_000)
    p = np.random.default_rng(0).uniform(0.4, 0.6, len(samples))
    reference = Reference.fit(samples.wide, samples.wide_names, p)
    moved = samples.wide + np.array([0.5, 0, 0, 0, 0])
    report = drift_report(reference, moved, samples.wide_names, p, settings=DriftSettings())
    assert set(report.psi) == set(report.statuses) == {*samples.wide_names, "p_up"}
    assert (report.statuses["x0"], report.statuses["x1"]) == ("alert", "fine")
    assert report.rows == len(samples)


@pytest.mark.parametrize(
    "broken",
    [
        lambda x: 3 * x,
        lambda x: x + 1,
        lambda x: 0 * x,
        lambda x: 0 * x + x[0],
        lambda x: x * np.nan,
    ],
    ids=["scaled", "shifted", "zero", "stuck", "silent"],
)
def test_a_broken_input_raises_data_drift_by_its_name(
    broken: Callable[[FloatArray], FloatArray],
) -> None:
    samples = planted_samples(4_000)
    p = np.random.default_rng(0).uniform(0.4, 0.6, 2_000)
    reference = Reference.fit(samples.wide[:2_000], samples.wide_names, p)
    recent = samples.wide[2_000:].copy()
    sound = drift_report(reference, recent, samples.wide_names, p, settings=DriftSettings())
    assert drift_kind(sound.status, Verdict.NONE) is DriftKind.NEITHER
    recent[:, 1] = broken(recent[:, 1])
    found = drift_report(reference, recent, samples.wide_names, p, settings=DriftSettings())
    assert (found.status, found.worst_feature) == ("alert", "x1")
    assert drift_kind(found.status, Verdict.NONE) is DriftKind.DATA


def test_rows_of_other_features_are_refused() -> None:
    samples = planted_samples(200)
    p = np.full(len(samples), 0.5)
    reference = Reference.fit(samples.wide, samples.wide_names, p)
    for wide, names in ((samples.wide[:, 1:], samples.wide_names[1:]), (samples.wide[:0], ())):
        with pytest.raises(TradewindError, match="x0") as caught:
            drift_report(reference, wide, names, p, settings=DriftSettings())
        assert caught.value.code is ErrorCode.BAD_INPUT


def test_evidently_writes_one_html_file_and_survives_silent_and_infinite_columns(
    tmp_path: Path,
) -> None:
    samples = planted_samples(300)
    wide = samples.wide.copy()
    wide[:, 1] = np.nan
    wide[::7, 2] = np.inf
    wide[:, 3] = 1.0
    before, recent = in_time_order(replace(samples, wide=wide), 0.7, 0.3)
    target = write_drift_html(before, recent, tmp_path / "reports" / "drift.html")
    text = target.read_text(encoding="utf-8")
    assert text.lstrip().lower().startswith(("<!doctype html", "<html"))
    assert "x0" in text
    assert [path.name for path in target.parent.iterdir()] == ["drift.html"]
