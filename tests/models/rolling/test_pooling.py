"""The ensemble over many rows is, row by row, the ensemble that serves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tradewind.contracts import Action, confidence
from tradewind.models.ensemble import Member, combine_members
from tradewind.models.rolling.pooling import PooledForecast, pool_members
from tradewind.settings import VoteSettings

SIDE = {Action.BUY: 1, Action.HOLD: 0, Action.SELL: -1}
THRESHOLD = 0.55
RULES = VoteSettings()
members = st.lists(
    st.tuples(
        st.one_of(st.floats(0.3, 0.7), st.sampled_from([0.45, 0.5, 0.55, 0.6])),
        st.floats(-0.01, 0.01),
        st.floats(0, 0.01),
        st.floats(0.001, 0.02),
        st.floats(0, 0.1),
        st.one_of(st.just(0.0), st.floats(1e-4, 0.05)),
    ),
    min_size=1,
    max_size=5,
)


def _pooled(rows: list[tuple[float, ...]], rules: VoteSettings = RULES) -> PooledForecast:
    p, mu, epistemic, aleatoric, epistemic_p, skill = np.array(rows).T[:, :, None]
    return pool_members(
        p, mu, epistemic, aleatoric, epistemic_p, skill, threshold=THRESHOLD, rules=rules
    )


def _member(number: int, row: tuple[float, ...]) -> Member:
    p, mu, epistemic, aleatoric, epistemic_p, skill = row
    return Member(
        f"f{number}", f"v/{number}", p, mu, epistemic, aleatoric, epistemic_p,
        confidence(p), 0.5, skill,
    )  # fmt: skip


@examples(deadline=None)
@given(members, st.sampled_from([0.0, 1e-6, 0.01]))
def test_a_row_is_what_the_combiner_says(rows: list[tuple[float, ...]], least_skill: float) -> None:
    rules = VoteSettings(least_skill=least_skill)
    one = combine_members(
        [_member(i, row) for i, row in enumerate(rows)], threshold=THRESHOLD, rules=rules
    )
    many = _pooled(rows, rules)
    assert many.p_up[0] == pytest.approx(one.p_up)
    assert many.mu[0] == pytest.approx(one.mu, abs=1e-12)
    assert many.epistemic[0] == pytest.approx(one.epistemic, abs=1e-12)
    assert many.aleatoric[0] == pytest.approx(one.aleatoric, abs=1e-12)
    assert many.side[0] == SIDE[one.action]


@examples(deadline=None)
@given(members)
def test_the_spread_is_the_combiners_or_the_only_speakers_own(
    rows: list[tuple[float, ...]],
) -> None:
    one = combine_members([_member(i, row) for i, row in enumerate(rows)], threshold=THRESHOLD)
    speaking = [row for row in rows if row[5] > 0] or rows
    expected = speaking[0][4] if len(speaking) == 1 else one.epistemic_p
    assert _pooled(rows).epistemic_p[0] == pytest.approx(expected, abs=1e-12)


@examples(deadline=None)
@given(members, members)
def test_a_missing_member_is_as_if_it_were_not_there(
    rows: list[tuple[float, ...]], gone: list[tuple[float, ...]]
) -> None:
    absent = [(float("nan"), *row[1:]) for row in gone]
    with_gap, without = _pooled([*rows, *absent]), _pooled(rows)
    for name in ("p_up", "mu", "epistemic", "aleatoric", "epistemic_p", "side"):
        found, expected = getattr(with_gap, name), getattr(without, name)
        assert found[0] == pytest.approx(expected[0], abs=1e-12)
