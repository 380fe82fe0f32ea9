"""A market that can be foretold a little, and the answers of members of known quality."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from tradewind.ledger.members import MemberState
from tradewind.models.base import FloatArray, IntArray
from tradewind.models.supervisor import MS_PER_HOUR, Answers, Evidence, Verdict, judge
from tradewind.settings import MS_PER_DAY, Settings

START = 19_700 * MS_PER_DAY
Twist = Callable[[FloatArray], FloatArray]


class Market(NamedTuple):
    """Rows of all symbols by time: ``p_up`` is each label's exact probability."""

    ts: IntArray
    symbol: IntArray
    p_up: FloatArray
    y: FloatArray


def market(
    settings: Settings,
    weeks: int,
    seed: int,
    *,
    skill: float = 0.2,
    symbols: int = 3,
    together: float = 0.7,
    signal_bars: float = 32,
) -> Market:
    """Return bars whose labels overlap and whose symbols move together.

    ``skill`` is the correlation of the signal with the label's shocks, ``together`` that of
    two symbols' shocks; the signal lasts about ``signal_bars`` bars.
    """
    rng = np.random.default_rng(seed)
    step, horizon = settings.market.timeframe_ms, settings.training.horizon
    bars = weeks * 7 * MS_PER_DAY // step
    ts = START + np.arange(bars, dtype=np.int64) * step
    common = rng.normal(size=bars + horizon)
    fade = float(np.exp(-1 / signal_bars))
    parts = []
    for number in range(symbols):
        signal = rng.normal(size=bars)
        for bar in range(1, bars):
            signal[bar] = fade * signal[bar - 1] + np.sqrt(1 - fade**2) * signal[bar]
        own = rng.normal(size=bars + horizon)
        path = np.cumsum(np.sqrt(together) * common + np.sqrt(1 - together) * own)
        ahead = (path[horizon:] - path[:-horizon]) / np.sqrt(horizon)
        rises = skill * signal + np.sqrt(1 - skill**2) * ahead > 0
        p_up = norm.cdf(skill * signal / np.sqrt(1 - skill**2))
        parts.append((ts, np.full(bars, number), p_up, rises.astype(float)))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    return Market(*(column[order] for column in columns))


def always_buy(p: FloatArray) -> FloatArray:
    """Say BUY whatever comes."""
    return np.full_like(p, 0.6)


def overconfident(p: FloatArray, times: float = 4.0) -> FloatArray:
    """Multiply the logits: the ranking stays, the calibration breaks."""
    return 1 / (1 + ((1 - p) / p) ** times)


def evidence(settings: Settings, seen: Market, now_ms: int, twist: Twist | None = None) -> Evidence:
    """Return what is known of a member at a time, on which its labels are not all known."""
    window = settings.supervisor.window_days * MS_PER_DAY
    inside = (seen.ts >= now_ms - window) & (seen.ts < now_ms)
    ts, p_up = seen.ts[inside], seen.p_up[inside]
    wait = (settings.training.horizon + 1) * settings.market.timeframe_ms
    return Evidence(
        "lightgbm",
        "POOLED",
        "tradewind.lightgbm.POOLED/1",
        Answers(
            ts,
            seen.symbol[inside],
            p_up if twist is None else twist(p_up),
            np.where(ts <= now_ms - wait, seen.y[inside], np.nan),
            np.full(len(ts), 20.0),
        ),
        ts,
        np.zeros(len(ts), dtype=bool),
    )


def supervised(
    settings: Settings,
    seen: Market,
    *,
    twist: Twist | None = None,
    every_hours: int = 12,
    from_day: int = 4,
    until_day: int | None = None,
    before: MemberState | None = None,
) -> list[tuple[int, Verdict]]:
    """Return (now_ms, verdict) of every judgement of a member's life."""
    end = int(seen.ts[-1]) if until_day is None else START + until_day * MS_PER_DAY
    found = []
    for now in range(START + from_day * MS_PER_DAY, end, every_hours * MS_PER_HOUR):
        verdict = judge(evidence(settings, seen, now, twist), before, now, settings)
        before = verdict.after
        found.append((now, verdict))
    return found
