"""The ensemble over many rows at once: what `combine_members` says of each, as arrays.

A test holds the two against each other row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tradewind.models.base import FloatArray, IntArray
from tradewind.models.rolling.judged import Judged
from tradewind.settings import VoteSettings

ENSEMBLE = "ensemble"
BUY, HOLD, SELL = 1, 0, -1


@dataclass(frozen=True, eq=False)
class PooledForecast:
    """`EnsembleForecast` of n rows: pooled values and the vote's side (1, 0, −1); shapes (n,)."""

    p_up: FloatArray
    mu: FloatArray
    epistemic: FloatArray
    aleatoric: FloatArray
    epistemic_p: FloatArray
    side: IntArray


def pool_members(
    p_up: FloatArray,
    mu: FloatArray,
    epistemic: FloatArray,
    aleatoric: FloatArray,
    epistemic_p: FloatArray,
    skill: FloatArray,
    *,
    threshold: float,
    rules: VoteSettings,
) -> PooledForecast:
    """Combine M members' forecasts of n rows, all arrays of shape (M, n).

    A member whose ``p_up`` is NaN is missing from that row. Every row needs one member. Where
    one member alone speaks, ``epistemic_p`` is its own, as serving has it.
    """
    there = np.isfinite(p_up)
    p, u = np.where(there, p_up, 0.5), np.where(there, mu, 0.0)
    skill = np.where(there, np.maximum(skill, rules.least_skill), 0.0)
    share = _normalised(skill, otherwise=there.astype(np.float64))
    mean_p, mean_mu = (share * p).sum(axis=0), (share * u).sum(axis=0)
    within = (share * np.where(there, epistemic, 0.0) ** 2).sum(axis=0)
    between = (share * (u - mean_mu) ** 2).sum(axis=0)
    noise = (share * np.where(there, aleatoric, 0.0) ** 2).sum(axis=0)
    spread = np.sqrt((share * (p - mean_p) ** 2).sum(axis=0))
    speaking = np.where((skill > 0).any(axis=0), skill > 0, there)
    own = np.where(speaking & there, epistemic_p, 0.0).sum(axis=0)
    return PooledForecast(
        p_up=mean_p,
        mu=mean_mu,
        epistemic=np.sqrt(within + between),
        aleatoric=np.sqrt(noise),
        epistemic_p=np.where(speaking.sum(axis=0) == 1, own, spread),
        side=_vote(p, skill, threshold, rules),
    )


def ensemble_rows(
    members: Sequence[Judged], *, threshold: float, rules: VoteSettings
) -> tuple[Judged, IntArray]:
    """Return the ensemble of ``members`` (the same rows each), and the vote's side (n,)."""
    names = ("p_up", "mu", "epistemic", "aleatoric", "epistemic_p", "skill")
    stacked = {name: np.stack([getattr(member, name) for member in members]) for name in names}
    found = pool_members(**stacked, threshold=threshold, rules=rules)
    rows = replace(
        members[0],
        name=ENSEMBLE,
        kind="ensemble",
        p_up=found.p_up,
        mu=found.mu,
        uncertainty=np.hypot(found.epistemic, found.aleatoric),
        epistemic=found.epistemic,
        aleatoric=found.aleatoric,
        epistemic_p=found.epistemic_p,
        skill=stacked["skill"].max(axis=0),
        p_raw=np.full(len(members[0]), np.nan),
        interval_p=np.full(len(members[0]), np.nan),
    )
    return rows, found.side


def _vote(p: FloatArray, skill: FloatArray, threshold: float, rules: VoteSettings) -> IntArray:
    action = np.where(p >= threshold, BUY, np.where(1 - p >= threshold, SELL, HOLD))
    distance = 2 * np.abs(p - 0.5)
    certainty = np.where(action == HOLD, 1 - distance, distance)
    weight = _normalised(skill * certainty, otherwise=np.zeros_like(skill))
    counted = weight > 0
    number = {side: (counted & (action == side)).sum(axis=0) for side in (BUY, HOLD, SELL)}
    score = {
        side: np.where(action == side, weight * certainty, 0.0).sum(axis=0) for side in (BUY, SELL)
    }
    buys = score[BUY] >= score[SELL]
    won = np.where(buys, number[BUY], number[SELL])
    lost = np.where(buys, number[SELL], number[BUY])
    least, most = np.minimum(score[BUY], score[SELL]), np.maximum(score[BUY], score[SELL])
    tied = (least > 0) & (most - least <= rules.tie * most)
    stands = (won > lost) & ~tied & (number[HOLD] <= won)
    side: IntArray = np.where(stands, np.where(buys, BUY, SELL), HOLD).astype(np.int64)
    return side


def _normalised(weights: FloatArray, *, otherwise: FloatArray) -> FloatArray:
    """Return the weights over their sum per row; where that is 0, ``otherwise`` over its."""
    total = weights.sum(axis=0)
    chosen = np.where(total > 0, weights, otherwise)
    total = chosen.sum(axis=0)
    share: FloatArray = np.divide(chosen, total, out=np.zeros_like(chosen), where=total > 0)
    return share
