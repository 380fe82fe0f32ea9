"""Work folders: named by the hash of what goes in, so that a re-run finds what is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from assets.units import Unit
from tradewind.settings import Settings

DECIDING = {
    "market",
    "features",
    "training",
    "calibration",
    "gates",
    "drift",
    "costs",
}
"""Sections of the settings that change what every unit's steps produce."""

ROOMS = ("assets", "registry", "serving", "tradewind")
"""The rooms whose code makes training sets, models and verdicts (the smoke gate serves)."""


class UnitTask(BaseModel):
    """One branch of a retraining: what to train, on which data, asked for by whom."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    key: str
    until_ms: int
    days_back: int
    epochs: int
    seed: int
    data_fingerprint: str
    feature_version: str
    parent_run_id: str
    dagster_run_id: str
    git_commit: str
    code_fingerprint: str
    source: str
    allow_failed_gates: bool = False
    trigger: str = "manual"
    reason: str = ""

    @property
    def unit(self) -> Unit:
        """Return the unit."""
        return Unit(self.family, self.key)


@dataclass(frozen=True)
class Workspace:
    """Where a task keeps what it has finished."""

    root: Path

    @property
    def training_set(self) -> Path:
        """Return the folder of the saved training set."""
        return self.root / "training_set"

    @property
    def bundle(self) -> Path:
        """Return the folder of the calibrated bundle."""
        return self.root / "bundle"

    @property
    def pictures(self) -> Path:
        """Return the folder of pictures."""
        return self.root / "pictures"

    @property
    def report(self) -> Path:
        """Return the evaluation report."""
        return self.root / "report.json"

    @property
    def tracking_run(self) -> Path:
        """Return the file that names the tracking run, so that a re-run continues it."""
        return self.root / "run.json"

    @contextmanager
    def locked(self, step: str) -> Iterator[None]:
        """Hold a step's lock: a step orphaned by a killed run finishes before it is repeated."""
        from filelock import FileLock

        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f".{step}.lock"):
            yield


def in_use(folder: Path) -> bool:
    """Return whether some process holds a step's lock in a work folder."""
    from filelock import FileLock, Timeout

    for lock in folder.glob(".*.lock"):
        try:
            with FileLock(lock, timeout=0):
                continue
        except Timeout:
            return True
    return False


def code_fingerprint() -> str:
    """Return the hash of the code that decides what a unit's steps produce.

    Unlike a commit it tells two uncommitted states apart, and a commit that only touches
    documents does not make finished work look old.
    """
    top = Path(__file__).resolve().parent.parent
    sources = sorted(path for room in ROOMS for path in (top / room).rglob("*.py"))
    sources.append(top / "requirements.lock")
    digest = hashlib.sha256()
    for path in sources:
        digest.update(f"{path.relative_to(top)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def workspace(settings: Settings, task: UnitTask) -> Workspace:
    """Return the work folder of a task: the same inputs, the same folder."""
    from tradewind.models.families import family_settings

    inputs = {
        "data": task.data_fingerprint,
        "features": task.feature_version,
        "code": task.code_fingerprint,
        "until": task.until_ms,
        "days_back": task.days_back,
        "epochs": task.epochs,
        "seed": task.seed,
        "passes": settings.serving.n_samples,
        "settings": settings.model_dump(mode="json", include=DECIDING),
        "family": family_settings(task.family, settings),
    }
    token = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    return Workspace(settings.home / "work" / task.family / task.key / token)
