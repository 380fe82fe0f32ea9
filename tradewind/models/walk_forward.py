"""Out-of-sample predictions that emulate past retrainings, fold by fold, resumable.

Each fold refits the family on what lay before it, calibrates on its own slice, and
predicts the days after. A finished fold is stored under a name made of its inputs.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from tradewind.contracts import POOLED
from tradewind.files import write_bytes
from tradewind.models.base import EpochHook, FloatArray, IntArray, Samples
from tradewind.models.bundle import row_seeds
from tradewind.models.calibration import fit_calibrator
from tradewind.models.dataset import TrainingSet
from tradewind.models.splits import Fold, walk_forward
from tradewind.models.training import fit_on, rows_of
from tradewind.settings import MS_PER_DAY, Settings

DEEP_FAMILIES = ("transformer",)
REVISION = 1
"""Raised when what a fold stores, or how it is made, changes."""


@dataclass(frozen=True, eq=False)
class OutOfSample:
    """Predictions on rows that no fit and no calibration saw; every array has shape (n,).

    ``symbol`` holds codes into ``symbols``; mu and the uncertainties are in log-return
    units; ``base_rate`` is the fold's own, from its fit slice.
    """

    symbols: tuple[str, ...]
    ts: IntArray
    symbol: IntArray
    y: FloatArray
    fwd_ret: FloatArray
    p_raw: FloatArray
    p_up: FloatArray
    mu: FloatArray
    sigma: FloatArray
    epistemic: FloatArray
    epistemic_p: FloatArray
    base_rate: FloatArray
    fold: IntArray


ARRAYS = tuple(item.name for item in fields(OutOfSample) if item.name != "symbols")


def run_walk_forward(
    settings: Settings,
    training_set: TrainingSet,
    family: str,
    key: str,
    *,
    workdir: Path,
    on_fold: EpochHook | None = None,
    epochs: int | None = None,
    seed: int | None = None,
) -> OutOfSample:
    """Return out-of-sample predictions over the newest folds of the training set.

    Deep families use fewer, longer folds over the same test span, so that every family is
    judged on the same days.

    Raises
    ------
    TradewindError
        ``not_enough_bars`` when not even one fold fits into the span.
    """
    samples = rows_of(training_set.samples, key)
    chosen_seed = settings.training.seed if seed is None else seed
    folds = plan_folds(settings, samples.ts, family)
    parts = []
    for number, fold in enumerate(folds):
        token = _token(settings, training_set, family, key, number, fold, samples, epochs, seed)
        file = workdir / "folds" / f"{number:02d}-{token}.npz"
        if file.exists():
            part = _load(file, samples.symbols)
        else:
            part = _run_fold(
                settings,
                samples,
                fold,
                family,
                number,
                epochs=epochs,
                seed=chosen_seed,
                checkpoint=workdir / "folds" / f"{number:02d}-{token}.checkpoint",
            )
            _save(file, part)
        if on_fold is not None:
            loss = -np.log(np.where(part.y == 1, part.p_up, 1 - part.p_up)).mean()
            on_fold(number + 1, {"rows": float(len(part.ts)), "fold_log_loss": float(loss)})
        parts.append(part)
    return pool(parts)


def plan_folds(settings: Settings, ts: IntArray, family: str) -> list[Fold]:
    """Return the folds of a family; the total test span is the same for all."""
    training = settings.training
    horizon_ms = training.horizon * settings.market.timeframe_ms
    fold_ms = training.fold_days * MS_PER_DAY
    shares = training.split
    trees = walk_forward(
        ts,
        horizon_ms=horizon_ms,
        folds=training.walk_forward_folds,
        fold_ms=fold_ms,
        shares=shares,
    )
    if family not in DEEP_FAMILIES:
        return trees
    count = min(training.deep_folds, len(trees))
    return walk_forward(
        ts,
        horizon_ms=horizon_ms,
        folds=count,
        fold_ms=len(trees) * fold_ms // count,
        shares=shares,
    )


def pool(parts: Sequence[OutOfSample]) -> OutOfSample:
    """Return all rows of ``parts``, which must share their symbols, as one."""
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    return OutOfSample(symbols=parts[0].symbols, **joined)


def _run_fold(
    settings: Settings,
    samples: Samples,
    fold: Fold,
    family: str,
    number: int,
    *,
    epochs: int | None,
    seed: int,
    checkpoint: Path,
) -> OutOfSample:
    import shutil

    fit, valid = samples.subset(fold.fit), samples.subset(fold.valid)
    calib, test = samples.subset(fold.calib), samples.subset(fold.test)
    forecaster = fit_on(
        settings, family, fit, valid, seed=seed, epochs=epochs, checkpoint_dir=checkpoint
    )
    shutil.rmtree(checkpoint, ignore_errors=True)
    passes = settings.serving.n_samples
    identity = f"fold {number} {family} {seed}"
    raw_calib = forecaster.sample(calib, n_samples=passes, seeds=row_seeds(identity, calib))
    calibrator = fit_calibrator(
        raw_calib.p.mean(axis=0), calib.y_up, ts=calib.ts, horizon=settings.training.horizon
    ).calibrator
    raw = forecaster.sample(test, n_samples=passes, seeds=row_seeds(identity, test))
    p_raw = raw.p.mean(axis=0)
    return OutOfSample(
        symbols=samples.symbols,
        ts=test.ts,
        symbol=test.symbol,
        y=test.y_up,
        fwd_ret=test.fwd_ret,
        p_raw=p_raw,
        p_up=calibrator.apply(p_raw),
        mu=raw.mu.mean(axis=0),
        sigma=raw.sigma.mean(axis=0),
        epistemic=raw.mu.std(axis=0),
        epistemic_p=calibrator.apply(raw.p.ravel()).reshape(raw.p.shape).std(axis=0),
        base_rate=np.full(len(test), float(fit.y_up.mean())),
        fold=np.full(len(test), number, dtype=np.int64),
    )


def _token(
    settings: Settings,
    training_set: TrainingSet,
    family: str,
    key: str,
    number: int,
    fold: Fold,
    samples: Samples,
    epochs: int | None,
    seed: int | None,
) -> str:
    inputs = {
        "revision": REVISION,
        "data": training_set.data_fingerprint,
        "features": training_set.feature_version,
        "family": family,
        "key": key or POOLED,
        "number": number,
        "training": settings.training.model_dump(mode="json"),
        "passes": settings.serving.n_samples,
        "epochs": epochs,
        "seed": seed,
        "test": [int(samples.ts[fold.test[0]]), int(samples.ts[fold.test[-1]])],
        "labels": hashlib.sha256(samples.y_up[fold.fit].tobytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def _save(file: Path, part: OutOfSample) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: getattr(part, name) for name in ARRAYS})
    write_bytes(file, buffer.getvalue())


def _load(file: Path, symbols: tuple[str, ...]) -> OutOfSample:
    with np.load(file, allow_pickle=False) as stored:
        return OutOfSample(symbols=symbols, **{name: stored[name] for name in ARRAYS})
