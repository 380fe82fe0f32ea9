"""What every model family promises, asked of each of them in the same words."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.support.samples import in_time_order, planted_samples, shuffled
from tests.support.tiny import tiny_forecaster
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import Forecaster, IntArray, RawForecast, Samples
from tradewind.models.families import FAMILIES, create, load_forecaster
from tradewind.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
S = 12


@functools.cache
def _slices() -> tuple[Samples, Samples, Samples]:
    train, valid, test = in_time_order(planted_samples(1100), 0.6, 0.2, 0.2)
    return train, valid, test


@functools.cache
def _fitted(family: str) -> Forecaster:
    train, valid, _ = _slices()
    forecaster = tiny_forecaster(family)
    forecaster.fit(train, valid, seed=3)
    return forecaster


def _seeds(samples: Samples) -> IntArray:
    return (samples.ts // 1000 + samples.symbol).astype(np.int64)


def _sample(forecaster: Forecaster, samples: Samples) -> RawForecast:
    return forecaster.sample(samples, n_samples=S, seeds=_seeds(samples))


def _assert_same(a: RawForecast, b: RawForecast, *, within: float) -> None:
    for name in ("p", "mu", "sigma"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=within)


def _auc(forecaster: Forecaster, samples: Samples) -> float:
    return float(roc_auc_score(samples.y_up, _sample(forecaster, samples).p.mean(axis=0)))


@pytest.mark.parametrize("family", sorted(FAMILIES))
class TestForecaster:
    """The contract of `tradewind.models.base.Forecaster`."""

    def test_is_created_from_settings(self, family: str) -> None:
        forecaster = create(family, Settings())
        assert forecaster.family == family

    def test_passes_have_the_right_shapes_and_ranges(self, family: str) -> None:
        test = _slices()[2].subset(np.arange(50))
        raw = _sample(_fitted(family), test)
        passes = raw.p.shape[0]
        assert passes >= 2
        assert raw.p.shape == raw.mu.shape == raw.sigma.shape == (passes, 50)
        assert ((raw.p > 0) & (raw.p < 1)).all()
        assert np.isfinite(raw.mu).all()
        assert (raw.sigma > 0).all()

    def test_passes_differ(self, family: str) -> None:
        raw = _sample(_fitted(family), _slices()[2].subset(np.arange(50)))
        assert (raw.p.std(axis=0) > 0).all()
        assert (raw.mu.std(axis=0) > 0).any()

    def test_the_same_question_has_the_same_answer(self, family: str) -> None:
        test = _slices()[2].subset(np.arange(20))
        _assert_same(_sample(_fitted(family), test), _sample(_fitted(family), test), within=0)

    def test_a_row_alone_answers_as_in_a_batch(self, family: str) -> None:
        test = _slices()[2].subset(np.arange(40))
        batch = _sample(_fitted(family), test)
        for row in (0, 7, 39):
            alone = _sample(_fitted(family), test.subset(np.array([row])))
            picked = RawForecast(batch.p[:, [row]], batch.mu[:, [row]], batch.sigma[:, [row]])
            _assert_same(alone, picked, within=1e-6)

    def test_two_fits_give_the_same_weights(self, family: str, tmp_path: Path) -> None:
        train, valid, _ = _slices()
        again = tiny_forecaster(family)
        again.fit(train, valid, seed=3)
        _fitted(family).save(tmp_path / "first")
        again.save(tmp_path / "second")
        names = sorted(path.name for path in (tmp_path / "first").iterdir())
        assert names == sorted(path.name for path in (tmp_path / "second").iterdir())
        for name in names:
            first = (tmp_path / "first" / name).read_bytes()
            assert first == (tmp_path / "second" / name).read_bytes(), name

    def test_another_seed_gives_other_weights(self, family: str) -> None:
        train, valid, test = _slices()
        other = tiny_forecaster(family)
        other.fit(train, valid, seed=4)
        part = test.subset(np.arange(20))
        ours, theirs = _sample(_fitted(family), part), _sample(other, part)
        assert not np.allclose(ours.p.mean(axis=0), theirs.p.mean(axis=0), rtol=0, atol=1e-9)

    def test_a_clean_process_loads_it_and_agrees(self, family: str, tmp_path: Path) -> None:
        _fitted(family).save(tmp_path / "model")
        script = (
            "import sys, numpy as np\n"
            "from pathlib import Path\n"
            "from tests.support.samples import in_time_order, planted_samples\n"
            "from tradewind.models.families import load_forecaster\n"
            "family, folder = sys.argv[1], Path(sys.argv[2])\n"
            "test = in_time_order(planted_samples(1100), 0.6, 0.2, 0.2)[2]\n"
            "test = test.subset(np.arange(30))\n"
            "seeds = (test.ts // 1000 + test.symbol).astype(np.int64)\n"
            f"raw = load_forecaster(family, folder).sample(test, n_samples={S}, seeds=seeds)\n"
            "np.savez(folder.parent / 'raw.npz', p=raw.p, mu=raw.mu, sigma=raw.sigma)\n"
        )
        command = [sys.executable, "-c", script, family, str(tmp_path / "model")]
        subprocess.run(command, check=True, cwd=ROOT, timeout=120)
        there = np.load(tmp_path / "raw.npz")
        here = _sample(_fitted(family), _slices()[2].subset(np.arange(30)))
        _assert_same(here, RawForecast(there["p"], there["mu"], there["sigma"]), within=1e-9)

    def test_needs_no_pickle(self, family: str, tmp_path: Path) -> None:
        _fitted(family).save(tmp_path)
        suffixes = {path.suffix for path in tmp_path.iterdir()}
        assert suffixes <= {".json", ".txt", ".ubj", ".safetensors"}

    def test_refuses_nan_where_none_is_allowed(self, family: str) -> None:
        test = _slices()[2].subset(np.arange(5))
        wide = test.wide.copy()
        wide[2, 1] = np.nan
        rows = tuple(part.copy() for part in test.deep.rows)
        rows[0][:] = np.nan
        broken = replace(test, wide=wide, deep=replace(test.deep, rows=rows))
        with pytest.raises(TradewindError) as caught:
            _sample(_fitted(family), broken)
        assert caught.value.code is ErrorCode.BAD_INPUT
        with pytest.raises(TradewindError) as caught:
            tiny_forecaster(family).fit(broken, test, seed=1)
        assert caught.value.code is ErrorCode.BAD_INPUT

    def test_refuses_unknown_labels(self, family: str) -> None:
        train, valid, _ = _slices()
        unknown = replace(train, fwd_ret=np.where(np.arange(len(train)) == 9, np.nan, 0.1))
        with pytest.raises(TradewindError, match=r"fwd_ret.*1 of"):
            tiny_forecaster(family).fit(unknown, valid, seed=1)

    def test_refuses_an_empty_slice(self, family: str) -> None:
        train, valid, _ = _slices()
        with pytest.raises(TradewindError) as caught:
            tiny_forecaster(family).fit(train, valid.subset(np.arange(0)), seed=1)
        assert caught.value.code is ErrorCode.NOT_ENOUGH_BARS

    def test_learns_a_planted_signal_out_of_sample(self, family: str) -> None:
        # Scaled return x0 + N(0, 1): the best possible AUC is 0.75.
        assert _auc(_fitted(family), _slices()[2]) > 0.70

    def test_predicts_the_return_and_its_spread(self, family: str) -> None:
        test = _slices()[2]
        raw = _sample(_fitted(family), test)
        residual = (test.fwd_ret - raw.mu.mean(axis=0)) / test.scale
        assert residual.std() < 0.85 * (test.fwd_ret / test.scale).std()
        assert np.median(raw.sigma.mean(axis=0) / test.scale) == pytest.approx(1, abs=0.15)

    def test_shuffled_labels_teach_nothing(self, family: str) -> None:
        train, valid, test = _slices()
        forecaster = tiny_forecaster(family)
        forecaster.fit(shuffled(train), shuffled(valid), seed=3)
        # 440 test rows: the standard error of an AUC of 0.5 is 0.028.
        assert abs(_auc(forecaster, test) - 0.5) < 0.1

    def test_tells_of_its_progress(self, family: str) -> None:
        train, valid, _ = _slices()
        seen: list[int] = []
        report = tiny_forecaster(family).fit(
            train, valid, seed=3, on_epoch=lambda epoch, metrics: seen.append(epoch)
        )
        assert seen == list(range(1, report.epochs + 1))
        assert 1 <= report.best_epoch <= report.epochs
        assert np.isfinite(list(report.metrics.values())).all()

    def test_refuses_a_foreign_or_damaged_folder(self, family: str, tmp_path: Path) -> None:
        with pytest.raises(TradewindError) as caught:
            load_forecaster(family, tmp_path / "nothing")
        assert caught.value.code is ErrorCode.MODEL_UNUSABLE
        _fitted(family).save(tmp_path / "model")
        weights = next(p for p in sorted((tmp_path / "model").iterdir()) if p.suffix != ".json")
        weights.write_bytes(weights.read_bytes()[:40])
        with pytest.raises(TradewindError) as caught:
            load_forecaster(family, tmp_path / "model")
        assert caught.value.code is ErrorCode.MODEL_UNUSABLE

    def test_refuses_to_predict_unfitted(self, family: str) -> None:
        with pytest.raises(TradewindError) as caught:
            _sample(tiny_forecaster(family), _slices()[2])
        assert caught.value.code is ErrorCode.MODEL_UNUSABLE


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(TradewindError, match="'prophet' is not registered"):
        create("prophet", Settings())
