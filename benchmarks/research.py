"""What helps a boosted tree forecast direction, one change at a time, out of sample.

    python benchmarks/research.py --data FOLDER [--only NAME …]

One LightGBM booster a quarter from 2025-01 on, fitted on the bars before it (the label's horizon
purged) and asked for the quarter: cheap enough to try many changes beside one base. Each line is
one change to the base; figures are of the quarters that no fit saw, AUC per symbol, its interval
by block bootstrap over days, and what the surest 5 % made before costs. The changes were tried on
the SAME quarters, so that the best of them is flattered by its choice. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import polars as pl

from tradewind.clock import WallClock
from tradewind.features.definitions import NULLABLE_FEATURES
from tradewind.models.base import FloatArray, Samples
from tradewind.models.bootstrap import TimeBootstrap
from tradewind.models.metrics import auc
from tradewind.models.rolling.history import load_history
from tradewind.settings import MS_PER_DAY, load_settings

QUARTERS = tuple(
    int(datetime(year, month, 1, tzinfo=UTC).timestamp() * 1000)
    for year, month in (
        (2025, 1),
        (2025, 4),
        (2025, 7),
        (2025, 10),
        (2026, 1),
        (2026, 4),
        (2026, 7),
    )
)
BASE = {
    "objective": "binary",
    "learning_rate": 0.02,
    "num_leaves": 15,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.6,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "max_bin": 63,
    "num_threads": 1,
    "verbosity": -1,
    "seed": 7,
}
LEAF_SHARE = 0.02
SURE = 0.05


@dataclass(frozen=True)
class Trial:
    """One change to the base; what it does not name is the base's."""

    name: str
    rounds: int = 100
    horizon: int = 16
    gap_days: int = 0
    """Days before the quarter that the fit does not see, as slices to stop and calibrate on."""
    days_back: int | None = None
    stride: int = 1
    per_symbol: bool = False
    target: str = "direction"
    """direction; return: the scaled return itself; root: its signed square root."""
    weight: str = "none"
    """move: rows weigh by the size of their move."""
    extra: tuple[str, ...] = ()
    model: str = "lightgbm"
    params: dict[str, float] = field(default_factory=dict)


TRIALS = (
    Trial("base: 100 trees, all past, pooled"),
    Trial("200 trees", rounds=200),
    Trial("500 trees", rounds=500),
    Trial("31 leaves", params={"num_leaves": 31}),
    Trial("5 leaves", params={"num_leaves": 5}),
    Trial("newest 90 days held back", gap_days=90),
    Trial("past 365 days only", days_back=365),
    Trial("every 4th bar", stride=4),
    Trial("a model for each symbol", per_symbol=True),
    Trial("rows weighted by their move", weight="move"),
    Trial("target: scaled return", target="return"),
    Trial("target: signed root of it", target="root"),
    Trial("horizon 4 bars", horizon=4),
    Trial("+ returns over recent volatility", extra=("ret_z",)),
    Trial("+ place in the 1- and 7-day range", extra=("place",)),
    Trial("+ the three symbols' mean return", extra=("market",)),
    Trial("+ volatility against 7 days", extra=("vol",)),
    Trial("+ signed volume", extra=("flow",)),
    Trial("+ day of the week", extra=("week",)),
    Trial("+ all of these", extra=("ret_z", "place", "market", "vol", "flow", "week")),
    Trial("logistic regression", model="logistic", stride=4),
)


@dataclass(frozen=True, eq=False)
class Rows:
    """Labelled rows; ``extra`` holds further features by group, each (n, k)."""

    samples: Samples
    close: FloatArray
    extra: dict[str, FloatArray]
    step: int


def extra_features(bars: pl.DataFrame, market: FloatArray, step: int) -> dict[str, FloatArray]:
    """Return candidate features by group, each (bars, k); a row uses its bar and earlier ones."""
    close = bars["close"].to_numpy()
    logs = np.log(close)
    ret = _back(logs, 1)
    day, week = MS_PER_DAY // step, 7 * MS_PER_DAY // step
    vol, market_vol = _std(ret, day), _std(_back(market, 1), day)
    volume, signed = bars["volume"], np.sign(close - bars["open"].to_numpy())
    place = []
    for window in (day, week):
        high = bars["high"].rolling_max(window).to_numpy()
        low = bars["low"].rolling_min(window).to_numpy()
        place += [(close - low) / (high - low), np.log(close / high), np.log(close / low)]
    flow = [
        (pl.Series(signed * volume.to_numpy()).rolling_sum(n) / volume.rolling_sum(n)).to_numpy()
        for n in (4, 16, day)
    ]
    groups = {
        "ret_z": [_back(logs, n) / (vol * np.sqrt(n)) for n in (1, 4, 16, day)],
        "place": place,
        "market": [_back(market, n) / (market_vol * np.sqrt(n)) for n in (4, 16, day)],
        "vol": [_std(ret, 20) / _std(ret, week), _std(ret, 4) / vol],
        "flow": flow,
        "week": [(bars["ts"].to_numpy() // MS_PER_DAY + 4) % 7.0],
    }
    return {name: np.column_stack(columns) for name, columns in groups.items()}


def read_rows(data: Path, home: Path) -> Rows:
    """Return every labelled row of the default symbols, with the candidate features."""
    settings = load_settings(home=home, data=data)
    found = load_history(settings, WallClock(), settings.market.symbols, bars="folder")
    samples, timeframe = found.training_set.samples, settings.market.timeframe
    until = found.until_ms
    bars = {n: found.store.read_bars(n, timeframe, until_ms=until) for n in samples.symbols}
    market = np.mean([np.log(frame["close"].to_numpy()) for frame in bars.values()], axis=0)
    close = np.empty(len(samples))
    extra: dict[str, FloatArray] = {}
    for code, (_, frame) in enumerate(bars.items()):
        own = np.flatnonzero(samples.symbol == code)
        at = np.searchsorted(frame["ts"].to_numpy(), samples.ts[own])
        close[own] = frame["close"].to_numpy()[at]
        for name, values in extra_features(frame, market, settings.market.timeframe_ms).items():
            into = extra.setdefault(name, np.full((len(samples), values.shape[1]), np.nan))
            into[own] = values[at]
    return Rows(samples, close, extra, settings.market.timeframe_ms)


def run(trial: Trial, rows: Rows) -> dict[str, Any]:
    """Return the figures of one trial."""
    started = time.perf_counter()
    samples = rows.samples
    ret = samples.fwd_ret if trial.horizon == 16 else _forward(rows, trial.horizon)
    known = np.isfinite(ret)
    wide = np.hstack([samples.wide, *(rows.extra[name] for name in trial.extra)])
    score = np.full(len(samples), np.nan)
    for start, stop in itertools.pairwise(QUARTERS):
        ends = start - trial.gap_days * MS_PER_DAY
        past = known & (samples.ts + (trial.horizon + 1) * rows.step <= ends)
        if trial.days_back is not None:
            past &= samples.ts >= ends - trial.days_back * MS_PER_DAY
        past &= samples.ts // rows.step % trial.stride == 0
        asked = known & (samples.ts >= start) & (samples.ts < stop)
        keys = range(len(samples.symbols)) if trial.per_symbol else (None,)
        for key in keys:
            own = np.ones(len(samples), bool) if key is None else samples.symbol == key
            score[asked & own] = _fitted(trial, wide, ret, samples, past & own)(wide[asked & own])
    seen = np.isfinite(score)
    return {
        "name": trial.name,
        **_figures(samples, ret, score, seen),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _fitted(trial: Trial, wide: FloatArray, ret: FloatArray, samples: Samples, past: Any) -> Any:
    """Return a function from features to a score that rises with the chance of a rise."""
    up = (ret[past] > 0).astype(np.float64)
    if trial.model == "logistic":
        return _logistic(wide, up, samples, past)
    scaled = ret[past] / samples.scale[past]
    label = {"direction": up, "return": scaled, "root": np.sign(scaled) * np.abs(scaled) ** 0.5}
    weight = np.abs(scaled) if trial.weight == "move" else None
    params: dict[str, Any] = {**BASE, **trial.params}
    params["min_data_in_leaf"] = max(20, int(LEAF_SHARE * past.sum()))
    if trial.target != "direction":
        params["objective"] = "regression"
    data = lightgbm.Dataset(wide[past], label[trial.target], weight=weight)
    return lightgbm.train(params, data, num_boost_round=trial.rounds).predict


def _logistic(wide: FloatArray, up: FloatArray, samples: Samples, past: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    names = samples.wide_names
    used = [place for place, name in enumerate(names) if name not in NULLABLE_FEATURES]
    mean, std = wide[past][:, used].mean(axis=0), wide[past][:, used].std(axis=0)

    def scaled(values: FloatArray) -> FloatArray:
        clipped: FloatArray = np.clip((values[:, used] - mean) / std, -5, 5)
        return clipped

    fitted = LogisticRegression(C=0.01, max_iter=500).fit(scaled(wide[past]), up)
    return lambda values: fitted.predict_proba(scaled(values))[:, 1]


def _figures(samples: Samples, ret: FloatArray, score: FloatArray, seen: Any) -> dict[str, Any]:
    y = (ret > 0).astype(np.float64)
    found: dict[str, Any] = {}
    for code, name in enumerate(samples.symbols):
        own = seen & (samples.symbol == code)
        found[f"auc_{name}"] = auc(score[own], y[own])
    found["auc_mean"] = float(np.mean(list(found.values())))
    drawn = TimeBootstrap(samples.ts[seen], samples=300).auc(score[seen], y[seen])
    side = np.sign(score - np.median(score[seen]))
    distance = np.abs(score - np.median(score[seen]))
    sure = seen & (distance >= np.quantile(distance[seen], 1 - SURE))
    return {
        **{name: round(value, 4) for name, value in found.items()},
        "auc_pooled": round(drawn.value, 4),
        "auc_pooled_low": round(drawn.low, 4),
        "auc_pooled_high": round(drawn.high, 4),
        "sure_accuracy": round(float(((side > 0) == (y > 0))[sure].mean()), 3),
        "sure_gross_bps": round(float((side * ret)[sure].mean() * 1e4), 1),
    }


def _forward(rows: Rows, horizon: int) -> FloatArray:
    """Return log returns over ``horizon`` bars, NaN where that bar is not among the rows."""
    out = np.full(len(rows.close), np.nan)
    samples = rows.samples
    for code in range(len(samples.symbols)):
        own = np.flatnonzero(samples.symbol == code)
        ts = samples.ts[own]
        at = np.minimum(np.searchsorted(ts, ts + horizon * rows.step), len(ts) - 1)
        there = ts[at] == ts + horizon * rows.step
        later = np.log(rows.close[own][at] / rows.close[own])
        out[own] = np.where(there, later, np.nan)
    return out


def _back(values: FloatArray, count: int) -> FloatArray:
    out = np.full(len(values), np.nan)
    out[count:] = values[count:] - values[:-count]
    return out


def _std(values: FloatArray, window: int) -> FloatArray:
    return pl.Series(values).fill_nan(None).rolling_std(window).to_numpy()


def main() -> None:
    """Run the trials that are asked for, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of sets")
    parser.add_argument("--home", type=Path, default=Path("var/research"), help="for the features")
    parser.add_argument("--only", nargs="*", default=[], help="trials whose name holds a word")
    given = parser.parse_args()
    rows = read_rows(given.data, given.home)
    found = []
    for trial in TRIALS:
        if given.only and not any(word in trial.name for word in given.only):
            continue
        figures = run(trial, rows)
        found.append(figures)
        print("  ".join(f"{value}" for value in figures.values()), flush=True)
    print(json.dumps({"trials": found}))


if __name__ == "__main__":
    main()
