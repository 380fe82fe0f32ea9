"""A home in which a champion stands and two bad candidates were turned away by `retrain`.

Its bars are real ones with a trend laid over them that a model can learn: on bars where an
honest candidate passes every gate, a rejection says something about the bad ones.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tests.pipelines.conftest import ROOT, TINY, command, environment

NAME = "tradewind.lightgbm.POOLED"
BAD = ("shuffled", "overconfident")
RUN_LIMIT_S = 280
FOLDER, SYMBOLS = "binance_usdm_perp_15m", ("BTCUSDT", "ETHUSDT", "SOLUSDT")
BARS = 13_500
STEP_MS = 900_000
TREND_MEMORY, TREND_STEP = 0.97, 0.00015
"""Of the trend laid over the returns: what is left of it after a bar, and what is added."""
PRICES = ("open", "high", "low", "close")
VARIABLES = {
    **TINY,
    # Enough rows walked forward for the ECE gate to judge.
    "TRADEWIND_BOOSTED": '{"max_rounds": 20, "learning_rate": 0.1}',
    "TRADEWIND_TRAINING": json.dumps(
        json.loads(TINY["TRADEWIND_TRAINING"])
        | {"days_back": 100, "walk_forward_folds": 4, "fold_days": 10, "bag": 2}
    ),
}


@dataclass(frozen=True)
class Rejections:
    """The home, and what `tradewind train --json` said of the three retrainings."""

    home: Path
    champion: dict[str, Any]
    bad: dict[str, dict[str, Any]]


def learnable_home(data_root: Path, root: Path) -> Path:
    """Return a home with the newest real bars under a trend, its clock at their last close."""
    from tradewind.ledger import LedgerClock, open_ledger, set_replay_clock
    from tradewind.market.ingest import run_ingest
    from tradewind.settings import load_settings

    folder = root / "bars" / FOLDER
    folder.mkdir(parents=True)
    for seed, symbol in enumerate(SYMBOLS):
        bars = pl.read_parquet(data_root / FOLDER / f"{symbol}_15m.parquet").tail(BARS)
        tilt = pl.Series(np.exp(np.cumsum(_trend(len(bars), seed))))
        bars.with_columns(pl.col(PRICES) * tilt).write_parquet(folder / f"{symbol}_15m.parquet")
    home = root / "home"
    settings = load_settings(home=home, data=root / "bars", clock="replay")
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, int(bars["ts"][-1]) + STEP_MS)
        run_ingest(settings, LedgerClock(ledger))
    return home


def _trend(bars: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return a drift a bar that comes and goes within hours."""
    steps = np.random.default_rng(seed).normal(0, TREND_STEP, bars)
    drift = np.empty(bars)
    now = 0.0
    for place, step in enumerate(steps):
        now = drift[place] = TREND_MEMORY * now + step
    return drift


def make(home: Path) -> Rejections:
    """Retrain honestly, then twice badly, on the same bars; the seed alone differs besides."""
    champion = _train(home, "--allow-failed-gates", "--seed", "7")
    folder = ROOT / "tests" / "support" / "bad_candidates"
    path = os.pathsep.join((str(folder), str(ROOT)))
    bad = {
        kind: _train(home, "--seed", str(8 + place), PYTHONPATH=path, BAD_CANDIDATE=kind)
        for place, kind in enumerate(BAD)
    }
    return Rejections(home, champion, bad)


def _train(home: Path, *choices: str, **more: str) -> dict[str, Any]:
    done = subprocess.run(
        command("train", "-f", "lightgbm", "--json", *choices),
        cwd=ROOT,
        env=environment(home, **VARIABLES, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome
