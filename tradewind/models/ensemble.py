"""Many members, one answer: a vote that may abstain, and a pooled probability.

The vote (`combine`) is a pure function of (action, confidence, weight). The pooled p_up
and mu are means weighted by skill alone: the vote's weight also carries the momentary
confidence, and a probability weighted by its own distance from one half is no longer one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tradewind.contracts import Action, Vote, confidence
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import FloatArray
from tradewind.settings import Settings, VoteSettings

Consensus = Literal["strong", "medium", "single", "none"]
VOTE_RULES = VoteSettings()


@dataclass(frozen=True)
class Ballot:
    """One member's part in the vote."""

    action: Action
    confidence: float
    weight: float


@dataclass(frozen=True)
class Combination:
    """Result of the vote."""

    action: Action
    confidence: float
    consensus: Consensus


@dataclass(frozen=True)
class Member:
    """One member's calibrated forecast; ``skill`` as stored with its version."""

    family: str
    version: str
    p_up: float
    mu: float
    epistemic: float
    aleatoric: float
    epistemic_p: float
    confidence: float
    conviction: float
    skill: float
    mu_low: float | None = None
    mu_high: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class EnsembleForecast:
    """The pooled forecast, the vote, and what each member said.

    ``epistemic`` holds the spread between members and within each; ``epistemic_p`` is the
    spread of the calibrated probability between members alone. ``mu_low`` and ``mu_high`` are
    the members' bounds averaged as mu is, None where one that counts states none.
    """

    p_up: float
    mu: float
    uncertainty: float
    epistemic: float
    aleatoric: float
    epistemic_p: float
    confidence: float
    conviction: float
    action: Action
    action_confidence: float
    consensus: Consensus
    votes: tuple[Vote, ...]
    missing: tuple[str, ...]
    version: str
    mu_low: float | None = None
    mu_high: float | None = None


def voting_families(settings: Settings) -> tuple[str, ...]:
    """Return the families whose champions vote: those that may, and are trained here."""
    return tuple(
        family for family in settings.serving.vote.members if family in settings.training.families
    )


def member_action(p_up: float, threshold: float) -> Action:
    """Return the vote of a calibrated probability: BUY from the threshold, SELL mirrored."""
    if p_up >= threshold:
        return Action.BUY
    return Action.SELL if 1 - p_up >= threshold else Action.HOLD


def vote_confidence(p_up: float, action: Action) -> float:
    """Return ``2·|p − 0.5|`` for a direction, one minus that for HOLD."""
    distance = confidence(p_up)
    return 1 - distance if action is Action.HOLD else distance


def combine(ballots: Sequence[Ballot], rules: VoteSettings = VOTE_RULES) -> Combination:
    """Return the vote's result.

    BUY or SELL wins by the greater sum of weight × confidence, and stands only with a
    consensus: at least three quarters of the votes (strong), more votes than any other
    action or as many as HOLD (medium), or the only vote (single). Sides within 5 % of each
    other, or as many votes on both, give HOLD. Ballots of zero weight do not count;
    without any other, HOLD.
    """
    counted = [ballot for ballot in ballots if ballot.weight > 0]
    if not counted:
        return Combination(Action.HOLD, 0.0, "none")
    number = {action: sum(b.action is action for b in counted) for action in Action}
    if number[Action.BUY] + number[Action.SELL] == 0:
        return _result(counted, Action.HOLD, rules)
    winner, loser = _by_score(counted)
    if number[winner] <= number[loser] or _tied(counted, rules.tie):
        return Combination(Action.HOLD, _mean_confidence(counted, Action.HOLD), "none")
    if number[Action.HOLD] > number[winner]:
        return _result(counted, Action.HOLD, rules)
    return _result(counted, winner, rules)


def combine_members(
    members: Sequence[Member],
    *,
    threshold: float,
    missing: Sequence[str] = (),
    rules: VoteSettings = VOTE_RULES,
) -> EnsembleForecast:
    """Pool the members' forecasts and hold the vote.

    Members without skill are shown with weight 0, unless ``rules.least_skill`` gives them
    some. If none has skill, p_up is the plain mean, the vote HOLD and the consensus ``none``.
    With one member left that has some, the consensus is ``single``.

    Raises
    ------
    TradewindError
        ``no_champion`` if there is no member at all.
    """
    if not members:
        raise TradewindError(
            ErrorCode.NO_CHAMPION,
            f"the ensemble has no member left (missing: {', '.join(missing) or 'none named'})",
            "Launch the Dagster job `retrain`, or run `tradewind train`",
        )
    actions = [member_action(member.p_up, threshold) for member in members]
    certainty = [vote_confidence(m.p_up, a) for m, a in zip(members, actions, strict=True)]
    skill = [max(rules.least_skill, member.skill) for member in members]
    weights = _normalised([s * c for s, c in zip(skill, certainty, strict=True)])
    ballots = [Ballot(*parts) for parts in zip(actions, certainty, weights, strict=True)]
    vote = combine(ballots, rules)
    share = np.array(_normalised(skill))
    if share.sum() == 0:
        share = np.full(len(members), 1 / len(members))
    p_each = np.array([m.p_up for m in members])
    mu_each = np.array([m.mu for m in members])
    p_up, mu = float(share @ p_each), float(share @ mu_each)
    low, high = _pooled_bounds(members, share)
    within = share @ np.array([m.epistemic for m in members]) ** 2
    between = share @ (mu_each - mu) ** 2
    noise = share @ np.array([m.aleatoric for m in members]) ** 2
    return EnsembleForecast(
        p_up=p_up,
        mu=mu,
        uncertainty=float(np.sqrt(within + between + noise)),
        epistemic=float(np.sqrt(within + between)),
        aleatoric=float(np.sqrt(noise)),
        epistemic_p=float(np.sqrt(share @ (p_each - p_up) ** 2)),
        confidence=confidence(p_up),
        conviction=float(share @ np.array([m.conviction for m in members])),
        action=vote.action,
        action_confidence=vote.confidence,
        # One member alone is no vote; one that has no weight either has not even spoken.
        consensus="single" if len(members) == 1 and weights[0] > 0 else vote.consensus,
        votes=tuple(
            _vote(member, action, sure, weight)
            for member, action, sure, weight in zip(
                members, actions, certainty, weights, strict=True
            )
        ),
        missing=tuple(missing),
        version=ensemble_version(members),
        mu_low=low,
        mu_high=high,
    )


def silent_vote(member: Member, threshold: float) -> Vote:
    """Return what a disabled member would have said: shown, and judged on, with weight 0."""
    action = member_action(member.p_up, threshold)
    return _vote(member, action, vote_confidence(member.p_up, action), 0.0)


def _vote(member: Member, action: Action, sure: float, weight: float) -> Vote:
    return Vote(
        family=member.family,
        model_version=member.version,
        action=action,
        p_up=member.p_up,
        mu=member.mu,
        confidence=sure,
        weight=weight,
        latency_ms=member.latency_ms,
    )


def _pooled_bounds(
    members: Sequence[Member], share: FloatArray
) -> tuple[float, float] | tuple[None, None]:
    """Return the weighted means of the members' bounds: quantiles averaged, not densities."""
    low = high = 0.0
    for member, weight in zip(members, share.tolist(), strict=True):
        if weight == 0:
            continue
        if member.mu_low is None or member.mu_high is None:
            return None, None
        low, high = low + weight * member.mu_low, high + weight * member.mu_high
    return low, high


def ensemble_version(members: Sequence[Member]) -> str:
    """Return the hash of the members' versions and skills: what makes this ensemble this one."""
    text = "|".join(sorted(f"{member.version}:{member.skill:.12g}" for member in members))
    return "ensemble-" + hashlib.sha256(text.encode()).hexdigest()[:12]


def _by_score(ballots: Sequence[Ballot]) -> tuple[Action, Action]:
    score = {
        action: sum(b.weight * b.confidence for b in ballots if b.action is action)
        for action in (Action.BUY, Action.SELL)
    }
    if score[Action.BUY] >= score[Action.SELL]:
        return Action.BUY, Action.SELL
    return Action.SELL, Action.BUY


def _tied(ballots: Sequence[Ballot], within: float) -> bool:
    score = [
        sum(b.weight * b.confidence for b in ballots if b.action is action)
        for action in (Action.BUY, Action.SELL)
    ]
    return bool(min(score) > 0 and max(score) - min(score) <= within * max(score))


def _result(ballots: Sequence[Ballot], action: Action, rules: VoteSettings) -> Combination:
    votes = sum(ballot.action is action for ballot in ballots)
    consensus: Consensus = "strong" if votes / len(ballots) >= rules.strong_share else "medium"
    if len(ballots) == 1:
        consensus = "single"
    return Combination(action, _mean_confidence(ballots, action), consensus)


def _mean_confidence(ballots: Sequence[Ballot], action: Action) -> float:
    chosen = [ballot for ballot in ballots if ballot.action is action]
    total = sum(ballot.weight for ballot in chosen)
    if total == 0:
        return 0.0
    return sum(ballot.weight * ballot.confidence for ballot in chosen) / total


def _normalised(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    return [weight / total if total > 0 else 0.0 for weight in weights]
