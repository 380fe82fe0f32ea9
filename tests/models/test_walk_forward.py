"""Walk-forward folds: the same span for every family, enough rows, resumable, poolable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.samples import planted_samples
from tradewind.contracts import POOLED
from tradewind.errors import TradewindError
from tradewind.models.base import IntArray
from tradewind.models.dataset import TrainingSet
from tradewind.models.metric_table import known
from tradewind.models.splits import Fold
from tradewind.models.walk_forward import (
    FoldResult,
    OutOfSample,
    plan_folds,
    pool,
    run_walk_forward,
)
from tradewind.settings import MS_PER_DAY, Settings

STEP = 900_000


def _grid(settings: Settings, symbols: int) -> IntArray:
    days, horizon = settings.training.days_back, settings.training.horizon
    bars = days * MS_PER_DAY // STEP - horizon
    return np.repeat(np.arange(bars, dtype=np.int64), symbols) * STEP


def _test_rows(folds: list[Fold]) -> int:
    return sum(len(fold.test) for fold in folds)


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_the_default_span_gives_the_ece_gate_its_rows_in_every_profile(
    profile: str, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(profile=profile)
    needed = settings.calibration.min_gate_rows
    one_symbol = _grid(settings, 1)
    assert _test_rows(plan_folds(settings, one_symbol, "lightgbm")) >= needed
    pooled = _grid(settings, len(settings.market.symbols))
    deep = _test_rows(plan_folds(settings, pooled, "transformer"))
    assert deep / settings.training.judge_stride >= needed


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_deep_families_are_judged_on_the_same_days_in_fewer_folds(
    profile: str, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(profile=profile)
    ts = _grid(settings, 1)
    trees = plan_folds(settings, ts, "lightgbm")
    deep = plan_folds(settings, ts, "transformer")
    assert len(deep) == settings.training.deep_folds < len(trees)
    days = [np.unique(ts[np.concatenate([f.test for f in folds])]) for folds in (trees, deep)]
    assert np.array_equal(*days)


@pytest.fixture
def small(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(
        training={"horizon": 4, "bag": 2, "fold_days": 4, "walk_forward_folds": 2, "seed": 3},
        boosted={"max_rounds": 20},
    )


def _training_set() -> TrainingSet:
    samples = planted_samples(1_600)
    return TrainingSet(samples, "test", "test", int(samples.ts[0]), int(samples.ts[-1]), "15m", 4)


def _run(settings: Settings, work: Path, key: str = POOLED, **options: int) -> OutOfSample:
    return run_walk_forward(settings, _training_set(), "lightgbm", key, workdir=work, **options)


def test_a_lost_or_torn_fold_is_run_again_to_the_same_end(small: Settings, tmp_path: Path) -> None:
    whole = _run(small, tmp_path)
    files = sorted((tmp_path / "folds").glob("*.npz"))
    files[0].write_bytes(files[0].read_bytes()[:1000])
    files[1].unlink()
    again = _run(small, tmp_path)
    assert np.array_equal(whole.p_up, again.p_up)
    assert np.array_equal(whole.ts, again.ts)
    left = {path.name for path in (tmp_path / "folds").iterdir()}
    assert left == {file.with_suffix(end).name for file in files for end in (".npz", ".json")}


def test_a_fold_tells_what_it_was_and_a_stored_one_tells_the_same(
    small: Settings, tmp_path: Path
) -> None:
    found: list[FoldResult] = []
    for _ in range(2):
        run_walk_forward(
            small,
            _training_set(),
            "lightgbm",
            POOLED,
            workdir=tmp_path,
            on_result=found.append,
        )
    first, second, *stored = found
    assert [first, second] == stored
    assert (first.number, second.number) == (1, 2)
    assert first.spans["fit"][1] < first.spans["valid"][0]
    assert first.spans["test"][1] < second.spans["test"][0]
    assert first.rows["test"] == first.metrics["rows"]
    assert {"auc", "log_loss", "brier", "ece"} <= first.metrics.keys()
    assert first.seconds > 0
    assert all(known(name) for name in first.metrics)


def test_other_inputs_are_other_folds(small: Settings, tmp_path: Path) -> None:
    _run(small, tmp_path)
    _run(small, tmp_path, seed=4)
    slower = small.model_copy(
        update={"boosted": small.boosted.model_copy(update={"learning_rate": 0.1})}
    )
    _run(slower, tmp_path)
    assert len(list((tmp_path / "folds").glob("*.npz"))) == 6
    unrelated = small.model_copy(
        update={"training": small.training.model_copy(update={"bootstrap_samples": 123})}
    )
    _run(unrelated, tmp_path)
    assert len(list((tmp_path / "folds").glob("*.npz"))) == 6


def test_pooling_symbols_of_a_family_matches_them_by_name(small: Settings, tmp_path: Path) -> None:
    parts = [_run(small, tmp_path / key, key) for key in ("ETHUSDT", "BTCUSDT")]
    single = [
        replace(p, symbols=(n,), symbol=p.symbol * 0) for p, n in zip(parts, "EB", strict=True)
    ]
    pooled = pool(single)
    assert pooled.symbols == ("E", "B")
    assert len(pooled.ts) == sum(len(part.ts) for part in parts)
    assert np.array_equal(pooled.p_up[pooled.symbol == 1], parts[1].p_up)
    assert pool(parts).symbols == parts[0].symbols
    with pytest.raises(TradewindError, match="bad_input"):
        pool([])
