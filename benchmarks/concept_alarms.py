"""How often the test of concept drift alarms on replayed real bars. Needs TRADEWIND_DATA.

A logistic regression on trailing returns is refitted each week on the past 90 days and answers
the next 8; outcomes are looked at once a day. The same answers reversed are a changed relation.

    TRADEWIND_DATA=... python benchmarks/concept_alarms.py
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from tradewind.models.base import FloatArray, IntArray
from tradewind.models.concept_drift import concept_drift
from tradewind.settings import MS_PER_DAY, DriftSettings

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
FOLDER = "binance_usdm_perp_15m"
STEP, HORIZON, EVERY = 900_000, 16, 4
HORIZON_MS = (HORIZON + 1) * STEP
PAST, WEEK, LIFE = 90, 7, 8
DAYS_A_YEAR = 365
SETTINGS = DriftSettings()


def rows() -> tuple[IntArray, FloatArray, FloatArray]:
    """Return (ts, x, y) of every symbol: trailing returns in trailing volatility, and the label."""
    parts = []
    for symbol in SYMBOLS:
        bars = pl.read_parquet(
            Path(os.environ["TRADEWIND_DATA"]) / FOLDER / f"{symbol}_15m.parquet"
        )
        close = pl.col("close").log()
        spread = close.diff().rolling_std(96)
        parts.append(
            bars.select(
                "ts",
                *[(close.diff(k) / spread / np.sqrt(k)).alias(f"r{k}") for k in (1, 4, 16, 96)],
                y=(close.shift(-HORIZON) > close).cast(pl.Float64),
            ).drop_nulls()
        )
    frame = pl.concat(parts).drop_nans()
    x = np.clip(frame.select("r1", "r4", "r16", "r96").to_numpy(), -4, 4)
    return frame["ts"].to_numpy(), x, frame["y"].to_numpy()


def episodes(ts: IntArray, p: FloatArray, y: FloatArray, start: int) -> dict[str, bool]:
    """Tell whether a version that answered from ``start`` was ever warned of, or alarmed."""
    found = {"warn": False, "alert": False}
    for day in range(1, LIFE + 1):
        known = ts + HORIZON_MS <= start + day * MS_PER_DAY
        report = concept_drift(
            ts[known], p[known], y[known], horizon_ms=HORIZON_MS, settings=SETTINGS
        )
        found["alert"] |= report.verdict == "alert"
        found["warn"] |= report.verdict != "none"
    return found


def main() -> None:
    """Print one JSON object."""
    warnings.simplefilter("ignore")
    ts, x, y = rows()
    first = (int(ts.min()) // MS_PER_DAY + PAST + 1) * MS_PER_DAY
    starts = range(first, int(ts.max()) - LIFE * MS_PER_DAY, WEEK * MS_PER_DAY)
    totals: dict[str, list[bool]] = {}
    for start in starts:
        past = (ts >= start - PAST * MS_PER_DAY) & (ts + HORIZON_MS <= start)
        past &= ts // STEP % EVERY == 0
        model = LogisticRegression().fit(x[past], y[past])
        live = (ts >= start) & (ts < start + LIFE * MS_PER_DAY)
        p = model.predict_proba(x[live])[:, 1]
        for name, said in (("as_said", p), ("reversed", 1 - p)):
            for verdict, hit in episodes(ts[live], said, y[live], start).items():
                totals.setdefault(f"{name}_{verdict}", []).append(hit)
    years = len(starts) * WEEK / DAYS_A_YEAR
    print(
        json.dumps(
            {
                "versions": len(starts),
                "years": round(years, 2),
                **{f"{k}_share": round(float(np.mean(v)), 4) for k, v in totals.items()},
                **{f"{k}_a_year": round(sum(v) / years, 2) for k, v in totals.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
