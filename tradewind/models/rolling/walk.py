"""Walk families and baselines over the folds of the history, resumable fold by fold."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tradewind.contracts import POOLED
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import write_bytes
from tradewind.models.base import FloatArray, IntArray, Samples
from tradewind.models.baselines import BASELINES, baseline_predictions
from tradewind.models.dataset import TrainingSet
from tradewind.models.rolling.folds import (
    bar_on_stride,
    fold_settings,
    plan_record,
    plan_rolling,
)
from tradewind.models.rolling.judged import Judged, baseline_rows, family_rows
from tradewind.models.splits import Fold
from tradewind.models.track_record import rolling_skill
from tradewind.models.training import rows_of
from tradewind.models.walk_forward import FoldResult, OutOfSample, pool, run_folds, without_first
from tradewind.settings import MS_PER_DAY, Settings

BASELINE_REVISION = 1


@dataclass(frozen=True)
class FoldNews:
    """A fold that has just ended (or was read again), and how many its family has."""

    family: str
    key: str
    number: int
    total: int
    result: FoldResult | None
    seconds: float


NewsHook = Callable[[FoldNews], None]


@dataclass(frozen=True, eq=False)
class Walk:
    """A family over all its folds; ``results`` by key (a symbol or POOLED)."""

    family: str
    rows: Judged
    results: dict[str, tuple[FoldResult, ...]]


def walk_family(
    settings: Settings,
    training_set: TrainingSet,
    family: str,
    keys: Sequence[str],
    *,
    workdir: Path,
    on_fold: NewsHook | None = None,
    record: bool = False,
) -> Walk:
    """Refit ``family`` at every fold, once over all symbols or once for each of ``keys``.

    With ``record`` the days before the first judged one are walked too (`plan_record`): what
    the member was worth there weighs it in an ensemble, and is judged nowhere.

    Raises
    ------
    TradewindError
        ``not_enough_bars``, ``unknown_symbol``, ``bad_setting`` (an unknown family),
        ``already_running`` when another process walks this family there.
    """
    with _alone(workdir / family, family):
        return _walk(settings, training_set, family, keys, workdir / family, on_fold, record)


def _walk(
    settings: Settings,
    training_set: TrainingSet,
    family: str,
    keys: Sequence[str],
    workdir: Path,
    on_fold: NewsHook | None,
    record: bool,
) -> Walk:
    sized = fold_settings(settings)
    parts, results = [], {}
    for key in keys:
        judged = planned(settings, training_set, family, key)
        before = planned_record(settings, training_set, family, key) if record else []
        folds = [*before, *judged]
        found: list[FoldResult] = []

        def heard(result: FoldResult, key: str = key, total: int = len(folds)) -> None:
            found.append(result)  # noqa: B023  # each key's walk ends before the next begins
            if on_fold is not None:
                on_fold(FoldNews(family, key, result.number, total, result, result.seconds))

        part = run_folds(
            sized, training_set, family, key, folds, workdir=workdir / key, on_result=heard
        )
        part = replace(part, skill=_skill_by_then(settings, part))
        parts.append(without_first(part, len(before)))
        results[key] = tuple(
            replace(result, number=number) for number, result in enumerate(found[len(before) :], 1)
        )
    return Walk(family, family_rows(family, pool(parts)), results)


def _skill_by_then(settings: Settings, rows: OutOfSample) -> FloatArray:
    """Return each row's skill as a weekly retraining would have stored it, shape (n,)."""
    step = settings.market.timeframe_ms
    return rolling_skill(
        rows,
        every_ms=settings.evaluation.refit_days * MS_PER_DAY,
        window_ms=settings.evaluation.skill_days * MS_PER_DAY,
        known_ms=(settings.training.horizon + 1) * step,
    )


def walk_baselines(
    settings: Settings,
    training_set: TrainingSet,
    like: Judged,
    *,
    workdir: Path,
    on_fold: NewsHook | None = None,
) -> dict[str, Judged]:
    """Return the baselines on the rows ``like``, refitted as often as boosted trees are.

    A baseline needs neither a slice to stop on nor one to calibrate on, and so learns from the
    whole past of each fold: the strongest opponent it can be. All symbols are one data set.
    """
    samples = rows_of(training_set.samples, POOLED)
    folds = plan_rolling(settings, samples.ts, "lightgbm")
    keys = _place(samples.ts, samples.symbol, len(samples.symbols))
    wanted = _place(like.ts, like.symbol, len(like.symbols))
    found = {name: np.full(len(like), np.nan) for name in BASELINES}
    for number, fold in enumerate(folds, 1):
        started = time.monotonic()
        rows = fold.test[bar_on_stride(settings, samples.ts[fold.test])]
        rows = rows[np.isin(keys[rows], wanted)]
        past = np.sort(np.concatenate([fold.fit, fold.valid, fold.calib]))
        file = (
            workdir
            / "baselines"
            / f"{_baseline_token(training_set.feature_version, samples, past, rows)}.npz"
        )
        values = _stored(file, len(rows))
        if values is None:
            values = baseline_predictions(samples.subset(past), samples.subset(rows))
            _store(file, values)
        places = np.searchsorted(wanted, keys[rows])
        for name in BASELINES:
            found[name][places] = values[name]
        if on_fold is not None:
            seconds = time.monotonic() - started
            on_fold(FoldNews("baselines", POOLED, number, len(folds), None, seconds))
    return {name: baseline_rows(name, like, p) for name, p in found.items()}


@contextmanager
def _alone(folder: Path, family: str) -> Iterator[None]:
    """Hold a family's folder: two walks of it would write the same checkpoints."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".walk.lock", timeout=0):
            yield
    except Timeout as error:
        raise TradewindError(
            ErrorCode.ALREADY_RUNNING,
            f"another evaluation walks {family} in {folder}",
            "Wait for it, or give this one another TRADEWIND_HOME",
        ) from error


def planned(settings: Settings, training_set: TrainingSet, family: str, key: str) -> list[Fold]:
    """Return the folds that a walk of ``family`` for ``key`` would judge."""
    return plan_rolling(settings, rows_of(training_set.samples, key).ts, family)


def planned_record(
    settings: Settings, training_set: TrainingSet, family: str, key: str
) -> list[Fold]:
    """Return the folds that a walk with a record would take before those."""
    return plan_record(settings, rows_of(training_set.samples, key).ts, family)


def _place(ts: IntArray, symbol: IntArray, symbols: int) -> IntArray:
    return ts * symbols + symbol


def _baseline_token(feature_version: str, samples: Samples, past: IntArray, rows: IntArray) -> str:
    described = {"revision": BASELINE_REVISION, "features": feature_version}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for used in (past, rows):
        for array in (samples.ts, samples.symbol, samples.wide, samples.y_up):
            digest.update(np.ascontiguousarray(array[used]).tobytes())
    return digest.hexdigest()[:16]


def _store(file: Path, values: dict[str, FloatArray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **values)
    write_bytes(file, buffer.getvalue())


def _stored(file: Path, rows: int) -> dict[str, FloatArray] | None:
    """Return a finished fold's baselines, None if there are none or the file is damaged."""
    if not file.exists():
        return None
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            values = {name: stored[name] for name in BASELINES}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return values if all(len(found) == rows for found in values.values()) else None
