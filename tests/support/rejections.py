"""A home in which a champion stands and two bad candidates were turned away by `retrain`."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.pipelines.conftest import ROOT, TINY, command, environment

NAME = "tradewind.lightgbm.POOLED"
BAD = ("shuffled", "overconfident")
RUN_LIMIT_S = 280
VARIABLES = {
    **TINY,
    # Enough rows walked forward for the ECE gate to judge.
    "TRADEWIND_TRAINING": json.dumps(
        {**json.loads(TINY["TRADEWIND_TRAINING"]), "walk_forward_folds": 8, "fold_days": 5}
        | {"days_back": 100}
    ),
}


@dataclass(frozen=True)
class Rejections:
    """The home, and what `tradewind train --json` said of the three retrainings."""

    home: Path
    champion: dict[str, Any]
    bad: dict[str, dict[str, Any]]


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
