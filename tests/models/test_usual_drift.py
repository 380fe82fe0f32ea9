"""What is usual for a version, and alarms only beyond it."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.samples import planted_samples
from tradewind.models.base import FloatArray, Samples
from tradewind.models.drift import DriftReport, drift_report
from tradewind.models.reference import PREDICTION, Reference
from tradewind.models.usual_drift import longest_quiet, quiet_by_now, steps_of, usual_drift
from tradewind.settings import MS_PER_DAY, DriftSettings

DAY = 96
NAMES = ("fast", "slow", "rare")
SETTINGS = DriftSettings()


def _market(days: int, seed: int) -> Samples:
    """Noise, a walk that reverts within weeks, and a rate that changes every eight hours."""
    n = days * DAY
    rng = np.random.default_rng(seed)
    slow = np.zeros(n)
    for i, shock in enumerate(rng.normal(0, 1, n - 1)):
        slow[i + 1] = 0.999 * slow[i] + shock
    rare = np.repeat(rng.normal(size=n // 32 + 1), 32)[:n]
    wide = np.column_stack([rng.normal(size=n), slow, rare])
    rows = planted_samples(n)
    return replace(
        rows.subset(np.arange(n)),
        ts=np.arange(n, dtype=np.int64) * (MS_PER_DAY // DAY),
        symbol=np.zeros(n, dtype=np.int64),
        wide=wide,
        wide_names=NAMES,
        scale=np.ones(n),
    )


def _version(rows: Samples, p: FloatArray) -> Reference:
    calib = np.arange(len(rows) // 2, len(rows) * 2 // 3)
    fitted = Reference.fit(rows.wide[calib], NAMES, p[calib])
    usual = usual_drift(
        fitted.bins, rows, calib, days=7, p_ts=rows.ts, p_up=p, prediction=PREDICTION
    )
    return replace(fitted, usual=usual)


@pytest.fixture(scope="module")
def market() -> Samples:
    return _market(130, seed=3)


def _look(reference: Reference, rows: Samples, **more: bool) -> DriftReport:
    p = np.random.default_rng(5).uniform(0.4, 0.6, len(rows))
    chosen = SETTINGS.model_copy(update=more)
    return drift_report(
        reference,
        rows.wide,
        NAMES,
        p,
        settings=chosen,
        quiet=quiet_by_now(rows),
        steps=steps_of(rows),
    )


@pytest.fixture(scope="module")
def reference(market: Samples) -> Reference:
    made = market.subset(np.arange(120 * DAY))
    return _version(made, np.random.default_rng(4).uniform(0.4, 0.6, len(made)))


@pytest.fixture
def recent(market: Samples) -> Samples:
    return market.subset(np.arange(122 * DAY, 129 * DAY))


def test_a_slow_feature_alarms_by_the_bare_limits_alone(
    reference: Reference, recent: Samples
) -> None:
    raw, usual = _look(reference, recent, usual=False), _look(reference, recent)
    assert (raw.status, raw.worst_feature) == ("alert", "slow")
    # A little beyond its history it may be, which is a warning.
    assert usual.status in ("fine", "warn")
    assert usual.raw_status == "alert"
    assert usual.psi == raw.psi, "figures stay what they are"
    assert usual.limits["slow"].alert > 1
    assert usual.limits["fast"].alert == SETTINGS.alert


def test_without_a_range_of_this_window_the_bare_limits_hold(
    reference: Reference, recent: Samples
) -> None:
    assert reference.usual is not None
    other = replace(reference, usual=replace(reference.usual, days=3))
    for version in (other, replace(reference, usual=None)):
        found = _look(version, recent)
        assert found.status == "alert"
        assert found.limits["slow"].alert == SETTINGS.alert
    old = {name: value for name, value in reference.to_json().items() if name != "usual"}
    assert Reference.from_json(old).usual is None


@pytest.mark.parametrize(
    ("kind", "column"),
    [("scaled", 0), ("scaled", 1), ("shifted", 0), ("stuck", 0), ("stuck", 1), ("silent", 1)],
)
def test_a_fault_is_found_and_named(
    reference: Reference, recent: Samples, kind: str, column: int
) -> None:
    wide = recent.wide.copy()
    values = wide[:, column]
    wide[:, column] = {
        "scaled": 3 * values,
        "shifted": values + 2,
        "stuck": np.full(len(values), values[0]),
        "silent": np.full(len(values), np.nan),
    }[kind]
    found = _look(reference, replace(recent, wide=wide))
    assert (found.status, found.worst_feature) == ("alert", NAMES[column])
    assert found.over_limit > 1 or found.dead
    assert found.dead == ((NAMES[column],) if kind in ("stuck", "silent") else ())


def test_a_dead_feed_is_told_within_a_day_and_a_slow_rate_is_not_dead(
    reference: Reference, market: Samples
) -> None:
    recent = market.subset(np.arange(122 * DAY, 123 * DAY))
    assert _look(reference, recent).dead == ()
    wide = recent.wide.copy()
    wide[-SETTINGS.dead_bars - 1 :, 1:] = wide[-SETTINGS.dead_bars - 1, 1:]
    assert _look(reference, replace(recent, wide=wide)).dead == ("slow",)
    wide[-SETTINGS.dead_bars - 1 :, 2] = np.nan
    assert _look(reference, replace(recent, wide=wide)).dead == ("slow", "rare")


def test_the_range_is_the_largest_psi_of_windows_before_the_last(market: Samples) -> None:
    p = np.random.default_rng(4).uniform(0.4, 0.6, len(market))
    reference = _version(market, p)
    usual = reference.usual
    assert usual is not None
    ends = range(len(market) - 7 * DAY, 7 * DAY, -DAY)
    windows = [market.subset(np.arange(end - 7 * DAY, end)) for end in ends]
    raw = SETTINGS.model_copy(update={"usual": False})
    psi = [
        drift_report(reference, w.wide, NAMES, np.full(1, 0.5), settings=raw).psi for w in windows
    ]
    for name in NAMES:
        assert usual.psi[name] == pytest.approx(max(item[name] for item in psi))


def test_a_short_history_has_no_range(market: Samples) -> None:
    for days, known in ((34, False), (36, True)):
        rows = market.subset(np.arange(days * DAY))
        assert (_version(rows, np.full(len(rows), 0.5)).usual is not None) == known


def test_a_feature_collected_lately_has_no_range_of_steps(market: Samples) -> None:
    rows = market.subset(np.arange(40 * DAY))
    wide = rows.wide.copy()
    wide[: 30 * DAY, 0] = np.nan
    young = replace(rows, wide=wide)
    calib = np.arange(25 * DAY, 32 * DAY)
    p = np.full(len(young), 0.5)
    fitted = Reference.fit(young.wide[calib], NAMES, p[calib])
    usual = usual_drift(
        fitted.bins, young, calib, days=7, p_ts=young.ts, p_up=p, prediction=PREDICTION
    )
    assert usual is not None
    assert set(usual.steps) == set(usual.step_psi) == set(NAMES[1:])
    found = _look(replace(fitted, usual=usual), young.subset(np.arange(33 * DAY, 40 * DAY)))
    assert set(found.limits) == {*NAMES, PREDICTION}


def test_it_survives_json(reference: Reference) -> None:
    assert Reference.from_json(json.loads(json.dumps(reference.to_json()))) == reference


@settings(max_examples=40)
@given(values=st.lists(st.sampled_from([0.0, 1.0, float("nan")]), min_size=1, max_size=30))
def test_runs_are_counted_as_a_person_counts_them(values: list[float]) -> None:
    rows = planted_samples(len(values))
    rows = replace(
        rows.subset(np.arange(len(values))),
        wide=np.asarray(values)[:, None],
        wide_names=("x",),
        symbol=np.zeros(len(values), dtype=np.int64),
    )
    lengths, text = [1], [repr(value) for value in values]
    for before, after in itertools.pairwise(text):
        lengths.append(lengths[-1] + 1 if before == after else 1)
    assert longest_quiet(rows).still["x"] == max(lengths)
    assert quiet_by_now(rows).still["x"] == lengths[-1]
    silences = [len(run) for run in "".join(".n"[item == "nan"] for item in text).split(".")]
    assert longest_quiet(rows).silent["x"] == max(silences)
    assert quiet_by_now(rows).silent["x"] == silences[-1]
