"""A home with real bars ingested once, and the command line run as a person runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.rejections import Rejections

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "TRADEWIND_PROFILE": "quick",
    "TRADEWIND_CLOCK": "replay",
    "TRADEWIND_MARKET": '{"symbols": ["BTCUSDT", "ETHUSDT"]}',
    "TRADEWIND_TRAINING": json.dumps(
        {
            "days_back": 40,
            "epochs": 2,
            "max_epoch_samples": 300,
            "walk_forward_folds": 2,
            "fold_days": 4,
            "deep_folds": 1,
            "bootstrap_samples": 100,
        }
    ),
    "TRADEWIND_DEEP": json.dumps(
        {"d_model": 16, "heads": 2, "layers": 2, "feedforward": 32, "validation_rows": 100}
    ),
    "TRADEWIND_BOOSTED": '{"max_rounds": 20}',
    "TRADEWIND_SERVING": '{"n_samples": 3}',
}
Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the variables of a small, self-contained run."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "OMP_NUM_THREADS": "1", "TRADEWIND_HOME": str(home), **more}


def command(*arguments: str) -> list[str]:
    """Return the command line of `tradewind`."""
    return [sys.executable, "-c", "from pipelines.cli import main; main()", *arguments]


@pytest.fixture
def tradewind(tmp_path: Path) -> Run:
    """Run a command in a home of its own; returns exit code, stdout and stderr."""

    def run(
        *arguments: str, home: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=ROOT,
            env=environment(home or tmp_path / "home", **variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )

    return run


@pytest.fixture(scope="session")
def ingested(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that holds the real bars, its replay clock at the close of the newest one."""
    from tradewind.ledger import LedgerClock, open_ledger
    from tradewind.ledger.clock import set_replay_clock
    from tradewind.market.ingest import run_ingest, store_for
    from tradewind.settings import load_settings

    home = tmp_path_factory.mktemp("ingested")
    settings = load_settings(home=home, data=data_root, clock="replay")
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, 4_000_000_000_000)
        run_ingest(settings, LedgerClock(ledger))
        last = store_for(settings).last_ts("BTCUSDT", settings.market.timeframe)
        assert last is not None
        set_replay_clock(ledger, last + settings.market.timeframe_ms)
    return home


@pytest.fixture
def home(ingested: Path, tmp_path: Path) -> Path:
    """A copy of the ingested home for one test."""
    target = tmp_path / "home"
    shutil.copytree(ingested, target)
    return target


@pytest.fixture(scope="session")
def rejections(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Rejections:
    """A home with a champion and two candidates that were turned away (a minute)."""
    from tests.support import rejections as made

    return made.make(made.learnable_home(data_root, tmp_path_factory.mktemp("rejections")))
