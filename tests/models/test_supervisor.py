"""The supervisor's judgement: who is disabled, who is left alone, and that nobody flaps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.members import START, always_buy, evidence, market, overconfident, supervised
from tradewind.errors import TradewindError
from tradewind.ledger.members import MemberCode, MemberState, MemberStatus
from tradewind.models._supervised_figures import day_score, flip_rate, sides
from tradewind.models.supervisor import MS_PER_HOUR, Answers, Evidence, judge
from tradewind.settings import MS_PER_DAY, Limit, load_settings

SETTINGS = load_settings(training={"horizon": 16})
LIMITS = SETTINGS.supervisor
LABEL = "tradewind.lightgbm.POOLED/1"
NONE = np.empty(0)


def _changes(seed: int, weeks: int = 3, **more: object) -> list[tuple[str, MemberCode]]:
    found = supervised(SETTINGS, market(SETTINGS, weeks, seed), **more)  # type: ignore[arg-type]
    return [(v.action, v.after.code) for _, v in found if v.action != "none"]


def test_a_member_that_always_says_buy_is_warned_and_then_disabled() -> None:
    changes = _changes(1, twist=always_buy)
    assert [action for action, _ in changes] == ["warn", "disable"]
    assert changes[-1][1] in (MemberCode.BIAS, MemberCode.ACCURACY, MemberCode.CALIBRATION)
    _, last = supervised(SETTINGS, market(SETTINGS, 2, 1), twist=always_buy)[-1]
    assert "BUY is 100% of" in last.after.why
    assert last.after.retrain
    assert last.after.figures["buy_share"] == 1


def test_a_member_whose_calibration_broke_is_disabled_with_its_ece() -> None:
    changes = _changes(2, twist=overconfident)
    assert [action for action, _ in changes[:2]] == ["warn", "disable"]
    _, last = supervised(SETTINGS, market(SETTINGS, 2, 2), twist=overconfident)[-1]
    assert last.after.state is MemberStatus.DISABLED
    assert "where a perfect model shows" in last.after.why
    assert last.after.figures["ece"] > last.after.figures["ece_perfect"] + 0.05


def test_a_repaired_member_comes_back_by_what_it_says_without_weight() -> None:
    seen = market(SETTINGS, 6, 4)
    broken = supervised(SETTINGS, seen, twist=always_buy, until_day=14)
    assert broken[-1][1].after.state is MemberStatus.DISABLED
    mended = supervised(SETTINGS, seen, from_day=28, before=broken[-1][1].after)
    actions = [verdict.action for _, verdict in mended if verdict.action != "none"]
    assert actions[0] == "enable"


@pytest.mark.parametrize("seed", [3, 7])
def test_a_good_member_is_left_alone(seed: int) -> None:
    assert "disable" not in [action for action, _ in _changes(seed, weeks=6, every_hours=24)]


@pytest.mark.slow
def test_the_rate_of_false_disables_is_as_stated() -> None:
    disabled = 0
    for seed in range(40):
        lasting = (16, 48, 96)[seed % 3]
        seen = market(SETTINGS, 8, 5000 + seed, signal_bars=lasting)
        found = supervised(SETTINGS, seen, every_hours=24)
        disabled += any(verdict.action == "disable" for _, verdict in found)
    # Stated in docs/supervisor.md: 1 of 90 in 8 weeks; at 2 in 100, five of 40 come once in 1000.
    assert disabled <= 4


def test_too_few_labels_are_no_verdict() -> None:
    seen = market(SETTINGS, 1, 5)
    verdict = judge(
        evidence(SETTINGS, seen, START + 3 * MS_PER_DAY, always_buy), None, START, SETTINGS
    )
    assert verdict.action == "none"
    assert all(f.value is None for f in verdict.findings if f.code is MemberCode.CALIBRATION)


def test_the_same_evidence_has_the_same_verdict() -> None:
    now = START + 10 * MS_PER_DAY
    found = evidence(SETTINGS, market(SETTINGS, 2, 6), now)
    first, second = (judge(found, None, now, SETTINGS) for _ in range(2))
    assert first == second


def _failing(now_ms: int, share: float, version: str = LABEL) -> Evidence:
    """Return 1000 answers of the last hour of which a share failed."""
    failed = np.arange(1000) < round(share * 1000)
    asked = np.full(1000, now_ms - MS_PER_HOUR, dtype=np.int64)
    ints = NONE.astype(np.int64)
    return Evidence(
        "lightgbm", "POOLED", version, Answers(ints, ints, NONE, NONE, NONE), asked, failed
    )


def _state(status: MemberStatus, code: MemberCode, since_ms: int, **more: object) -> MemberState:
    made = MemberState("lightgbm", "POOLED", status, code, "why", "supervisor", since_ms)
    return dataclasses.replace(made, **{"version": LABEL, **more})  # type: ignore[arg-type]


shares = st.floats(0, 0.4)


@given(st.lists(shares, min_size=5, max_size=120))
def test_no_state_is_left_before_its_least_time(values: list[float]) -> None:
    least = {
        MemberStatus.ENABLED: 0.0,
        MemberStatus.WARNED: min(LIMITS.min_warned_hours, LIMITS.min_calm_hours),
        MemberStatus.DISABLED: LIMITS.min_disabled_hours,
    }
    before, now = None, START
    for value in values:
        now += MS_PER_HOUR
        verdict = judge(_failing(now, value), before, now, SETTINGS)
        if before is not None and verdict.action != "none":
            assert now - before.since_ms >= least[before.state] * MS_PER_HOUR
        if verdict.action == "disable":
            assert before is not None
            assert before.state is MemberStatus.WARNED
        before = verdict.after


@given(
    st.sampled_from([MemberStatus.ENABLED, MemberStatus.WARNED]),
    st.lists(
        st.floats(LIMITS.errors.leave + 0.001, LIMITS.errors.warn - 0.001), min_size=1, max_size=60
    ),
)
def test_between_leave_and_warn_nothing_changes(status: MemberStatus, values: list[float]) -> None:
    code = MemberCode.WELL if status is MemberStatus.ENABLED else MemberCode.ERRORS
    before = _state(status, code, START)
    for number, value in enumerate(values):
        now = START + (number + 1) * 6 * MS_PER_HOUR
        verdict = judge(_failing(now, value), before, now, SETTINGS)
        assert verdict.action == "none"
        before = verdict.after
    assert before.since_ms == START


@given(st.lists(st.booleans(), min_size=200, max_size=400))
def test_at_a_limit_a_member_changes_at_most_once_in_its_least_time(high: list[bool]) -> None:
    before, now, changes = None, START, 0
    for above in high:
        now += MS_PER_HOUR
        value = LIMITS.errors.warn + (0.001 if above else -0.001)
        verdict = judge(_failing(now, value), before, now, SETTINGS)
        changes += verdict.action != "none"
        before = verdict.after
    assert changes <= 1, "the limit to enter is not the one to leave"


def test_a_disable_for_errors_ends_on_parole_and_is_judged_afresh() -> None:
    hours = LIMITS.min_disabled_hours
    now = START + int(hours * MS_PER_HOUR)
    before = _state(MemberStatus.DISABLED, MemberCode.ERRORS, START)
    early = judge(_failing(now, 1.0), before, now - 1, SETTINGS)
    assert early.action == "none"
    out = judge(_failing(now, 1.0), before, now, SETTINGS)
    assert (out.after.state, out.after.code) == (MemberStatus.WARNED, MemberCode.PAROLE)
    later = now + int(LIMITS.min_calm_hours * MS_PER_HOUR)
    assert judge(_failing(later, 0.0), out.after, later, SETTINGS).action == "enable"
    assert judge(_failing(later, 0.9), out.after, later, SETTINGS).action == "disable"


def test_another_version_starts_afresh() -> None:
    before = _state(MemberStatus.DISABLED, MemberCode.BIAS, START, retrain=True)
    after = judge(_failing(START + 1, 0.0, f"{LABEL}1"), before, START + 1, SETTINGS).after
    assert (after.state, after.code) == (MemberStatus.ENABLED, MemberCode.NEW_VERSION)
    assert not after.retrain


def test_a_held_member_is_not_touched() -> None:
    held = _state(MemberStatus.ENABLED, MemberCode.BY_HAND, START, held=True)
    verdict = judge(_failing(START + 1, 1.0), held, START + 1, SETTINGS)
    assert verdict.after == held
    assert verdict.action == "none"
    assert max(finding.level for finding in verdict.findings) == 2


def test_a_warning_of_quality_that_lasts_asks_for_a_retraining() -> None:
    before = _state(MemberStatus.WARNED, MemberCode.BIAS, START)
    hours = LIMITS.retrain_warned_hours
    soon, late = START + MS_PER_HOUR, START + int(hours * MS_PER_HOUR)
    assert not judge(_failing(soon, 0.0), before, soon, SETTINGS).after.retrain
    assert judge(_failing(late, 0.0), before, late, SETTINGS).after.retrain


def test_slow_forwards_are_judged() -> None:
    now = START + MS_PER_DAY
    ts = np.full(200, now - MS_PER_HOUR, dtype=np.int64)
    flat = np.full(200, 0.5)
    said = Answers(ts, np.zeros(200, dtype=np.int64), flat, flat * np.nan, flat * 6000)
    slow = Evidence("lightgbm", "POOLED", LABEL, said, ts, np.zeros(200, dtype=bool))
    verdict = judge(slow, None, now, SETTINGS)
    assert (verdict.action, verdict.after.code) == ("warn", MemberCode.LATENCY)
    assert "3000 ms" in verdict.after.why


def test_flips_are_counted_within_a_symbol() -> None:
    p = np.array([0.6, 0.6, 0.4, 0.4, 0.5, 0.6])
    symbol = np.array([0, 1, 0, 1, 0, 0])
    rows = Answers(np.arange(6), symbol, p, p, p)
    assert sides(p, 0.55).tolist() == [1, 1, -1, -1, 0, 1]
    assert flip_rate(rows, sides(p, 0.55)) == 1


def test_a_score_rests_on_days_not_on_rows() -> None:
    rng = np.random.default_rng(0)
    days = np.repeat(np.arange(12), 96)
    same = rng.normal(size=12)[days]
    thin = same[::96]
    assert day_score(same, days * MS_PER_DAY) == pytest.approx(
        day_score(thin, days[::96] * MS_PER_DAY)
    )


def test_limits_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="leave < warn"):
        Limit(warn=0.1, disable=0.2, leave=0.1)
    with pytest.raises(TradewindError, match=r"supervisor\.bias"):
        load_settings(supervisor={"bias": {"warn": 0.5, "disable": 0.4, "leave": 0.1}})
