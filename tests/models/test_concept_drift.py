"""Concept drift: how often it cries wolf, and what it sees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from tradewind.models.base import FloatArray, IntArray
from tradewind.models.concept_drift import (
    ADVICE,
    ConceptReport,
    DriftKind,
    Verdict,
    concept_drift,
    drift_kind,
)
from tradewind.models.drift import Status
from tradewind.models.live_metrics import Rules, Served, midnights, window_figures
from tradewind.settings import MS_PER_DAY, DriftSettings

STEP = 900_000
HORIZON = 16
HORIZON_MS = (HORIZON + 1) * STEP
DAYS, SYMBOLS = 30, 3
REPEATS = 200
SETTINGS = DriftSettings()


def _market(
    rng: np.random.Generator, *, spread: float = 0.25, days: int = DAYS, shared: float = 0.8
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return (ts, p, y) of calibrated forecasts of H-bar labels, symbols that move together.

    A slow signal tilts each bar; p is the exact probability that its label rises.
    """
    bars = days * MS_PER_DAY // STEP
    common = rng.normal(size=bars + HORIZON)
    ts, p, y = [], [], []
    for _ in range(SYMBOLS):
        own = rng.normal(size=bars + HORIZON)
        shocks = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        path = np.concatenate([[0.0], np.cumsum(shocks)])
        noise = (path[HORIZON:] - path[:-HORIZON])[:bars] / np.sqrt(HORIZON)
        phase = rng.uniform(0, 2 * np.pi)
        signal = spread * np.sin(np.arange(bars) / 40 + phase)
        ts.append(np.arange(bars, dtype=np.int64) * STEP)
        p.append(norm.cdf(signal))
        y.append((signal + noise > 0).astype(np.float64))
    return np.concatenate(ts), np.concatenate(p), np.concatenate(y)


def _test(
    ts: IntArray, p: FloatArray, y: FloatArray, holdout: float | None = None
) -> ConceptReport:
    return concept_drift(
        ts, p, y, horizon_ms=HORIZON_MS, settings=SETTINGS, holdout_log_loss=holdout
    )


@pytest.mark.parametrize("days", [7, DAYS])
def test_calibrated_forecasts_with_overlapping_labels_seldom_alarm(days: int) -> None:
    rng = np.random.default_rng(5)
    z = np.array([_test(*_market(rng, days=days)).z for _ in range(REPEATS)], dtype=np.float64)
    # One look at z >= 2 is meant to warn 2.3 % of the time and z >= 3 to alarm 0.13 %.
    assert (z >= SETTINGS.concept_warn_z).mean() <= 0.05
    assert (z >= SETTINGS.concept_alert_z).sum() <= 2
    assert 0.7 < z.std() < 1.3
    assert abs(z.mean()) < 0.25


def test_a_reversed_relation_alarms() -> None:
    rng = np.random.default_rng(6)
    found = []
    for _ in range(50):
        ts, p, y = _market(rng)
        found.append(_test(ts, 1 - p, y).verdict)
    assert sum(verdict is Verdict.ALERT for verdict in found) >= 45


def test_a_relation_that_is_gone_is_seen_less_surely() -> None:
    rng = np.random.default_rng(7)
    found = []
    for _ in range(50):
        ts, p, _ = _market(rng)
        found.append(_test(ts, p, _market(rng, spread=0.0)[2]).verdict)
    warned = sum(verdict is not Verdict.NONE for verdict in found)
    assert warned >= 25


def test_no_worse_than_on_the_holdout_is_no_drift() -> None:
    ts, p, y = _market(np.random.default_rng(8))
    drifted = _test(ts, 1 - p, y, holdout=0.68)
    assert drifted.verdict is Verdict.ALERT
    assert drifted.log_loss is not None
    assert _test(ts, 1 - p, y, holdout=drifted.log_loss + 0.01).verdict is Verdict.NONE


def test_few_days_are_not_judged() -> None:
    ts, p, y = _market(np.random.default_rng(9), days=SETTINGS.concept_min_blocks - 1)
    report = _test(ts, 1 - p, y)
    assert (report.verdict, report.z) == (Verdict.NONE, None)
    assert report.blocks == SETTINGS.concept_min_blocks - 1
    empty = np.zeros(0)
    assert _test(empty.astype(np.int64), empty, empty).blocks == 0


def test_saying_one_half_is_never_wrong() -> None:
    ts, p, y = _market(np.random.default_rng(10))
    assert _test(ts, 0 * p + 0.5, y).z == 0


@given(st.integers(0, 2**32 - 1))
def test_no_label_counts_in_two_blocks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ts = np.sort(rng.integers(0, 12 * 96, 300)) * STEP
    p, y = rng.uniform(0.05, 0.95, 300), rng.integers(0, 2, 300).astype(np.float64)
    before = _test(ts, p, y)
    # Rows whose label reaches into the next day say nothing, whatever they are.
    across = ts // MS_PER_DAY != (ts + HORIZON_MS - 1) // MS_PER_DAY
    assert _test(ts, np.where(across, 0.999, p), np.where(across, 0.0, y)) == before
    shuffled = rng.permutation(300)
    after = _test(ts[shuffled], p[shuffled], y[shuffled])
    assert after.labels == before.labels
    if before.z is not None:
        assert after.z == pytest.approx(before.z)


@pytest.mark.parametrize(
    ("data", "concept", "kind"),
    [
        ("fine", Verdict.NONE, DriftKind.NEITHER),
        ("warn", Verdict.WARN, DriftKind.NEITHER),
        ("alert", Verdict.WARN, DriftKind.DATA),
        ("fine", Verdict.ALERT, DriftKind.CONCEPT),
        ("alert", Verdict.ALERT, DriftKind.BOTH),
    ],
)
def test_data_and_concept_are_told_apart(data: Status, concept: Verdict, kind: DriftKind) -> None:
    assert drift_kind(data, concept) is kind
    assert len(ADVICE[kind]) > 10


def _served(days: int = 3, seed: int = 0) -> Served:
    rng = np.random.default_rng(seed)
    ts = np.arange(days * 96, dtype=np.int64) * STEP
    fwd = rng.normal(0, 0.01, len(ts))
    nan = np.full(len(ts), np.nan)
    return Served(
        ts=ts,
        known_ms=ts + HORIZON_MS,
        p_up=rng.uniform(0.3, 0.7, len(ts)),
        y=(fwd > 0).astype(np.float64),
        fwd_ret=fwd,
        mu_low=np.where(ts % 2 == 0, -0.01, nan),
        mu_high=np.where(ts % 2 == 0, 0.01, nan),
        epistemic_p=np.where(ts < MS_PER_DAY, 0.1, 0.01),
    )


RULES = Rules(base_rate=0.5, horizon=HORIZON, ece_bins=15, min_labels=50, epistemic_limit=0.05)


def test_a_window_holds_what_became_known_in_it() -> None:
    rows = _served()
    for at in (MS_PER_DAY, 2 * MS_PER_DAY, 3 * MS_PER_DAY):
        found = rows.within(at, 1)
        assert (found.ts + HORIZON_MS <= at).all()
        assert (found.ts + HORIZON_MS > at - MS_PER_DAY).all()
    assert len(rows.within(MS_PER_DAY, 1)) == 96 - HORIZON
    assert len(rows.within(2 * MS_PER_DAY, 1)) == 96
    assert midnights(rows, 3 * MS_PER_DAY + 5, 30) == [MS_PER_DAY, 2 * MS_PER_DAY, 3 * MS_PER_DAY]
    assert midnights(rows, 3 * MS_PER_DAY + 5, 1) == [3 * MS_PER_DAY]
    assert midnights(rows.within(0, 1), 3 * MS_PER_DAY, 30) == []


def test_figures_of_a_window() -> None:
    rows = _served()
    found = window_figures(rows, RULES)
    assert found["labels"] == len(rows) == 288
    assert found["independent"] == 18
    assert found["log_loss_base_rate"] == pytest.approx(np.log(2))
    assert found["abstain_share"] == pytest.approx(1 / 3)
    inside = np.abs(rows.fwd_ret) <= 0.01
    assert found["coverage"] == pytest.approx(inside.mean())
    assert found["auc"] is not None
    assert 0.4 < found["auc"] < 0.6


def test_too_few_labels_tell_their_number_alone() -> None:
    found = window_figures(_served().within(MS_PER_DAY // 2, 1), RULES)
    assert found["labels"] == 32
    assert [found[name] for name in ("auc", "log_loss", "ece", "coverage")] == [None] * 4


def test_one_class_has_no_auc() -> None:
    rows = _served()
    risen = rows.subset(rows.y == 1)
    assert window_figures(risen, RULES)["auc"] is None


@given(st.integers(0, 1000), st.integers(1, 5))
def test_windows_grow(seed: int, days: int) -> None:
    rows = _served(6, seed)
    at = 6 * MS_PER_DAY
    assert len(rows.within(at, days)) <= len(rows.within(at, days + 1))
    figures = window_figures(rows.within(at, days), RULES)
    for name in ("auc", "brier", "ece", "coverage", "abstain_share"):
        value = figures[name]
        assert value is None or 0 <= value <= 1
