"""How often the sensor may ask for one champion, and how long it waits after failures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.retrain_limits import S_PER_HOUR, WEEK_S, Outcome, Request, held_back
from assets.retrain_triggers import Ask, names_asked
from tradewind.settings import RetrainTriggerSettings

LIMITS = RetrainTriggerSettings()
ONE, OTHER = "tradewind.lightgbm.POOLED", "tradewind.gru.POOLED"


def _asked(hours: list[float], outcome: Outcome = Outcome.SUCCEEDED) -> list[Request]:
    names = frozenset({ONE})
    return [Request(f"key {h}", h * S_PER_HOUR, names, outcome) for h in hours]


def test_the_week_rolls_and_says_when_it_is_free_again() -> None:
    three = _asked([0, 40, 80])
    said = held_back(ONE, three, 100 * S_PER_HOUR, LIMITS)
    assert said == f"{ONE}: 3 of 3 requests in seven days, free again in 68.0 h"
    assert held_back(ONE, three, WEEK_S - 1, LIMITS)
    assert held_back(ONE, three, WEEK_S, LIMITS) is None
    assert held_back(OTHER, three, 100 * S_PER_HOUR, LIMITS) is None
    assert held_back(ONE, three[:2], 100 * S_PER_HOUR, LIMITS) is None


@pytest.mark.parametrize(
    ("failures", "wait_h"), [(1, 6), (2, 12), (3, 24), (4, 48), (5, 96), (9, 96)]
)
def test_each_failure_doubles_the_wait_up_to_its_limit(failures: int, wait_h: float) -> None:
    failed = _asked([float(i) for i in range(failures)], Outcome.FAILED)
    last_h = failures - 1
    said = held_back(ONE, failed, (last_h + wait_h - 0.5) * S_PER_HOUR, LIMITS)
    assert said is not None
    assert f"{failures} failed in a row, {wait_h - 0.5:.1f} of {wait_h} h" in said
    assert held_back(ONE, failed, (last_h + wait_h) * S_PER_HOUR, LIMITS) is None


def test_a_success_ends_the_waiting() -> None:
    mixed = [*_asked([0], Outcome.FAILED), *_asked([7])]
    assert held_back(ONE, mixed, 8 * S_PER_HOUR, LIMITS) is None
    again = [*mixed, *_asked([9], Outcome.FAILED)]
    assert "1 failed in a row" in str(held_back(ONE, again, 10 * S_PER_HOUR, LIMITS))


@given(
    wants=st.lists(st.floats(0, 3 * WEEK_S), max_size=60).map(sorted),
    outcomes=st.lists(st.sampled_from(list(Outcome)), min_size=60, max_size=60),
    most=st.integers(1, 5),
)
def test_no_seven_days_hold_more_requests_than_allowed(
    wants: list[float], outcomes: list[Outcome], most: int
) -> None:
    limits = LIMITS.model_copy(update={"most_a_week": most})
    sent: list[Request] = []
    for at_s, outcome in zip(wants, outcomes, strict=False):
        if held_back(ONE, sent, at_s, limits) is None:
            sent.append(Request(f"key {len(sent)}", at_s, frozenset({ONE}), outcome))
    for first in sent:
        within = [item for item in sent if 0 <= item.at_s - first.at_s < WEEK_S]
        counted = [item for item in within if item.outcome is not Outcome.FAILED]
        assert len(counted) <= most
        # Failures in a row wait 6, 12, 24, 48 and 96 hours: a week has room for five.
        assert len(within) - len(counted) <= 5 * (most + 1)


def test_a_key_tells_for_whom_it_asks() -> None:
    why = {f"{ONE}/3": {"drift": "…", "age": "…"}, f"{OTHER}/12": {"age": "…"}}
    ask = Ask((), ("lightgbm", "gru"), why, attempt=2)
    assert names_asked(ask.key) == {ONE, OTHER}
