"""How often drift of the inputs alarms where nothing is broken, and how soon where something is.

    TRADEWIND_DATA=... python benchmarks/drift_alarms.py --home FOLDER [--market real …]

Each week a version is made as a retraining makes it (the default days back, the reference of its
calibration slice, its usual range) with a small booster for p_up, and looked at daily for its eight
days. Nothing after a look is used in it. Markets: ``real`` bars; ``weeks``, the same rows with the
weeks of each version's span in random order, which is stationary by construction from one week to
the next; ``simulated``, the simulator's. Faults are put into one feature of the real bars from the
first day on. Versions that are done are kept in the folder and not made again. Prints one JSON
object last.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from rich.progress import track

from tradewind.clock import WallClock
from tradewind.files import write_json
from tradewind.market.ingest import run_ingest
from tradewind.models.base import FloatArray, Samples
from tradewind.models.drift import DriftReport, drift_report
from tradewind.models.reference import PREDICTION, Reference
from tradewind.models.rolling.history import load_history
from tradewind.models.splits import time_split
from tradewind.models.usual_drift import quiet_by_now, steps_of, usual_drift
from tradewind.settings import MS_PER_DAY, Settings, load_settings

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
MARKETS = ("real", "weeks", "simulated")
WEEK, LIFE, DAYS_A_YEAR = 7, 8, 365
SIMULATED_DAYS = 850
SEED = 7
ROUNDS = 60
BOOSTER = {
    **{"objective": "binary", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 200},
    **{"lambda_l2": 10.0, "max_bin": 63, "num_threads": 1, "verbosity": -1, "seed": SEED},
}
RULES = {"raw": False, "usual": True}

Fault = Callable[[FloatArray, FloatArray], FloatArray]
"""What a fault makes of a feature's values (n,), given the reference's values (m,)."""
FAULTS: dict[str, Fault] = {
    "scaled": lambda values, _: 3 * values,
    "shifted": lambda values, known: (
        values + 2 * np.std(known[np.isfinite(known)] if np.isfinite(known).any() else 0.0)
    ),
    "stuck": lambda values, _: np.full_like(values, values[0]),
    "silent": lambda values, _: np.full_like(values, np.nan),
}


@dataclass(frozen=True, eq=False)
class Version:
    """A reference, what it was learnt from, and the booster that says p_up."""

    reference: Reference
    calib: Samples
    booster: lightgbm.Booster
    start_ms: int


def samples_of(settings: Settings, market: str) -> Samples:
    """Return every labelled row of the three symbols."""
    if market != "simulated":
        return load_history(settings, WallClock(), SYMBOLS, bars="folder").training_set.samples
    made_up = settings.model_copy(
        update={
            "data": None,
            "home": settings.home / market,
            "market": settings.market.model_copy(update={"source": "simulated"}),
        }
    )
    clock = WallClock()
    run_ingest(made_up, clock, since_ms=clock.now_ms() - SIMULATED_DAYS * MS_PER_DAY)
    return load_history(made_up, clock, SYMBOLS, bars="store").training_set.samples


def spans(settings: Settings, samples: Samples, market: str) -> Iterator[tuple[int, Samples]]:
    """Yield (start, rows) of each weekly version: all that it and its looks can see."""
    days = settings.training.days_back
    first = (int(samples.ts[0]) // MS_PER_DAY + days + 1) * MS_PER_DAY
    for start in range(first, int(samples.ts[-1]) - LIFE * MS_PER_DAY, WEEK * MS_PER_DAY):
        begin = start - days * MS_PER_DAY
        lo, hi = np.searchsorted(samples.ts, [begin, start + LIFE * MS_PER_DAY])
        rows = samples.subset(np.arange(lo, hi))
        yield start, (shuffled_weeks(rows, start) if market == "weeks" else rows)


def shuffled_weeks(rows: Samples, start: int) -> Samples:
    """Return the rows with their whole weeks in another order, on the same times."""
    origin = start - (start - int(rows.ts[0])) // (WEEK * MS_PER_DAY) * WEEK * MS_PER_DAY
    week, within = np.divmod(rows.ts - origin, WEEK * MS_PER_DAY)
    weeks = int(week.max())  # the newest is not whole; nor is what lies before the origin
    order = np.random.default_rng(start // MS_PER_DAY).permutation(weeks)
    place = np.concatenate([order, [weeks]])
    ts = np.where(week < 0, rows.ts, origin + place[week] * WEEK * MS_PER_DAY + within)
    by_time = np.lexsort((rows.symbol, ts))
    return replace(rows.subset(by_time), ts=ts[by_time])


def made(settings: Settings, rows: Samples, start: int) -> Version:
    """Return the version of the rows whose labels had ended at ``start``."""
    step, horizon = settings.market.timeframe_ms, settings.training.horizon
    known = rows.subset(rows.ts + (horizon + 1) * step <= start)
    split = time_split(known.ts, horizon_ms=horizon * step, shares=settings.training.split)
    train, calib = known.subset(split.train), known.subset(split.calib)
    booster = lightgbm.train(BOOSTER, lightgbm.Dataset(train.wide, train.y_up), ROUNDS)
    fitted = Reference.fit(
        calib.wide, calib.wide_names, booster.predict(calib.wide), bins=settings.drift.bins
    )
    later = known.subset(np.concatenate([split.valid, split.calib, split.test]))
    usual = usual_drift(
        fitted.bins,
        known,
        split.calib,
        days=settings.drift.recent_days,
        p_ts=later.ts,
        p_up=booster.predict(later.wide),
        prediction=PREDICTION,
    )
    return Version(replace(fitted, usual=usual), calib, booster, start)


def window(settings: Settings, rows: Samples, now: int) -> Samples:
    """Return the rows that the job ``drift`` looks at."""
    ahead = (settings.training.horizon + 1) * settings.market.timeframe_ms
    since = now - settings.drift.recent_days * MS_PER_DAY
    return rows.subset((rows.ts >= since) & (rows.ts + ahead <= now))


def reports(
    settings: Settings, version: Version, rows: Samples, now: int
) -> dict[str, DriftReport]:
    """Return one look by each rule."""
    recent = window(settings, rows, now)
    p_up, quiet = version.booster.predict(recent.wide), quiet_by_now(recent)
    return {
        rule: drift_report(
            version.reference,
            recent.wide,
            recent.wide_names,
            p_up,
            settings=settings.drift.model_copy(update={"usual": on}),
            quiet=quiet,
            steps=steps_of(recent),
        )
        for rule, on in RULES.items()
    }


def found_after(
    settings: Settings, version: Version, rows: Samples, name: str, fault: Fault
) -> int | None:
    """Return on which day a fault of one feature raised its alarm; None: not in the life."""
    column = rows.wide_names.index(name)
    values = rows.wide[:, column : column + 1].copy()
    broken = rows.ts >= version.start_ms
    for code in range(len(rows.symbols)):
        own = broken & (rows.symbol == code)
        values[own, 0] = fault(values[own, 0], version.calib.wide[:, column])
    whole = version.reference
    alone = replace(
        whole,
        names=(name,),
        bins={name: whole.bins[name], PREDICTION: whole.bins[PREDICTION]},
    )
    faulty = replace(rows, wide=values, wide_names=(name,))
    for day in range(1, LIFE + 1):
        recent = window(settings, faulty, version.start_ms + day * MS_PER_DAY)
        found = drift_report(
            alone,
            recent.wide,
            (name,),
            np.full(1, 0.5),
            settings=settings.drift,
            quiet=quiet_by_now(recent),
            steps=steps_of(recent),
        )
        if found.statuses[name] == "alert":
            return day
    return None


def life(settings: Settings, rows: Samples, start: int, market: str) -> dict[str, Any]:
    """Return what the looks at one version say, and on real bars what faults would raise."""
    version = made(settings, rows, start)
    looks: dict[str, list[dict[str, Any]]] = {rule: [] for rule in RULES}
    for day in range(1, LIFE + 1):
        for rule, found in reports(settings, version, rows, start + day * MS_PER_DAY).items():
            alarmed = [name for name, status in found.statuses.items() if status == "alert"]
            looks[rule].append({"status": found.status, "alert": alarmed, "dead": found.dead})
    days: dict[str, dict[str, int | None]] = {}
    if market == "real":
        for kind, fault in FAULTS.items():
            days[kind] = {
                name: found_after(settings, version, rows, name, fault) for name in rows.wide_names
            }
    return {"start_ms": start, "looks": looks, "found_after": days}


def episodes(statuses: list[str]) -> int:
    """Return how often an alarm began: a first alert, or one after the last was over."""
    count, open_alarm = 0, False
    for status in statuses:
        if status == "alert" and not open_alarm:
            count, open_alarm = count + 1, True
        elif status == "fine":
            open_alarm = False
    return count


def summary(lives: list[dict[str, Any]]) -> dict[str, Any]:
    """Return shares of looks and versions, episodes a year, and which features alarm."""
    years = len(lives) * WEEK / DAYS_A_YEAR
    shown: dict[str, Any] = {"versions": len(lives), "years": round(years, 2)}
    for rule in RULES:
        told = [[look["status"] for look in item["looks"][rule]] for item in lives]
        looks = [look for item in lives for look in item["looks"][rule]]
        features = Counter(name for look in looks for name in look["alert"])
        shown[rule] = {
            "looks_alert": round(float(np.mean([look["status"] == "alert" for look in looks])), 4),
            "looks_warn": round(float(np.mean([look["status"] == "warn" for look in looks])), 4),
            "versions_alert": round(float(np.mean(["alert" in item for item in told])), 4),
            "episodes_a_year": round(sum(map(episodes, told)) / years, 1),
            "features": {name: round(n / len(looks), 3) for name, n in features.most_common() if n},
        }
    return shown


def detection(lives: list[dict[str, Any]]) -> dict[str, Any]:
    """Return for each fault and feature the share found within a life, and the median day."""
    shown: dict[str, Any] = {}
    for kind in FAULTS:
        names = lives[0]["found_after"][kind]
        shown[kind] = {
            name: {
                "found": round(float(np.mean([day is not None for day in days])), 2),
                "days": float(np.median([LIFE + 1 if day is None else day for day in days])),
            }
            for name in names
            for days in [[item["found_after"][kind][name] for item in lives]]
        }
    return shown


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--home", type=Path, required=True, help="folder of features and versions")
    parser.add_argument("--market", choices=MARKETS, nargs="*", default=MARKETS)
    chosen = parser.parse_args()
    settings = load_settings(home=chosen.home)
    out: dict[str, Any] = {"drift": settings.drift.model_dump(include={"warn", "alert"})}
    for market in chosen.market:
        lives = []
        todo = spans(settings, samples_of(settings, market), market)
        for start, rows in track(list(todo), description=market):
            file = chosen.home / "drift_alarms" / market / f"{start}.json"
            if not file.exists():
                write_json(file, life(settings, rows, start, market))
            lives.append(json.loads(file.read_text(encoding="utf-8")))
        out[market] = summary(lives)
        if market == "real":
            half = len(lives) // 2
            out["real_first_half"], out["real_second_half"] = (
                {rule: summary(part)[rule]["episodes_a_year"] for rule in RULES}
                for part in (lives[:half], lives[half:])
            )
            out["faults"] = detection(lives)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
