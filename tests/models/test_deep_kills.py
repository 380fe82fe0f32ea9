"""Fits of the deep families killed with SIGKILL, each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SLOW = ("nhits", "patchtst", "gru")
"""The trainer is common: one family shows it at every run, the others where time allows."""

FIT_SCRIPT = """
import os, signal, sys
from pathlib import Path
from tests.support.samples import in_time_order, planted_samples
from tests.support.tiny import tiny_forecaster
folder, kill_after, family = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
train, valid = in_time_order(planted_samples(300), 0.7, 0.3)

def on_epoch(epoch, metrics):
    if epoch == kill_after:  # before the epoch is told: the checkpoint has it already
        os.kill(os.getpid(), signal.SIGKILL)
    print(epoch, metrics["train_loss"], metrics["seconds"], flush=True)

forecaster = tiny_forecaster(family)
forecaster.fit(train, valid, seed=5, on_epoch=on_epoch, checkpoint_dir=folder / "checkpoint")
forecaster.save(folder / "model")
"""


def _run_fit(family: str, folder: Path, kill_after: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", FIT_SCRIPT, str(folder), str(kill_after), family]
    return subprocess.run(command, cwd=ROOT, timeout=120, capture_output=True, text=True)


@pytest.mark.parametrize(
    "family",
    ["transformer", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def test_a_killed_fit_continues_to_the_same_weights(family: str, tmp_path: Path) -> None:
    killed = _run_fit(family, tmp_path / "killed", 2)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "killed" / "model").exists()
    again = _run_fit(family, tmp_path / "killed", 0)
    assert again.returncode == 0, again.stderr
    whole = _run_fit(family, tmp_path / "whole", 0)
    # Equal seconds: the first epoch was told again, not trained again.
    assert again.stdout.splitlines()[0] == killed.stdout.splitlines()[0]
    told = [line.split()[:2] for line in again.stdout.splitlines()]
    assert told == [line.split()[:2] for line in whole.stdout.splitlines()]
    assert [epoch for epoch, _ in told][:3] == ["1", "2", "3"]
    for name in ("weights.safetensors", "config.json"):
        resumed = (tmp_path / "killed" / "model" / name).read_bytes()
        assert resumed == (tmp_path / "whole" / "model" / name).read_bytes()
