"""Walk every family over the history and compare all forecasters on the same rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tradewind.contracts import POOLED
from tradewind.models import metrics as m
from tradewind.models.backtest import MIN_TRADES, Backtest
from tradewind.models.base import IntArray
from tradewind.models.dataset import TrainingSet
from tradewind.models.rolling.figures import BPS, figures, time_bootstrap, trade
from tradewind.models.rolling.folds import bar_on_stride
from tradewind.models.rolling.judged import Judged, same_rows
from tradewind.models.rolling.pooling import ENSEMBLE, ensemble_rows
from tradewind.models.rolling.walk import NewsHook, Walk, walk_baselines, walk_family
from tradewind.models.selection_bias import deflated_sharpe, overfitting, sharpe_ratios
from tradewind.settings import Settings

FOLDS_FOLDER = "folds"
NOT_WORSE = 0.001
"""How much log-loss the ensemble may lose to its best member, in nats, to be no worse."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a walk over the history found.

    Parameters
    ----------
    walks
        By family, on every row that it judged.
    same
        Families, ensemble and baselines on the SAME rows, by name.
    trades
        Their backtests at the base threshold, on those rows.
    figures
        ``{"same": {name: {"pooled": …, SYMBOL: …}}, "all": …}``: bare numbers with intervals.
    against
        Paired comparisons of the ensemble with its best member, and of each forecaster with
        the base rate.
    luck
        The trials, the probability of backtest overfitting, the best strategy in hindsight.
    vote
        What the members' vote said, empty with fewer than two voting members.
    seconds
        Wall time of the judging alone; that of a fold stands with the fold.
    """

    walks: dict[str, Walk]
    same: dict[str, Judged]
    trades: dict[str, Backtest]
    figures: dict[str, dict[str, dict[str, Any]]]
    against: dict[str, Any]
    luck: dict[str, Any]
    vote: dict[str, Any]
    seconds: float


def evaluate_history(
    settings: Settings,
    training_set: TrainingSet,
    families: Sequence[str],
    *,
    pooled: bool = True,
    workdir: Path,
    on_fold: NewsHook | None = None,
) -> Evaluation:
    """Emulate every retraining since ``evaluation.since`` and judge what followed each.

    Parameters
    ----------
    families
        In the order in which they are walked.
    pooled
        One model over all symbols; else one for each.
    workdir
        Finished folds are kept there: running again continues.
    on_fold
        Hears of every fold as it ends.
    """
    keys = [POOLED] if pooled else list(training_set.samples.symbols)
    walks = {
        family: walk_family(
            settings,
            training_set,
            family,
            keys,
            workdir=workdir / FOLDS_FOLDER,
            on_fold=on_fold,
            record=in_ensemble(settings, family, families),
        )
        for family in families
    }
    compared = {
        name: walk.rows.subset(bar_on_stride(settings, walk.rows.ts))
        for name, walk in walks.items()
    }
    members = same_rows(compared)
    first = next(iter(members.values()))
    baselines = walk_baselines(
        settings, training_set, first, workdir=workdir / FOLDS_FOLDER, on_fold=on_fold
    )
    started = time.monotonic()
    same = dict(members)
    voting = [members[name] for name in members if name in settings.serving.vote.members]
    vote: dict[str, Any] = {}
    if len(voting) > 1:
        ensemble, side = ensemble_rows(
            voting, threshold=settings.serving.base_threshold, rules=settings.serving.vote
        )
        same[ensemble.name] = ensemble
        vote = _vote_figures(settings, ensemble, side)
    same |= baselines
    trades = {name: trade(settings, rows) for name, rows in same.items()}
    luck = luck_of(settings, {n: r for n, r in same.items() if r.kind != "baseline"})
    found = {
        "same": {
            name: _by_symbol(settings, rows, trades[name], luck) for name, rows in same.items()
        },
        "all": {
            name: _by_symbol(settings, walk.rows, trade(settings, walk.rows), luck)
            for name, walk in walks.items()
            if len(walk.rows) > len(members[name])
        },
    }
    return Evaluation(
        walks=walks,
        same=same,
        trades=trades,
        figures=found,
        against=_against(settings, same, [member.name for member in voting]),
        luck=luck,
        vote=vote,
        seconds=time.monotonic() - started,
    )


def in_ensemble(settings: Settings, family: str, families: Sequence[str]) -> bool:
    """Return whether ``family`` votes in an ensemble of ``families``: alone it makes none."""
    voting = set(families) & set(settings.serving.vote.members)
    return family in voting and len(voting) > 1


def luck_of(settings: Settings, candidates: Mapping[str, Judged]) -> dict[str, Any]:
    """Return how much of the best strategy's Sharpe ratio the number of trials explains.

    A strategy is a forecaster with one of ``evaluation.thresholds``.
    """
    thresholds = settings.evaluation.thresholds
    names = [(name, limit) for name in candidates for limit in thresholds]
    runs = [trade(settings, candidates[name], threshold=limit) for name, limit in names]
    daily = np.stack([run.daily for run in runs], axis=1)
    ratios = sharpe_ratios(daily)
    traded = np.array([len(run.trade_net) >= MIN_TRADES for run in runs])
    spread = float(ratios[traded].std(ddof=1)) if traded.sum() > 1 else 0.0
    best = int(np.argmax(np.where(traded, ratios, -np.inf)))
    trials = int(traded.sum())
    found: dict[str, Any] = {
        "trials": trials,
        "strategies": len(runs),
        "sharpe_spread": spread,
        "overfitting": None,
        "best": None,
    }
    if trials:
        found["best"] = {
            "name": names[best][0],
            "threshold": names[best][1],
            **runs[best].metrics,
            "deflated_sharpe": deflated_sharpe(daily[:, best], trials, spread=spread),
        }
    blocks = settings.evaluation.overfitting_blocks
    if trials > 1 and len(daily) >= 2 * blocks:
        found["overfitting"] = asdict(overfitting(daily[:, traded], blocks=blocks))
    found["by_threshold"] = [
        {"name": name, "threshold": limit, **run.metrics}
        for (name, limit), run in zip(names, runs, strict=True)
    ]
    return found


def _deflated(trading: Backtest, luck: Mapping[str, Any]) -> float:
    if len(trading.trade_net) < MIN_TRADES:
        return 0.0
    return deflated_sharpe(trading.daily, max(1, luck["trials"]), spread=luck["sharpe_spread"])


def _vote_figures(settings: Settings, rows: Judged, side: IntArray) -> dict[str, Any]:
    """Return how the members voted, and how often a vote for a side was right."""
    voted = side != 0
    found: dict[str, Any] = {
        "buy_share": float((side > 0).mean()),
        "sell_share": float((side < 0).mean()),
        "hold_share": float((~voted).mean()),
        "no_skill_share": float((rows.skill <= 0).mean()),
        "right": None,
        "gross_bps": None,
    }
    if voted.any():
        own, way = rows.subset(voted), side[voted]
        drawn = time_bootstrap(settings, own)
        right = ((way > 0) == (own.y == 1)).astype(np.float64)
        found |= drawn.mean(right).named("right")
        found |= drawn.mean(way * np.expm1(own.fwd_ret) * BPS).named("gross_bps")
    return found


def _by_symbol(
    settings: Settings, rows: Judged, trading: Backtest, luck: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the figures of all rows and of each symbol's, every one deflated by the trials."""
    found = {"pooled": _deflating(figures(settings, rows, trading), trading, luck)}
    for code, symbol in enumerate(rows.symbols):
        own = rows.subset(rows.symbol == code)
        if len(own) and len(rows.symbols) > 1:
            alone = trade(settings, own)
            found[symbol] = _deflating(figures(settings, own, alone), alone, luck)
    return found


def _deflating(found: dict[str, Any], trading: Backtest, luck: Mapping[str, Any]) -> dict[str, Any]:
    return {**found, "deflated_sharpe": _deflated(trading, luck)}


def _against(
    settings: Settings, same: Mapping[str, Judged], voting: Sequence[str]
) -> dict[str, Any]:
    """Return paired differences in log-loss, row by row; negative: the first is better."""
    loss = {name: m.row_log_loss(rows.p_up, rows.y) for name, rows in same.items()}
    drawn = time_bootstrap(settings, next(iter(same.values())))
    found: dict[str, Any] = {
        f"{name}_minus_base_rate": drawn.paired(loss[name], loss["base_rate"]).named("value")
        for name in same
        if name != "base_rate"
    }
    if ENSEMBLE in same:
        best = min(voting, key=lambda name: float(loss[name].mean()))
        gap = drawn.paired(loss[ENSEMBLE], loss[best])
        found["ensemble_minus_best_member"] = {
            "best_member": best,
            **gap.named("value"),
            "not_worse": gap.high < NOT_WORSE,
        }
    return found
