"""The vote's golden cases and its invariants; the pooled probability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.contracts import Action
from tradewind.errors import TradewindError
from tradewind.models.ensemble import (
    Ballot,
    Member,
    combine,
    combine_members,
    ensemble_version,
    member_action,
    vote_confidence,
    voting_families,
)
from tradewind.settings import Settings, VoteSettings

BUY, SELL, HOLD = Action.BUY, Action.SELL, Action.HOLD
MEMBER = Member("lightgbm", "v/1", 0.6, 0.001, 0.001, 0.004, 0.01, 0.2, 0.8, 0.01)


def test_the_interval_of_the_ensemble_is_the_mean_of_its_members_by_skill() -> None:
    narrow = replace(MEMBER, mu=0.0, mu_low=-0.01, mu_high=0.01, skill=0.03)
    wide = replace(MEMBER, version="w/1", mu=0.004, mu_low=-0.03, mu_high=0.05, skill=0.01)
    mute = replace(MEMBER, version="m/1", skill=0.0)
    found = combine_members([narrow, wide, mute], threshold=0.55)
    assert (found.mu_low, found.mu_high) == pytest.approx((-0.015, 0.02))
    speaks = replace(mute, skill=0.02)
    found = combine_members([narrow, wide, speaks], threshold=0.55)
    assert (found.mu_low, found.mu_high) == (None, None)


def _votes(*parts: tuple[Action, float]) -> list[Ballot]:
    return [Ballot(action, sure, 1.0) for action, sure in parts]


def test_three_of_four_agree() -> None:
    found = combine(_votes((BUY, 0.85), (BUY, 0.78), (HOLD, 0.55), (BUY, 0.62)))
    assert (found.action, found.consensus) == (BUY, "strong")
    assert 0.62 <= found.confidence <= 0.85


def test_a_plurality_is_medium() -> None:
    found = combine(_votes((BUY, 0.75), (SELL, 0.65), (BUY, 0.55), (HOLD, 0.80)))
    assert (found.action, found.consensus) == (BUY, "medium")
    assert 0.55 <= found.confidence <= 0.75


@pytest.mark.parametrize(
    "votes",
    [
        [(BUY, 0.7), (BUY, 0.7), (SELL, 0.7), (SELL, 0.7)],
        [(BUY, 0.9), (SELL, 0.7), (HOLD, 0.6)],
        [(BUY, 0.9), (SELL, 0.88)],
        [(HOLD, 0.9), (HOLD, 0.8), (BUY, 0.6)],
    ],
)
def test_a_tie_or_no_repeated_action_is_hold(votes: list[tuple[Action, float]]) -> None:
    assert combine(_votes(*votes)).action is HOLD


@given(st.tuples(*[st.floats(0.01, 1)] * 3), st.tuples(*[st.floats(0.01, 5)] * 3))
def test_three_members_that_all_differ_hold(
    sure: tuple[float, float, float], weight: tuple[float, float, float]
) -> None:
    votes = [Ballot(*parts) for parts in zip((BUY, SELL, HOLD), sure, weight, strict=True)]
    assert combine(votes).action is HOLD


def test_buy_tied_with_hold_is_medium() -> None:
    found = combine(_votes((BUY, 0.7), (BUY, 0.6), (HOLD, 0.9), (HOLD, 0.9)))
    assert (found.action, found.consensus) == (BUY, "medium")


def test_members_without_weight_do_not_count() -> None:
    assert combine([Ballot(BUY, 0.9, 0.0), Ballot(SELL, 0.9, 0.0)]).action is HOLD
    found = combine([Ballot(BUY, 0.9, 0.0), Ballot(SELL, 0.6, 1.0)])
    assert (found.action, found.consensus) == (SELL, "single")


ballots = st.lists(
    st.builds(
        Ballot,
        action=st.sampled_from(list(Action)),
        confidence=st.floats(0.01, 1),
        weight=st.floats(0, 5),
    ),
    max_size=7,
)


@given(ballots)
def test_the_vote_mirrors(votes: list[Ballot]) -> None:
    flip = {BUY: SELL, SELL: BUY, HOLD: HOLD}
    mirrored = combine([replace(vote, action=flip[vote.action]) for vote in votes])
    found = combine(votes)
    assert mirrored.action is flip[found.action]
    assert 0 <= found.confidence <= 1


@given(ballots)
def test_the_winner_was_voted_for_and_order_is_irrelevant(votes: list[Ballot]) -> None:
    found = combine(votes)
    if found.action is not HOLD:
        assert any(vote.action is found.action and vote.weight > 0 for vote in votes)
    assert combine(votes[::-1]).action is found.action


def test_pooling_uses_skill_and_shows_every_member() -> None:
    weak = replace(MEMBER, family="transformer", version="v/2", p_up=0.5, skill=0.0)
    found = combine_members([MEMBER, weak], threshold=0.55, missing=["xgboost"])
    assert found.p_up == pytest.approx(0.6)
    assert [vote.weight for vote in found.votes] == [1.0, 0.0]
    assert found.missing == ("xgboost",)
    assert found.epistemic_p == 0
    assert found.action is BUY


def test_without_any_skill_the_ensemble_abstains() -> None:
    members = [replace(MEMBER, skill=0.0), replace(MEMBER, version="v/2", p_up=0.7, skill=0.0)]
    found = combine_members(members, threshold=0.55)
    assert found.p_up == pytest.approx(0.65)
    assert (found.action, found.consensus) == (HOLD, "none")


def test_a_least_skill_lets_members_without_skill_vote() -> None:
    members = [replace(MEMBER, skill=0.0), replace(MEMBER, version="v/2", p_up=0.7, skill=-1.0)]
    found = combine_members(members, threshold=0.55, rules=VoteSettings(least_skill=1e-6))
    assert (found.action, found.consensus) == (BUY, "strong")
    assert sum(vote.weight for vote in found.votes) == pytest.approx(1)
    assert found.p_up == pytest.approx(0.65)


@pytest.mark.parametrize(("skill", "consensus"), [(0.01, "single"), (0.0, "none")])
def test_a_member_left_alone_is_said_to_be_and_has_to_have_a_weight(
    skill: float, consensus: str
) -> None:
    found = combine_members([replace(MEMBER, skill=skill)], threshold=0.55, missing=["xgboost"])
    assert found.consensus == consensus
    assert found.action is (BUY if skill else HOLD)
    assert found.missing == ("xgboost",)


def test_only_voting_families_that_are_trained_are_asked(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings()
    assert set(voting_families(settings)) == {"lightgbm", "transformer"}
    assert "gru" not in settings.serving.vote.members
    alone = make_settings(serving={"vote": {"members": ("transformer",)}})
    assert voting_families(alone) == ("transformer",)


def test_disagreement_is_epistemic() -> None:
    other = replace(MEMBER, version="v/2", p_up=0.4, mu=-0.001)
    found = combine_members([MEMBER, other], threshold=0.55)
    assert found.epistemic_p == pytest.approx(0.1)
    assert found.epistemic > MEMBER.epistemic
    assert found.uncertainty >= found.epistemic


def test_version_names_members_and_skills_whatever_their_order() -> None:
    other = replace(MEMBER, version="v/2")
    assert ensemble_version([MEMBER, other]) == ensemble_version([other, MEMBER])
    assert ensemble_version([MEMBER]) != ensemble_version([replace(MEMBER, skill=0.02)])


def test_votes_of_a_probability() -> None:
    assert [member_action(p, 0.55) for p in (0.55, 0.5, 0.45, 0.44)] == [BUY, HOLD, SELL, SELL]
    assert vote_confidence(0.6234, BUY) == pytest.approx(0.2468)
    assert vote_confidence(0.6, HOLD) == pytest.approx(0.8)


def test_no_member_is_an_error_that_names_the_missing() -> None:
    with pytest.raises(TradewindError, match="transformer"):
        combine_members([], threshold=0.55, missing=["transformer"])
