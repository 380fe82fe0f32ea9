"""Fitting a candidate: slices, folders, reuse, and refusals."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.samples import in_time_order, planted_samples
from tradewind.contracts import POOLED
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import Samples
from tradewind.models.dataset import TrainingSet
from tradewind.models.training import FitOutcome, fit_candidate, fit_on, rows_of
from tradewind.settings import Settings

TINY = {
    "training": {"epochs": 2, "bag": 2, "max_epoch_samples": 200, "batch_size": 32},
    "deep": {"d_model": 8, "heads": 2, "layers": 2, "feedforward": 16},
    "boosted": {"max_rounds": 20, "learning_rate": 0.1},
}
MakeSettings = Callable[..., Settings]


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(**TINY)


def _set(samples: Samples, fingerprint: str = "abc") -> TrainingSet:
    return TrainingSet(
        samples=samples,
        feature_version="f1",
        data_fingerprint=fingerprint,
        start_ms=int(samples.ts[0]),
        end_ms=int(samples.ts[-1]),
        timeframe="15m",
        horizon=16,
    )


@pytest.fixture(scope="module")
def training_set() -> TrainingSet:
    return _set(planted_samples(500))


def _p(outcome: FitOutcome) -> np.ndarray:
    test = outcome.slice("test")
    return outcome.forecaster.sample(test, n_samples=4, seeds=test.ts).p


@pytest.mark.parametrize("family", ["lightgbm", "transformer"])
def test_a_finished_fit_is_reused_and_a_changed_one_is_not(
    family: str, settings: Settings, training_set: TrainingSet, tmp_path: Path
) -> None:
    epochs: list[int] = []

    def fit(seed: int, data: TrainingSet = training_set) -> FitOutcome:
        return fit_candidate(
            settings,
            data,
            family,
            "ETHUSDT",
            seed=seed,
            workdir=tmp_path,
            on_epoch=lambda epoch, metrics: epochs.append(epoch),
        )

    first = fit(1)
    assert not first.reused
    assert epochs
    again = fit(1)
    assert again.reused
    assert again.report == first.report
    assert again.boundaries == first.boundaries
    np.testing.assert_array_equal(_p(again), _p(first))
    assert not fit(2).reused
    assert not fit(2, _set(training_set.samples, "other bars")).reused
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.json", "forecaster"]


@pytest.mark.parametrize("damage", ["record", "weights"])
def test_a_damaged_fit_is_done_again(
    damage: str, settings: Settings, training_set: TrainingSet, tmp_path: Path
) -> None:
    def fit() -> FitOutcome:
        return fit_candidate(settings, training_set, "lightgbm", "BTCUSDT", workdir=tmp_path)

    first = fit()
    victim = tmp_path / "fit.json" if damage == "record" else tmp_path / "forecaster/sigma.txt"
    victim.write_text("{")
    again = fit()
    assert not again.reused
    np.testing.assert_array_equal(_p(again), _p(first))
    assert fit().reused


def test_a_fit_that_broke_off_continues_where_it_was(
    make_settings: MakeSettings, training_set: TrainingSet, tmp_path: Path
) -> None:
    settings = make_settings(**{**TINY, "training": {**TINY["training"], "epochs": 4}})
    first: dict[int, object] = {}
    seen: dict[int, object] = {}

    def break_off(epoch: int, metrics: object) -> None:
        first[epoch] = metrics
        if epoch == 2:
            raise KeyboardInterrupt

    def fit(folder: str, hook: Callable[[int, object], None]) -> FitOutcome:
        return fit_candidate(
            settings,
            training_set,
            "transformer",
            POOLED,
            workdir=tmp_path / folder,
            on_epoch=hook,
        )

    with pytest.raises(KeyboardInterrupt):
        fit("broken", break_off)
    assert not (tmp_path / "broken" / "fit.json").exists()
    resumed = fit("broken", lambda epoch, metrics: seen.update({epoch: metrics}))
    whole = fit("whole", lambda epoch, metrics: None)
    # Finished epochs are told again as they were, seconds and all: they were not fitted again.
    assert list(seen) == [1, 2, 3, 4]
    assert {epoch: seen[epoch] for epoch in first} == first
    np.testing.assert_array_equal(_p(resumed), _p(whole))


def test_the_slices_follow_each_other_with_the_horizon_between(
    settings: Settings, training_set: TrainingSet, tmp_path: Path
) -> None:
    outcome = fit_candidate(settings, training_set, "lightgbm", POOLED, workdir=tmp_path)
    horizon_ms = settings.training.horizon * settings.market.timeframe_ms
    ordered = [outcome.boundaries[name] for name in ("train", "valid", "calib", "test")]
    for (_, end), (start, _) in itertools.pairwise(ordered):
        assert end + horizon_ms < start
    record = json.loads((tmp_path / "fit.json").read_text())
    assert record["boundaries"]["test"] == list(outcome.boundaries["test"])
    assert record["rows"]["calib"] == len(outcome.slice("calib"))
    assert record["seed"] == settings.training.seed


def test_a_key_selects_its_rows(training_set: TrainingSet) -> None:
    samples = training_set.samples
    eth = rows_of(samples, "ETHUSDT")
    assert set(eth.symbol) == {1}
    assert len(rows_of(samples, POOLED)) == len(samples) == 2 * len(eth)


def test_unlabelled_rows_and_standing_markets_are_left_out() -> None:
    samples = planted_samples(50, symbols=("BTCUSDT",))
    samples.y_up[-3:] = np.nan
    samples.fwd_ret[-3:] = np.nan
    samples.scale[0] = 0.0
    assert len(rows_of(samples, "BTCUSDT")) == 46


def test_refusals_name_the_value(
    settings: Settings, training_set: TrainingSet, tmp_path: Path
) -> None:
    with pytest.raises(TradewindError, match="DOGEUSDT") as caught:
        fit_candidate(settings, training_set, "lightgbm", "DOGEUSDT", workdir=tmp_path)
    assert caught.value.code is ErrorCode.UNKNOWN_SYMBOL
    with pytest.raises(TradewindError, match="epochs = 0"):
        fit_candidate(settings, training_set, "lightgbm", POOLED, epochs=0, workdir=tmp_path)
    with pytest.raises(TradewindError) as caught:
        fit_candidate(settings, _set(planted_samples(30)), "lightgbm", POOLED, workdir=tmp_path)
    assert caught.value.code is ErrorCode.NOT_ENOUGH_BARS
    assert list(tmp_path.iterdir()) == []


def test_a_fold_is_fitted_as_the_candidate_is(
    settings: Settings, training_set: TrainingSet, tmp_path: Path
) -> None:
    outcome = fit_candidate(settings, training_set, "transformer", POOLED, workdir=tmp_path)
    fold = fit_on(
        settings,
        "transformer",
        outcome.slice("train"),
        outcome.slice("valid"),
        seed=settings.training.seed,
    )
    test = outcome.slice("test")
    np.testing.assert_array_equal(fold.sample(test, n_samples=4, seeds=test.ts).p, _p(outcome))


def test_epochs_override_the_settings(settings: Settings) -> None:
    train, valid = in_time_order(planted_samples(100), 0.7, 0.3)
    seen: list[int] = []
    fit_on(
        settings,
        "transformer",
        train,
        valid,
        seed=1,
        epochs=1,
        on_epoch=lambda epoch, metrics: seen.append(epoch),
    )
    assert seen == [1]
