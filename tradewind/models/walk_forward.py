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
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_bytes, write_json
from tradewind.models import metrics as m
from tradewind.models.base import EpochHook, FloatArray, IntArray, Samples
from tradewind.models.bundle import row_seeds
from tradewind.models.calibration import fit_calibrator
from tradewind.models.code import family_code
from tradewind.models.conformal import conformal_p, independent_labels, scores
from tradewind.models.dataset import TrainingSet
from tradewind.models.families import family_settings, forecaster_class
from tradewind.models.skill import slice_skill
from tradewind.models.splits import Fold, walk_forward
from tradewind.models.thinning import judged_rows, overlap, thinned
from tradewind.models.training import WITHOUT_EFFECT, fit_on, rows_of
from tradewind.settings import MS_PER_DAY, Settings

REVISION = 6
"""Raised when what a fold stores, or how it is made, changes."""


@dataclass(frozen=True, eq=False)
class OutOfSample:
    """Predictions on rows that no fit and no calibration saw; every array has shape (n,).

    ``symbol`` holds codes into ``symbols``; mu and the uncertainties are in log-return
    units; ``base_rate`` is the fold's own, from its fit slice; ``skill`` is what its
    calibration slice says of the member's worth in an ensemble; ``interval_p`` is the
    conformal p-value of the return, NaN in folds that were stored without it.
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
    skill: FloatArray
    interval_p: FloatArray
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
    calibrator: str = "none"


FoldHook = Callable[[FoldResult], None]

ARRAYS = tuple(item.name for item in fields(OutOfSample) if item.name != "symbols")
STORED = tuple(name for name in ARRAYS if name != "fold")
"""A fold's number is its place in a walk, and another walk may count otherwise."""


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
    return run_folds(
        settings,
        training_set,
        family,
        key,
        plan_folds(settings, samples.ts, family),
        workdir=workdir,
        on_fold=on_fold,
        on_result=on_result,
    )


def run_folds(
    settings: Settings,
    training_set: TrainingSet,
    family: str,
    key: str,
    folds: Sequence[Fold],
    *,
    workdir: Path,
    on_fold: EpochHook | None = None,
    on_result: FoldHook | None = None,
) -> OutOfSample:
    """Return out-of-sample predictions over given folds of the rows of ``key``.

    Folds that an earlier call finished with the same inputs are read again. Hooks as in
    `run_walk_forward`.

    Raises
    ------
    TradewindError
        ``bad_input`` without a fold.
    """
    samples = rows_of(training_set.samples, key)
    parts = []
    for number, fold in enumerate(folds, 1):
        name = _name(settings, training_set, family, key, fold, samples)
        file = workdir / "folds" / f"{name}.npz"
        part = _stored(file, samples.symbols, number)
        if part is None:
            checkpoint = workdir / "folds" / f"{name}.checkpoint"
            with _described(file) as facts:
                part, kind = _run_fold(settings, samples, fold, family, checkpoint=checkpoint)
                facts["calibrator"] = kind
            part = replace(part, fold=np.full(len(part.ts), number, dtype=np.int64))
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


def without_first(rows: OutOfSample, folds: int) -> OutOfSample:
    """Return ``rows`` without those of the first ``folds``; the next fold is number 1."""
    kept = rows.fold > folds
    arrays = {name: getattr(rows, name)[kept] for name in ARRAYS}
    return replace(rows, **{**arrays, "fold": arrays["fold"] - folds})


def _run_fold(
    settings: Settings,
    samples: Samples,
    fold: Fold,
    family: str,
    *,
    checkpoint: Path,
) -> tuple[OutOfSample, str]:
    """Return a fold's test rows, their ``fold`` still 0, and the kind of calibrator chosen."""
    fit, valid = samples.subset(fold.fit), samples.subset(fold.valid)
    stride = settings.training.calibrate_stride
    calib = thinned(settings, family, samples.subset(fold.calib), stride)
    test = judged_rows(settings, family, samples.subset(fold.test))
    seed = settings.training.seed
    forecaster = fit_on(settings, family, fit, valid, seed=seed, checkpoint_dir=checkpoint)
    passes = settings.training.judge_passes
    identity = f"fold {int(test.ts.min())} {family} {seed}"
    raw_calib = forecaster.sample(calib, n_samples=passes, seeds=row_seeds(identity, calib))
    reach = overlap(settings, family, stride)
    choice = fit_calibrator(raw_calib.p.mean(axis=0), calib.y_up, ts=calib.ts, horizon=reach)
    calibrator, base_rate = choice.calibrator, float(fit.y_up.mean())
    known = np.sort(np.concatenate([fold.fit, fold.valid, fold.calib]))
    forecaster = forecaster.refitted(samples.subset(known), seed=seed)
    raw = forecaster.sample(test, n_samples=passes, seeds=row_seeds(identity, test))
    p_raw = raw.p.mean(axis=0)
    part = OutOfSample(
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
        base_rate=np.full(len(test), base_rate),
        skill=np.full(len(test), slice_skill(choice, calib.y_up, calib.ts, base_rate)),
        interval_p=conformal_p(
            scores(raw, test.fwd_ret),
            scores(raw_calib, calib.fwd_ret),
            independent=independent_labels(calib.ts, reach),
        ),
        fold=np.zeros(len(test), dtype=np.int64),
    )
    return part, choice.kind


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
    facts = json.loads(_facts(file).read_text(encoding="utf-8"))
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
            "skill": float(part.skill[0]),
            "seconds": facts["seconds"],
        },
        started_ms=facts["started_ms"],
        seconds=facts["seconds"],
        calibrator=facts["calibrator"],
    )


@contextmanager
def _described(file: Path) -> Iterator[dict[str, str]]:
    """Write what is to be told of a fold beside it, before the fold itself is stored."""
    facts: dict[str, str] = {}
    started_ms, started = time.time_ns() // 1_000_000, time.monotonic()
    yield facts
    seconds = round(time.monotonic() - started, 3)
    write_json(_facts(file), {**facts, "started_ms": started_ms, "seconds": seconds})


def _facts(file: Path) -> Path:
    return file.with_suffix(".json")


def _name(
    settings: Settings,
    training_set: TrainingSet,
    family: str,
    key: str,
    fold: Fold,
    samples: Samples,
) -> str:
    """Return the first day judged and a hash of all that decides a fold's predictions.

    The rows themselves are hashed, not the data they came from: bars that are newer than a
    fold leave it as it was.
    """
    described = {
        "revision": REVISION,
        "code": family_code(family),
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
    used = np.concatenate([fold.fit, fold.valid, fold.calib, fold.test])
    for array in (samples.symbol, samples.wide, samples.scale, samples.fwd_ret):
        digest.update(np.ascontiguousarray(array[used]).tobytes())
    deep = samples.deep
    for code, rows in enumerate(deep.rows):
        ends = deep.end[used][samples.symbol[used] == code]
        if len(ends):
            digest.update(rows[int(ends.min()) - deep.width + 1 : int(ends.max()) + 1].tobytes())
    day = datetime.fromtimestamp(int(samples.ts[fold.test[0]]) / 1000, tz=UTC)
    return f"{day:%Y%m%d}-{digest.hexdigest()[:16]}"


def _store(file: Path, part: OutOfSample) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: getattr(part, name) for name in STORED})
    write_bytes(file, buffer.getvalue())


def _stored(file: Path, symbols: tuple[str, ...], number: int) -> OutOfSample | None:
    """Return a finished fold, None if there is none or its file is damaged: run it again."""
    if not file.exists():
        return None
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in STORED if name in stored}
            arrays.setdefault("interval_p", np.full(len(arrays["ts"]), np.nan))
            fold = np.full(len(arrays["ts"]), number, dtype=np.int64)
            return OutOfSample(symbols=symbols, fold=fold, **arrays)
    except (TypeError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
