"""The search: honest holdout, resumable, the defaults first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.samples import planted_samples
from tradewind.contracts import POOLED
from tradewind.errors import TradewindError
from tradewind.models.dataset import TrainingSet
from tradewind.models.search import (
    BOOSTED_SPACE,
    SearchResult,
    default_params,
    run_search,
    space_of,
    with_params,
)
from tradewind.settings import Settings

pytest.importorskip("optuna", reason="the extra `search` is not installed")


class Killed(BaseException):
    """Stands for a signal: nothing in the code may catch it."""


@pytest.fixture
def small(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(
        training={
            "horizon": 4,
            "bag": 2,
            "fold_days": 4,
            "walk_forward_folds": 2,
            "seed": 3,
            "bootstrap_samples": 100,
        },
        boosted={"max_rounds": 6},
        search={"trials": 4, "holdout_days": 7, "startup_trials": 2},
    )


def _training_set() -> TrainingSet:
    samples = planted_samples(1_900, strength=0.4)
    return TrainingSet(samples, "test", "test", int(samples.ts[0]), int(samples.ts[-1]), "15m", 4)


def _search(settings: Settings, work: Path, **options: object) -> SearchResult:
    return run_search(settings, _training_set(), "lightgbm", POOLED, workdir=work, **options)  # type: ignore[arg-type]


def test_the_first_trial_is_the_defaults_and_the_best_is_judged_on_unseen_days(
    small: Settings, tmp_path: Path
) -> None:
    result = _search(small, tmp_path)
    assert len(result.trials) == 4
    assert [trial.number for trial in result.trials] == [1, 2, 3, 4]
    assert result.trials[0].params == pytest.approx(default_params(small, "lightgbm"))
    assert result.trials[0].status == "complete"
    assert result.best.score == min(t.score for t in result.trials if t.status == "complete")
    assert result.best.score < 0, "the planted signal is skill over the base rate"
    assert 0.5 < result.best.auc < 1
    assert result.holdout_rows == 2 * 7 * 96
    gain = result.holdout_gain
    assert gain.low <= gain.value <= gain.high


def test_no_trial_sees_the_holdout(small: Settings, tmp_path: Path) -> None:
    seen = _search(small, tmp_path / "a")
    known = _training_set()
    late = known.samples.ts >= seen.holdout_start_ms
    assert late.sum() == seen.holdout_rows
    turned = replace(
        known.samples,
        y_up=np.where(late, 1 - known.samples.y_up, known.samples.y_up),
        fwd_ret=np.where(late, -known.samples.fwd_ret, known.samples.fwd_ret),
    )
    other = run_search(
        small, replace(known, samples=turned), "lightgbm", POOLED, workdir=tmp_path / "b"
    )
    assert [t.score for t in other.trials] == [t.score for t in seen.trials]
    assert other.holdout_auc[0] < 0.5 < seen.holdout_auc[0]


def test_a_killed_search_ends_as_one_that_was_not(small: Settings, tmp_path: Path) -> None:
    whole = _search(small, tmp_path / "whole")

    def killed_in_the_third_trial(number: int, fold: int, _: float) -> None:
        if (number, fold) == (3, 1):
            raise Killed

    with pytest.raises(Killed):
        _search(small, tmp_path / "killed", on_fold=killed_in_the_third_trial)
    resumed = _search(small, tmp_path / "killed")
    assert [t.params for t in resumed.trials] == [t.params for t in whole.trials]
    assert [t.score for t in resumed.trials] == [t.score for t in whole.trials]
    assert resumed.holdout_gain == whole.holdout_gain
    again: list[int] = []
    more = _search(small, tmp_path / "killed", trials=5, on_trial=lambda t: again.append(t.number))
    assert again == [1, 2, 3, 4, 5]
    assert more.trials[:4] == resumed.trials


def test_a_trial_that_cannot_be_fitted_is_recorded_and_the_others_go_on(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tradewind.models.search as searching
    from tradewind.errors import ErrorCode

    real, calls = searching.run_walk_forward, []

    def failing(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise TradewindError(ErrorCode.NOT_ENOUGH_BARS, "a slice is empty", "Raise it")
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(searching, "run_walk_forward", failing)
    result = _search(small, tmp_path, trials=3)
    failed = result.trials[1]
    assert failed.status == "failed"
    assert "a slice is empty" in failed.error
    assert math.isnan(failed.score)
    assert result.best.number != 2


def test_too_long_a_holdout_is_refused(small: Settings, tmp_path: Path) -> None:
    with pytest.raises(TradewindError, match=r"holdout_days|days_back"):
        _search(small, tmp_path, holdout_days=400)


def test_parameters_become_settings_and_bad_ones_are_refused(small: Settings) -> None:
    chosen = with_params(small, {"boosted.num_leaves": 9, "training.dropout": 0.3})
    assert (chosen.boosted.num_leaves, chosen.training.dropout) == (9, 0.3)
    assert chosen.training.horizon == small.training.horizon
    with pytest.raises(ValueError, match="dropout"):
        with_params(small, {"training.dropout": 1.5})
    assert space_of("lightgbm") == BOOSTED_SPACE
    assert {item.path for item in space_of("transformer")} == set(
        default_params(small, "transformer")
    )
