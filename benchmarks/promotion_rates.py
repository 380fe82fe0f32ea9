"""How often the gates and the review of challengers let the wrong one through, on simulated labels.

    python benchmarks/promotion_rates.py [--repeats 100] [--more 1000] [--seed 1]

Three symbols that move together, labels of 16 bars of 15 minutes, 28 weeks. A slow signal
tilts each label; a version sees it through an error of its own, and says the exact probability
given what it sees: it is calibrated, and its AUC follows from how much it sees. 84 days are walked
forward, the last 36 of them are the test slice, and sixteen weeks follow, with looks after 1, 2, 4,
8 and 16 of them. Gates and reviews are the product's own functions. Prints one JSON object last.

- equal: as good as the champion, with errors of its own
- better: an AUC of 0.54 or 0.56 beside 0.51; or as good, beside a champion whose logits are three
  or five times as large
- over_confident: logits three or five times as large, as a candidate at the gates
- shuffled: p_up that varies and knows nothing, as a candidate at the gates
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.signal import lfilter
from scipy.stats import binomtest, norm

from tradewind.features.samples import DeepWindows, Samples
from tradewind.models import metrics as m
from tradewind.models.base import FloatArray, IntArray
from tradewind.models.bootstrap import TimeBootstrap
from tradewind.models.evaluation import EvaluationReport
from tradewind.models.gates import check_gates
from tradewind.models.paired_review import (
    ReviewVerdict,
    alpha_of_look,
    days_for_look,
    paired_review,
)
from tradewind.models.uncertainty import Forecast
from tradewind.models.walk_forward import OutOfSample
from tradewind.settings import MS_PER_DAY, Settings

STEP, HORIZON, SYMBOLS = 900_000, 16, 3
HORIZON_MS = (HORIZON + 1) * STEP
A_DAY = MS_PER_DAY // STEP
WALKED, TEST = 84, 36
MARKET, SHARED_SIGNAL, SHARED_ERROR = 0.8, 0.8, 0.5
"""Correlations between symbols: of their shocks, of what can be known, of a version's errors."""
SLOW = 0.95
"""Autocorrelation of signal and errors from bar to bar: a half-life of 3.4 hours."""
STRENGTH = 0.2
"""Spread of the signal, in standard deviations of a label's shocks."""
PLAIN, GOOD, POOR, BEST = 0.52, 0.54, 0.51, 0.56
LOUD, LOUDER = 3.0, 5.0
SETTINGS = Settings()
LOOKS = (1, 2, 4, 8, 16)[: SETTINGS.gates.promotion_looks]
"""Weeks after which a challenger is looked at; TRADEWIND_GATES__PROMOTION_LOOKS=5 for all."""
WEEKS = LOOKS[-1]
ALPHA = SETTINGS.gates.promotion_alpha
Told = dict[str, dict[str, bool]]
Shown = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Market:
    """Half a year: rows sorted by time, the signal of each, what came of it."""

    ts: IntArray
    symbol: IntArray
    signal: FloatArray
    y: FloatArray
    fwd_ret: FloatArray
    spread: FloatArray


def together(rng: np.random.Generator, bars: int, shared: float) -> FloatArray:
    """Return unit shocks of shape (bars, symbols) with a correlation."""
    own, common = rng.normal(size=(bars, SYMBOLS)), rng.normal(size=(bars, 1))
    return np.asarray(np.sqrt(1 - shared) * own + np.sqrt(shared) * common, dtype=np.float64)


def slow(rng: np.random.Generator, bars: int, shared: float) -> FloatArray:
    """Return the same, remembered from bar to bar."""
    shocks = together(rng, bars + 200, shared)
    remembered = lfilter([np.sqrt(1 - SLOW**2)], [1, -SLOW], shocks, axis=0)
    return np.asarray(remembered, dtype=np.float64)[200:]


def market(rng: np.random.Generator) -> Market:
    """Simulate; volatility is calm and wild by turns."""
    bars = (WALKED + WEEKS * 7) * A_DAY
    path = np.concatenate([np.zeros((1, SYMBOLS)), together(rng, bars + HORIZON, MARKET).cumsum(0)])
    noise = (path[HORIZON:] - path[:-HORIZON])[:bars] / np.sqrt(HORIZON)
    signal = slow(rng, bars, SHARED_SIGNAL)
    spread = 0.004 * np.exp(np.sin(np.arange(bars) / 300))[:, None] * np.ones((1, SYMBOLS))
    latent = STRENGTH * signal + noise
    return Market(
        ts=np.repeat(np.arange(bars, dtype=np.int64) * STEP, SYMBOLS),
        symbol=np.tile(np.arange(SYMBOLS), bars),
        signal=signal.ravel(),
        y=(latent > 0).astype(np.float64).ravel(),
        fwd_ret=(spread * latent).ravel(),
        spread=spread.ravel(),
    )


def says(rng: np.random.Generator, seen: Market, auc: float) -> FloatArray:
    """Return calibrated p_up of a version with this AUC and errors of its own.

    For a normal score whose correlation with the label's latent value is r, the AUC is close
    to 1/2 + r·sqrt(2)/π, from which the share of the signal that is seen follows.
    """
    r = (auc - 0.5) * np.pi / np.sqrt(2)
    share = r * np.sqrt(1 + STRENGTH**2) / STRENGTH
    error = slow(rng, len(seen.ts) // SYMBOLS, SHARED_ERROR).ravel()
    view = share * seen.signal + np.sqrt(1 - share**2) * error
    unseen = np.sqrt(1 + STRENGTH**2 * (1 - share**2))
    p: FloatArray = norm.cdf(STRENGTH * share * view / unseen)
    return p


def louder(p: FloatArray, factor: float = LOUD) -> FloatArray:
    """Return p with its logits ``factor`` times as large."""
    return 1 / (1 + ((1 - p) / p) ** factor)


def knows_nothing(rng: np.random.Generator, seen: Market) -> FloatArray:
    """Return what a fit on shuffled labels says: as spread out, and about another world."""
    elsewhere = slow(rng, len(seen.ts) // SYMBOLS, SHARED_SIGNAL).ravel()
    return says(rng, replace(seen, signal=elsewhere), GOOD)


def looks(seen: Market, champion: FloatArray, challenger: FloatArray) -> dict[str, bool]:
    """Review as the job does; tell what became of the challenger, by when.

    Beside it, what other ways to share the level over looks would have come to: halving it from
    look to look, and not sharing it at all.
    """
    start = WALKED * MS_PER_DAY
    told: dict[str, bool] = {}
    verdict, halved, unshared, days = ReviewVerdict.NOT_WORSE, False, False, 0
    for number, week in enumerate(LOOKS, 1):
        rows = (seen.ts >= start) & (seen.ts + HORIZON_MS <= start + week * 7 * MS_PER_DAY)
        found = paired_review(
            seen.ts[rows],
            champion[rows],
            challenger[rows],
            seen.y[rows],
            horizon_ms=HORIZON_MS,
            alpha=alpha_of_look(SETTINGS.gates),
            settings=SETTINGS.gates,
        )
        needed = days_for_look(SETTINGS.gates, number, days)
        assert needed is not None
        assert found.days >= needed
        assert found.p_better is not None
        days = found.days
        if verdict is ReviewVerdict.NOT_WORSE:
            verdict = found.verdict
        halved |= found.p_better < ALPHA / 2**number
        unshared |= found.p_better < ALPHA
        told |= {
            f"promoted_by_week_{week}": verdict is ReviewVerdict.BETTER,
            f"withdrawn_by_week_{week}": verdict is ReviewVerdict.WORSE,
            f"one_look_at_week_{week}": found.p_better < ALPHA,
            f"halved_level_by_week_{week}": halved,
            f"unshared_level_by_week_{week}": unshared,
        }
    return told


def bootstrapped(seen: Market, champion: FloatArray, challenger: FloatArray) -> dict[str, bool]:
    """Tell whether a percentile bootstrap of the same level would call it better, in one look."""
    start, won = WALKED * MS_PER_DAY, {}
    for week in LOOKS:
        end = start + week * 7 * MS_PER_DAY
        rows = (seen.ts >= start) & (seen.ts + HORIZON_MS <= end)
        drawn = TimeBootstrap(
            seen.ts[rows],
            samples=SETTINGS.training.bootstrap_samples,
            level=1 - 2 * ALPHA,
            block_ms=HORIZON * STEP,
        )
        gain = drawn.paired(
            m.row_log_loss(challenger[rows], seen.y[rows]),
            m.row_log_loss(champion[rows], seen.y[rows]),
        )
        won[f"bootstrap_one_look_at_week_{week}"] = gain.high < 0
    return won


def at_the_gates(seen: Market, champion: FloatArray, candidate: FloatArray) -> dict[str, bool]:
    """Tell which gates refuse a candidate of the day on which the sixteen weeks begin."""
    end = WALKED * MS_PER_DAY
    known = seen.ts + HORIZON_MS <= end
    test = known & (seen.ts >= end - TEST * MS_PER_DAY)
    report = check_gates(
        SETTINGS,
        _report(seen, candidate, test),
        champion[test],
        pooled=_walked(seen, candidate, known),
    )
    refused = {f"refused_by_{gate.name}": not gate.passed for gate in report.gates}
    return {"refused": not report.passed, **refused}


def _report(seen: Market, p: FloatArray, test: np.ndarray) -> EvaluationReport:
    y, ts = seen.y[test], seen.ts[test]
    count, none = len(y), np.empty((int(test.sum()), 0))
    rows = Samples(
        ts=ts,
        symbol=seen.symbol[test],
        symbols=("A", "B", "C"),
        wide=none,
        wide_names=(),
        deep=DeepWindows((), seen.symbol[test], np.zeros(count, dtype=np.int64), 1),
        y_up=y,
        fwd_ret=seen.fwd_ret[test],
        scale=seen.spread[test],
    )
    flat = np.zeros(count)
    forecast = Forecast(
        p_up=p[test],
        mu=flat,
        epistemic=flat,
        aleatoric=seen.spread[test],
        uncertainty=seen.spread[test],
        epistemic_p=flat,
        confidence=flat,
        conviction=flat,
        passes=1,
    )
    drawn = TimeBootstrap(
        ts,
        samples=SETTINGS.training.bootstrap_samples,
        level=SETTINGS.gates.confidence_level,
        block_ms=HORIZON * STEP,
        seed=SETTINGS.training.seed,
    )
    gain = drawn.paired(m.row_log_loss(p[test], y), np.full(count, np.log(2)))
    figures = {"accuracy": m.accuracy(p[test], y), **gain.named("log_loss_minus_base_rate")}
    return EvaluationReport(figures, rows, forecast, {}, None, None, None, {})  # type: ignore[arg-type]


def _walked(seen: Market, p: FloatArray, known: np.ndarray) -> OutOfSample:
    flat = np.zeros(int(known.sum()))
    return OutOfSample(
        symbols=("A", "B", "C"),
        ts=seen.ts[known],
        symbol=seen.symbol[known],
        y=seen.y[known],
        fwd_ret=seen.fwd_ret[known],
        p_raw=p[known],
        p_up=p[known],
        mu=flat,
        sigma=seen.spread[known],
        epistemic=flat,
        epistemic_p=flat,
        base_rate=flat + 0.5,
        skill=flat,
        interval_p=flat,
        fold=flat.astype(np.int64),
    )


def shown(p: FloatArray, seen: Market) -> dict[str, float]:
    """Return what a version is like, over the half-year."""
    return {"auc": m.auc(p, seen.y), "log_loss": m.log_loss(p, seen.y), "ece": m.ece(p, seen.y)}


def rate(hits: list[bool]) -> dict[str, float]:
    """Return a share with its exact 95 % binomial interval."""
    found = binomtest(sum(hits), len(hits)).proportion_ci(0.95, "exact")
    return {
        "share": round(sum(hits) / len(hits), 4),
        "low": round(float(found.low), 4),
        "high": round(float(found.high), 4),
    }


def run(seed: int, *, gates: bool) -> tuple[Told, Shown]:
    """Return what became of each candidate in one repeat, and what the versions are like."""
    rng = np.random.default_rng(seed)
    seen = market(rng)
    plain, other = says(rng, seen, PLAIN), says(rng, seen, PLAIN)
    poor, good, best = says(rng, seen, POOR), says(rng, seen, GOOD), says(rng, seen, BEST)
    nothing = knows_nothing(rng, seen)
    told: Told = {
        "equal": looks(seen, plain, other),
        "better_auc_054_beside_051": looks(seen, poor, good),
        "better_auc_056_beside_051": looks(seen, poor, best),
        "better_beside_logits_x3": looks(seen, louder(plain), other),
        "better_beside_logits_x5": looks(seen, louder(plain, LOUDER), other),
        "shuffled": looks(seen, plain, nothing),
    }
    if not gates:
        told["equal"] |= bootstrapped(seen, plain, other)
    if gates:
        told["equal"] |= at_the_gates(seen, plain, other)
        told["better_auc_054_beside_051"] |= at_the_gates(seen, poor, good)
        told["over_confident_auc_052"] = at_the_gates(seen, plain, louder(other))
        told["over_confident_auc_054"] = at_the_gates(seen, plain, louder(good))
        told["over_confident_auc_054_x5"] = at_the_gates(seen, plain, louder(good, LOUDER))
        told["better_auc_056_beside_051"] |= at_the_gates(seen, poor, best)
        told["shuffled"] |= at_the_gates(seen, plain, nothing)
    for facts in told.values():
        if "refused" in facts and "promoted_by_week_1" in facts:
            facts["through_gates_and_review"] = (
                not facts["refused"] and facts[f"promoted_by_week_{WEEKS}"]
            )
    versions = {"auc_052": plain, "auc_051": poor, "auc_054": good, "nothing": nothing}
    versions |= {"auc_056": best, "auc_052_x3": louder(plain), "auc_054_x3": louder(good)}
    versions |= {"auc_052_x5": louder(plain, LOUDER), "auc_054_x5": louder(good, LOUDER)}
    return told, {name: shown(p, seen) for name, p in versions.items()} if gates else {}


def repeated(
    count: int, seed: int, advance: Callable[[], None], *, gates: bool
) -> dict[str, object]:
    """Return shares over ``count`` repeats, and means of what the versions are like."""
    hits: dict[str, dict[str, list[bool]]] = {}
    like: dict[str, dict[str, list[float]]] = {}
    for number in range(count):
        told, versions = run(seed + number, gates=gates)
        for name, facts in told.items():
            for key, hit in facts.items():
                hits.setdefault(name, {}).setdefault(key, []).append(hit)
        for name, figures in versions.items():
            for key, value in figures.items():
                like.setdefault(name, {}).setdefault(key, []).append(value)
        advance()
    return {
        "repeats": count,
        **{name: {key: rate(v) for key, v in rows.items()} for name, rows in hits.items()},
        "versions": {
            name: {key: round(float(np.mean(v)), 5) for key, v in rows.items()}
            for name, rows in like.items()
        },
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=100, help="repeats with gates and reviews")
    parser.add_argument("--more", type=int, default=1000, help="repeats of the reviews alone")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    told: dict[str, object] = {"alpha": ALPHA, "look_alpha": alpha_of_look(SETTINGS.gates)}
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        for name, count, gates in (("gates", asked.repeats, True), ("reviews", asked.more, False)):
            task = bar.add_task(name, total=count)
            told[name] = repeated(count, asked.seed, partial(bar.advance, task), gates=gates)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
