"""What a registered model takes and gives through MLflow: plain arrays by name.

Input, for n rows: ``ts`` (n,) open time in epoch ms; ``symbol`` (n,) positions in the
bundle's list of symbols; ``wide`` (n, F); ``deep`` (n, W, D); ``scale`` (n,), the trailing
volatility of the horizon's return. Output: every per-row field of a `Forecast`, (n,).
The parameter ``n_samples`` is the number of stochastic passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.samples import DeepWindows, Samples

if TYPE_CHECKING:
    from tradewind.models.bundle import BundleMeta, ModelBundle
    from tradewind.models.uncertainty import Forecast

FIELDS = ("ts", "symbol", "wide", "deep", "scale")
EXAMPLE_ROWS = 2  # two rows tell MLflow that the first axis is free


def example_of(
    bundle: ModelBundle, samples: Samples, *, n_samples: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an input example, the first rows of ``samples``, and the bundle's answer to it."""
    rows = samples.subset(np.arange(min(EXAMPLE_ROWS, len(samples)), dtype=np.int64))
    answer = bundle.predict(rows, n_samples=n_samples)
    return to_input(rows, bundle.meta), to_output(answer)


def to_input(samples: Samples, meta: BundleMeta) -> dict[str, Any]:
    """Return ``samples`` as the arrays that the registered model takes."""
    position = [meta.symbols.index(samples.symbols[code]) for code in samples.symbol]
    return {
        "ts": samples.ts.astype(np.int64),
        "symbol": np.asarray(position, dtype=np.int64),
        "wide": samples.wide.astype(np.float64),
        "deep": samples.deep.take(np.arange(len(samples), dtype=np.int64)),
        "scale": samples.scale.astype(np.float64),
    }


def from_input(arrays: Mapping[str, Any], meta: BundleMeta) -> Samples:
    """Return the samples behind the arrays; labels are unknown, hence NaN.

    Raises
    ------
    TradewindError
        ``bad_input`` for a missing array, arrays of different lengths, a wrong number of
        dimensions, or a symbol that is not the bundle's.
    """
    taken = {name: np.asarray(arrays[name]) for name in FIELDS if name in arrays}
    rows = len(taken["ts"]) if "ts" in taken else 0
    _check(taken, rows, len(meta.symbols))
    deep = taken["deep"].astype(np.float32)
    width, depth = deep.shape[1:]
    windows = DeepWindows(
        rows=(deep.reshape(rows * width, depth),),
        symbol=np.zeros(rows, dtype=np.int64),
        end=np.arange(1, rows + 1, dtype=np.int64) * width - 1,
        width=width,
    )
    unknown = np.full(rows, np.nan)
    return Samples(
        ts=taken["ts"].astype(np.int64),
        symbol=taken["symbol"].astype(np.int64),
        symbols=meta.symbols,
        wide=taken["wide"].astype(np.float64),
        wide_names=meta.wide_names,
        deep=windows,
        y_up=unknown,
        fwd_ret=unknown,
        scale=taken["scale"].astype(np.float64),
    )


def to_output(forecast: Forecast) -> dict[str, Any]:
    """Return every per-row array of ``forecast`` by name."""
    values = {field.name: getattr(forecast, field.name) for field in fields(forecast)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def _check(arrays: Mapping[str, Any], rows: int, symbols: int) -> None:
    dimensions = {"ts": 1, "symbol": 1, "wide": 2, "deep": 3, "scale": 1}
    for name, wanted in dimensions.items():
        if name not in arrays:
            raise _bad(f"the array {name!r} is missing")
        shape = arrays[name].shape
        if len(shape) != wanted or shape[0] != rows:
            raise _bad(f"{name!r} has shape {shape}, not {wanted} dimensions with {rows} rows")
    codes = arrays["symbol"]
    if rows and not (codes.min() >= 0 and codes.max() < symbols):
        raise _bad(f"'symbol' is {codes.tolist()}, not positions among {symbols} symbols")


def _bad(why: str) -> TradewindError:
    return TradewindError(
        ErrorCode.BAD_INPUT,
        f"model input refused: {why}",
        f"Give the arrays {', '.join(FIELDS)} with one row per bar",
    )
