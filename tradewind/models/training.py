"""Fit one family for one key: split by time, fit, leave a finished folder behind.

``workdir`` holds ``forecaster/``, ``fit.json`` (written last: a finished fit) and, while
fitting, ``checkpoint/``. Running the same fit again after a kill continues; running it again
after it finished reads the result.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tradewind.contracts import POOLED
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import sha256_tree, write_json
from tradewind.models.base import EpochHook, FitReport, Forecaster, Samples
from tradewind.models.bundle import FORECASTER_FOLDER, replace_folder
from tradewind.models.dataset import TrainingSet
from tradewind.models.families import create, family_settings, load_forecaster
from tradewind.models.splits import Split, time_split
from tradewind.settings import Settings

FIT_FILE = "fit.json"
CHECKPOINT_FOLDER = "checkpoint"
SLICES = ("train", "valid", "calib", "test")

WITHOUT_EFFECT = {
    "families",
    "pooled_families",
    "walk_forward_folds",
    "deep_folds",
    "bootstrap_samples",
}
"""Training settings that no single fit depends on."""


@dataclass(frozen=True)
class FitOutcome:
    """A fitted forecaster, and the rows it may be judged on.

    Parameters
    ----------
    family, key
        Which model this is; ``key`` is a symbol or ``POOLED``.
    forecaster
        Ready to sample.
    report
        How the fit went.
    samples
        The key's labelled rows in time order.
    split
        Positions of the four slices in ``samples``.
    boundaries
        Open time (ms) of the first and last bar of each slice.
    seed
        The seed used.
    folder
        Where the forecaster is saved.
    reused
        Whether a finished fit of the same inputs was read instead of fitting again.
    """

    family: str
    key: str
    forecaster: Forecaster
    report: FitReport
    samples: Samples
    split: Split
    boundaries: dict[str, tuple[int, int]]
    seed: int
    folder: Path
    reused: bool

    def refitted(self) -> tuple[Forecaster, str]:
        """Return the forecaster fitted on all but the test slice, and the last slice it saw.

        The test slice stays unseen: what is judged there is what is released.
        """
        known = np.sort(np.concatenate([self.split.train, self.split.valid, self.split.calib]))
        again = self.forecaster.refitted(self.samples.subset(known), seed=self.seed)
        return again, "train" if again is self.forecaster else "calib"

    def slice(self, name: str) -> Samples:
        """Return the rows of ``train``, ``valid``, ``calib`` or ``test``."""
        return self.samples.subset(getattr(self.split, name))


def fit_candidate(
    settings: Settings,
    training_set: TrainingSet,
    family: str,
    key: str,
    *,
    seed: int | None = None,
    epochs: int | None = None,
    workdir: Path,
    on_epoch: EpochHook | None = None,
) -> FitOutcome:
    """Fit ``family`` on the rows of ``key`` and save it under ``workdir``.

    Parameters
    ----------
    settings
        Shares, horizon, sizes and defaults.
    training_set
        All symbols' samples.
    family, key
        A registered family; a symbol of the set, or ``POOLED`` for all of them.
    seed, epochs
        Override the settings'.
    workdir
        One folder per candidate.
    on_epoch
        Called after each epoch of a fit; not called when a finished fit is reused.

    Raises
    ------
    TradewindError
        ``unknown_symbol`` for a key without rows, ``not_enough_bars`` for too few.
    """
    settings = _overridden(settings, seed=seed, epochs=epochs)
    seed = settings.training.seed
    samples = rows_of(training_set.samples, key)
    split = time_split(
        samples.ts,
        horizon_ms=settings.training.horizon * settings.market.timeframe_ms,
        shares=settings.training.split,
    )
    folder = workdir / FORECASTER_FOLDER
    inputs = _inputs_hash(settings, training_set, family, key, samples)
    report = _finished(workdir, inputs)
    if reused := report is not None:
        forecaster = load_forecaster(family, folder)
    else:
        forecaster = create(family, settings)
        report = forecaster.fit(
            samples.subset(split.train),
            samples.subset(split.valid),
            seed=seed,
            on_epoch=on_epoch,
            checkpoint_dir=workdir / CHECKPOINT_FOLDER,
        )
    boundaries = {name: _first_and_last(samples, split, name) for name in SLICES}
    if not reused:
        _save(forecaster, folder)
        write_json(
            workdir / FIT_FILE,
            {
                "family": family,
                "key": key,
                "seed": seed,
                "inputs": inputs,
                "forecaster": sha256_tree(folder),
                "report": asdict(report),
                "boundaries": boundaries,
                "rows": {name: len(getattr(split, name)) for name in SLICES},
            },
        )
        shutil.rmtree(workdir / CHECKPOINT_FOLDER, ignore_errors=True)
    return FitOutcome(
        family, key, forecaster, report, samples, split, boundaries, seed, folder, reused
    )


def fit_on(
    settings: Settings,
    family: str,
    train: Samples,
    valid: Samples,
    *,
    seed: int,
    epochs: int | None = None,
    checkpoint_dir: Path | None = None,
    on_epoch: EpochHook | None = None,
) -> Forecaster:
    """Fit ``family`` on given slices, as walk-forward folds do; nothing is saved."""
    forecaster = create(family, _overridden(settings, seed=seed, epochs=epochs))
    forecaster.fit(train, valid, seed=seed, on_epoch=on_epoch, checkpoint_dir=checkpoint_dir)
    return forecaster


def rows_of(samples: Samples, key: str) -> Samples:
    """Return the labelled rows of a symbol, or of all symbols for ``POOLED``.

    Rows of a market that stood still (scale 0) are left out: a return in units of that
    volatility does not exist.
    """
    mask = np.isfinite(samples.y_up) & np.isfinite(samples.fwd_ret) & (samples.scale > 0)
    if key != POOLED:
        if key not in samples.symbols:
            raise TradewindError(
                ErrorCode.UNKNOWN_SYMBOL,
                f"key = {key!r} is not among {', '.join(samples.symbols)}",
                f"Choose one of them or {POOLED}, or add the symbol to market.symbols",
            )
        mask &= samples.symbol == samples.symbols.index(key)
    return samples.subset(mask)


def _overridden(settings: Settings, *, seed: int | None, epochs: int | None) -> Settings:
    given = {"seed": seed, "epochs": epochs}
    update = {name: value for name, value in given.items() if value is not None}
    for name, value in update.items():
        if value < (1 if name == "epochs" else 0):
            raise TradewindError(
                ErrorCode.BAD_SETTING, f"{name} = {value} is too small", "Give a positive number"
            )
    training = settings.training.model_copy(update=update)
    return settings.model_copy(update={"training": training})


def _inputs_hash(
    settings: Settings, training_set: TrainingSet, family: str, key: str, samples: Samples
) -> str:
    """Return a hash of all that decides the fit's result."""
    described: dict[str, Any] = {
        "family": family,
        "key": key,
        "data": training_set.data_fingerprint,
        "features": training_set.feature_version,
        "rows": [len(samples), int(samples.ts[0]), int(samples.ts[-1])] if len(samples) else [],
        "timeframe": settings.market.timeframe,
        "training": settings.training.model_dump(mode="json", exclude=WITHOUT_EFFECT),
        **family_settings(family, settings),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _finished(workdir: Path, inputs: str) -> FitReport | None:
    """Return the report of a finished fit of the same inputs whose files are unchanged."""
    file = workdir / FIT_FILE
    if not file.is_file():
        return None
    try:
        fit = json.loads(file.read_text(encoding="utf-8"))
        same = fit["inputs"] == inputs and fit["forecaster"] == sha256_tree(
            workdir / FORECASTER_FOLDER
        )
        return FitReport(**fit["report"]) if same else None
    except (ValueError, KeyError, TypeError):
        return None  # a damaged record is no finished fit: fit again


def _save(forecaster: Forecaster, folder: Path) -> None:
    staging = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.tmp"
    try:
        forecaster.save(staging)
        replace_folder(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _first_and_last(samples: Samples, split: Split, name: str) -> tuple[int, int]:
    index = getattr(split, name)
    return int(samples.ts[index[0]]), int(samples.ts[index[-1]])
