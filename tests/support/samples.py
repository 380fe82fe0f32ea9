"""Samples with a known signal, for tests of mechanics (never for figures)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from tests.support.synthetic import START_MS
from tradewind.models.base import DeepWindows, Samples
from tradewind.settings import TIMEFRAME_MS

SYMBOLS = ("BTCUSDT", "ETHUSDT")
WINDOW = 8
DEEP_FEATURES = 4
WIDE_NAMES = ("x0", "x1", "x2", "x3", "funding_rate")
NULLABLE = ("funding_rate",)


def planted_samples(
    n: int,
    *,
    seed: int = 0,
    strength: float = 1.0,
    symbols: tuple[str, ...] = SYMBOLS,
    width: int = WINDOW,
) -> Samples:
    """Return ``n`` rows per symbol whose scaled return is ``strength·x0 + N(0, 1)``.

    ``x0`` is the first feature of the last bar, in the wide and in the deep set. The second
    decides ``reverted`` likewise; every fourth row has no such label.
    """
    rng = np.random.default_rng(seed)
    rows = tuple(
        rng.normal(size=(n + width - 1, DEEP_FEATURES)).astype(np.float32) for _ in symbols
    )
    bar = np.repeat(np.arange(n), len(symbols))
    code = np.tile(np.arange(len(symbols)), n)
    last = np.stack([rows[c][b + width - 1] for b, c in zip(bar, code, strict=True)])
    funding = rng.normal(size=(len(bar), 1))
    funding[::3] = np.nan
    scale = rng.uniform(0.005, 0.02, len(bar))
    fwd_ret = scale * (strength * last[:, 0] + rng.normal(size=len(bar)))
    reverted = (strength * last[:, 1] + rng.normal(size=len(bar)) > 0).astype(np.float64)
    reverted[::4] = np.nan
    return Samples(
        ts=(START_MS + bar * TIMEFRAME_MS["15m"]).astype(np.int64),
        symbol=code.astype(np.int64),
        symbols=symbols,
        wide=np.hstack([last.astype(np.float64), funding]),
        wide_names=WIDE_NAMES,
        deep=DeepWindows(rows, code.astype(np.int64), (bar + width - 1).astype(np.int64), width),
        y_up=(fwd_ret > 0).astype(np.float64),
        fwd_ret=fwd_ret,
        scale=scale,
        reverted=reverted,
    )


def in_time_order(samples: Samples, *shares: float) -> list[Samples]:
    """Cut samples into consecutive slices of the given shares."""
    edges = np.round(np.cumsum([0.0, *shares]) * len(samples)).astype(int)
    return [samples.subset(np.arange(a, b)) for a, b in itertools.pairwise(edges)]


def shuffled(samples: Samples, *, seed: int = 0) -> Samples:
    """Return the same rows with labels of other rows."""
    order = np.random.default_rng(seed).permutation(len(samples))
    return replace(
        samples,
        reverted=None if samples.reverted is None else samples.reverted[order],
        y_up=samples.y_up[order],
        fwd_ret=samples.fwd_ret[order] / samples.scale[order] * samples.scale,
    )
