"""Out-of-sample predictions that emulate past retrainings, fold by fold, resumable.

Each fold refits the family on what lay before it, calibrates on its own slice, and
predicts the days after. A finished fold is stored under a name made of its inputs.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_bytes, write_json
from tradewind.models import metrics as m
from tradewind.models.base import EpochHook, FloatArray, IntArray, Samples
from tradewind.models.bundle import row_seeds
from tradewind.models.calibration import fit_calibrator
from tradewind.models.dataset import TrainingSet
from tradewind.models.families import family_settings, forecaster_class
from tradewind.models.splits import Fold, walk_forward
from tradewind.models.thinning import judged_rows, overlap, thinned
from tradewind.models.training import WITHOUT_EFFECT, fit_on, rows_of
from tradewind.settings import MS_PER_DAY, Settings

REVISION = 4
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


@dataclass(frozen=True)
class FoldResult:
    """A finished fold, for those who record it.

    ``token`` names all that decided it; ``spans`` holds the first and last bar's open (ms)
    and ``rows`` the row count of fit, valid, calib and test; ``metrics`` are of the test
    rows, by the names of `metric_table`; ``seconds`` is what the fold took.
    """

    number: int
    token: str
    spans: dict[str, tuple[int, int]]
    rows: dict[str, int]
    metrics: dict[str, float]
    started_ms: int
    seconds: float


FoldHook = Callable[[FoldResult], None]

ARRAYS = tuple(item.name for item in fields(OutOfSample) if item.name != "symbols")


def run_walk_forward(
    settings: Settings,
    training_set: TrainingSet,
    family: str,
    key: str,
    *,
    workdir: Path,
    on_fold: EpochHook | None = None,
    on_result: FoldHook | None = None,
    epochs: int | None = None,
    seed: int | None = None,
) -> OutOfSample:
    """Return out-of-sample predictions over the newest folds of the training set.

    ``on_fold`` hears of each fold as it ends (also of one that is read again), ``on_result``
    with all there is to record. Deep families use fewer, longer folds over the same test
    span, so that every family is judged on the same days.

    Raises
    ------
    TradewindError
        ``not_enough_bars`` when not even one fold fits into the span.
    """
    given = {"seed": seed, "epochs": epochs}
    update = {name: value for name, value in given.items() if value is not None}
    training = settings.training.model_copy(update=update)
    settings = settings.model_copy(update={"training": training})
    samples = rows_of(training_set.samples, key)
    parts = []
    for number, fold in enumerate(plan_folds(settings, samples.ts, family), 1):
        name = f"{number:02d}-{_token(settings, training_set, family, key, fold, samples)}"
        file = workdir / "folds" / f"{name}.npz"
        part = _stored(file, samples.symbols)
        if part is None:
            checkpoint = workdir / "folds" / f"{name}.checkpoint"
            with _timed(file):
                part = _run_fold(settings, samples, fold, family, number, checkpoint=checkpoint)
            _store(file, part)
            shutil.rmtree(checkpoint, ignore_errors=True)
        if on_fold is not None:
            on_fold(number, _fold_figures(part))
        if on_result is not None:
            on_result(_result(settings, number, name, samples, fold, part, file))
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
    if forecaster_class(family).reads_wide:
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
    """Return all rows of ``parts`` as one, symbols matched by name.

    Raises
    ------
    TradewindError
        ``bad_input`` when there is nothing to pool.
    """
    if not parts:
        raise TradewindError(
            ErrorCode.BAD_INPUT, "parts = [] holds no predictions", "Pool at least one"
        )
    symbols = tuple(dict.fromkeys(name for part in parts for name in part.symbols))
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    codes = [
        np.array([symbols.index(name) for name in part.symbols], dtype=np.int64)[part.symbol]
        for part in parts
    ]
    return OutOfSample(symbols=symbols, **{**joined, "symbol": np.concatenate(codes)})


def _run_fold(
    settings: Settings,
    samples: Samples,
    fold: Fold,
    family: str,
    number: int,
    *,
    checkpoint: Path,
) -> OutOfSample:
    fit, valid = samples.subset(fold.fit), samples.subset(fold.valid)
    stride = settings.training.calibrate_stride
    calib = thinned(settings, family, samples.subset(fold.calib), stride)
    test = judged_rows(settings, family, samples.subset(fold.test))
    seed = settings.training.seed
    forecaster = fit_on(settings, family, fit, valid, seed=seed, checkpoint_dir=checkpoint)
    passes = settings.training.judge_passes
    identity = f"fold {number} {family} {seed}"
    raw_calib = forecaster.sample(calib, n_samples=passes, seeds=row_seeds(identity, calib))
    calibrator = fit_calibrator(
        raw_calib.p.mean(axis=0),
        calib.y_up,
        ts=calib.ts,
        horizon=overlap(settings, family, stride),
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


def _fold_figures(part: OutOfSample) -> dict[str, float]:
    return {
        "rows": float(len(part.ts)),
        "auc": m.auc(part.p_up, part.y),
        "log_loss": m.log_loss(part.p_up, part.y),
        "log_loss_base_rate": m.log_loss(part.base_rate, part.y),
    }


def _result(
    settings: Settings,
    number: int,
    token: str,
    samples: Samples,
    fold: Fold,
    part: OutOfSample,
    file: Path,
) -> FoldResult:
    slices = {name: getattr(fold, name) for name in ("fit", "valid", "calib", "test")}
    timing = json.loads(_timing(file).read_text(encoding="utf-8"))
    bins = settings.calibration.ece_bins
    return FoldResult(
        number=number,
        token=token,
        spans={
            name: (int(samples.ts[rows].min()), int(samples.ts[rows].max()))
            for name, rows in slices.items()
        },
        rows={name: len(rows) for name, rows in slices.items()},
        metrics={
            "rows": float(len(part.ts)),
            **m.classification_metrics(part.p_up, part.y, bins=bins),
            "log_loss_base_rate": m.log_loss(part.base_rate, part.y),
            "brier_base_rate": m.brier(part.base_rate, part.y),
            "seconds": timing["seconds"],
        },
        started_ms=timing["started_ms"],
        seconds=timing["seconds"],
    )


@contextmanager
def _timed(file: Path) -> Iterator[None]:
    """Write when a fold started and how long it took, before the fold itself is stored."""
    started_ms, started = time.time_ns() // 1_000_000, time.monotonic()
    yield
    seconds = time.monotonic() - started
    write_json(_timing(file), {"started_ms": started_ms, "seconds": round(seconds, 3)})


def _timing(file: Path) -> Path:
    return file.with_suffix(".json")


def _token(
    settings: Settings,
    training_set: TrainingSet,
    family: str,
    key: str,
    fold: Fold,
    samples: Samples,
) -> str:
    """Return a hash of all that decides a fold's predictions."""
    described = {
        "revision": REVISION,
        "data": training_set.data_fingerprint,
        "features": training_set.feature_version,
        "family": family,
        "key": key,
        "training": settings.training.model_dump(mode="json", exclude=WITHOUT_EFFECT),
        **family_settings(family, settings),
        "slices": [
            [len(rows), int(samples.ts[rows[0]]), int(samples.ts[rows[-1]])]
            for rows in (fold.fit, fold.valid, fold.calib, fold.test)
        ],
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update(samples.fwd_ret.tobytes())
    return digest.hexdigest()[:16]


def _store(file: Path, part: OutOfSample) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: getattr(part, name) for name in ARRAYS})
    write_bytes(file, buffer.getvalue())


def _stored(file: Path, symbols: tuple[str, ...]) -> OutOfSample | None:
    """Return a finished fold, None if there is none or its file is damaged: run it again."""
    if not file.exists():
        return None
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            return OutOfSample(symbols=symbols, **{name: stored[name] for name in ARRAYS})
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
