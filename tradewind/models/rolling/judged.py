"""One forecaster's answers on judged rows, whatever it is: family, ensemble or baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from tradewind.models.base import BoolArray, FloatArray, IntArray
from tradewind.models.walk_forward import OutOfSample

Kind = Literal["family", "ensemble", "baseline"]


@dataclass(frozen=True, eq=False)
class Judged:
    """Forecasts on rows that nothing was fitted on, sorted by (ts, symbol); arrays (n,).

    ``symbol`` holds codes into ``symbols``; ``uncertainty`` is total, in log-return units, NaN
    (as ``mu``) where a forecaster states none; ``skill`` is what the record up to the row's
    retraining told of the member, ``p_raw`` the probability before calibration and
    ``interval_p`` the conformal p-value of the return, both NaN where there is none.
    """

    name: str
    kind: Kind
    symbols: tuple[str, ...]
    ts: IntArray
    symbol: IntArray
    y: FloatArray
    fwd_ret: FloatArray
    p_up: FloatArray
    mu: FloatArray
    uncertainty: FloatArray
    epistemic_p: FloatArray
    skill: FloatArray
    fold: IntArray
    epistemic: FloatArray
    aleatoric: FloatArray
    p_raw: FloatArray
    interval_p: FloatArray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ts)

    def subset(self, index: IntArray | BoolArray) -> Judged:
        """Return the rows ``index`` (positions or a mask), in the given order."""
        arrays = {
            item.name: getattr(self, item.name)[index]
            for item in fields(self)
            if item.name not in ("name", "kind", "symbols")
        }
        return replace(self, **arrays)


def family_rows(name: str, rows: OutOfSample) -> Judged:
    """Return a family's walk-forward rows, sorted."""
    order = np.lexsort((rows.symbol, rows.ts))
    return Judged(
        name=name,
        kind="family",
        symbols=rows.symbols,
        ts=rows.ts[order],
        symbol=rows.symbol[order],
        y=rows.y[order],
        fwd_ret=rows.fwd_ret[order],
        p_up=rows.p_up[order],
        mu=rows.mu[order],
        uncertainty=np.hypot(rows.epistemic, rows.sigma)[order],
        epistemic_p=rows.epistemic_p[order],
        skill=rows.skill[order],
        fold=rows.fold[order],
        epistemic=rows.epistemic[order],
        aleatoric=rows.sigma[order],
        p_raw=rows.p_raw[order],
        interval_p=rows.interval_p[order],
    )


def baseline_rows(name: str, like: Judged, p_up: FloatArray) -> Judged:
    """Return a baseline's ``p_up`` (n,) on the rows of ``like``; it states no uncertainty."""
    unknown = np.full(len(like), np.nan)
    return replace(
        like,
        name=name,
        kind="baseline",
        p_up=p_up,
        mu=unknown,
        uncertainty=unknown,
        epistemic_p=np.zeros(len(like)),
        skill=unknown,
        epistemic=unknown,
        aleatoric=unknown,
        p_raw=unknown,
        interval_p=unknown,
    )


def same_rows(parts: Mapping[str, Judged]) -> dict[str, Judged]:
    """Return each part on the (moment, symbol) pairs that all of them have, in one order."""
    keys = {name: _keys(part) for name, part in parts.items()}
    shared = next(iter(keys.values()))
    for own in keys.values():
        shared = np.intersect1d(shared, own, assume_unique=True)
    return {name: part.subset(np.searchsorted(keys[name], shared)) for name, part in parts.items()}


def _keys(part: Judged) -> IntArray:
    """Return one number a row, rising: moments and symbol codes together."""
    keys: IntArray = part.ts * len(part.symbols) + part.symbol
    return keys
