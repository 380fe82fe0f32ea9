"""What every model family promises, asked of each of them in the same words.

A family that is registered is in the suite; `tests.support.tiny` holds its small sizes.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.support.samples import NULLABLE, WIDE_NAMES, in_time_order, planted_samples, shuffled
from tests.support.tiny import tiny_forecaster
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import (
    CONFIG_FILE,
    FitReport,
    Forecaster,
    IntArray,
    RawForecast,
    Samples,
)
from tradewind.models.families import FAMILIES, FAMILY_SECTIONS, create, load_forecaster
from tradewind.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
S = 12
ROWS = 800
KILLED_AT = 2
ONE_STEP = {"training": {"epochs": 1}, "boosted": {"max_rounds": 1}}
"""Sizes with which there is nothing to stop early."""

ELSEWHERE = """
import json, os, signal, sys
from pathlib import Path
import numpy as np
from tests.models.test_families import KILLED_AT, sample, slices
from tests.support.tiny import tiny_forecaster
from tradewind.models.families import forecaster_class, load_forecaster

def answer_and_begin_a_fit(family, folder):
    train, valid, test = slices()
    raw = sample(load_forecaster(family, folder / "model"), test.subset(np.arange(30)))
    np.savez(folder / "raw.npz", p=raw.p, mu=raw.mu, sigma=raw.sigma)
    told = []

    def on_epoch(epoch, metrics):
        told.append([epoch, metrics])
        (folder / "told.json").write_text(json.dumps(told))
        if epoch == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)

    tiny_forecaster(family).fit(
        train, valid, seed=3, on_epoch=on_epoch, checkpoint_dir=folder / "checkpoint"
    )

folders = [Path(text) for text in sys.argv[1:]]
for folder in folders:  # the libraries are loaded once, and each family has its own process
    forecaster_class(folder.name)
for folder in folders:
    child = os.fork()
    if child == 0:
        answer_and_begin_a_fit(folder.name, folder)
        os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
        sys.exit(f"{folder.name} was not killed in the midst of its fit")
"""


@functools.cache
def slices() -> tuple[Samples, Samples, Samples]:
    """Return training, validation and test rows of two symbols."""
    train, valid, test = in_time_order(planted_samples(ROWS), 0.6, 0.2, 0.2)
    return train, valid, test


@functools.cache
def _fitted(family: str, seed: int = 3) -> tuple[Forecaster, FitReport]:
    train, valid, _ = slices()
    forecaster = tiny_forecaster(family)
    return forecaster, forecaster.fit(train, valid, seed=seed)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where clean processes have read each family's model, answered and begun a fit.

    A family's folder holds the model, that process's answers (raw.npz), what it told of its
    fit (told.json) and the checkpoint that it left when it was killed in the midst of it.
    """
    root = tmp_path_factory.mktemp("elsewhere")
    folders = [root / family for family in sorted(FAMILIES)]
    for folder in folders:
        _fitted(folder.name)[0].save(folder / "model")
    command = [sys.executable, "-c", ELSEWHERE, *map(str, folders)]
    done = subprocess.run(command, cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root


def sample(forecaster: Forecaster, samples: Samples) -> RawForecast:
    """Return passes whose seeds follow from symbol and bar alone."""
    names = [samples.symbols[code] for code in samples.symbol]
    seeds = samples.ts // 1000 + np.array([ord(name[0]) for name in names])
    return forecaster.sample(samples, n_samples=S, seeds=seeds.astype(np.int64))


def _assert_same(a: RawForecast, b: RawForecast, *, within: float = 0) -> None:
    for name in ("p", "mu", "sigma"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=within)


def _picked(raw: RawForecast, rows: IntArray) -> RawForecast:
    return RawForecast(raw.p[:, rows], raw.mu[:, rows], raw.sigma[:, rows])


def _first(rows: int) -> Samples:
    return slices()[2].subset(np.arange(rows))


def _auc(forecaster: Forecaster, samples: Samples) -> float:
    return float(roc_auc_score(samples.y_up, sample(forecaster, samples).p.mean(axis=0)))


def _bytes(forecaster: Forecaster, folder: Path) -> dict[str, bytes]:
    """Return every saved file by name."""
    forecaster.save(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _kept(report: FitReport) -> float:
    """Return at which step a fit stopped: trees of a booster, or the epoch kept."""
    return report.metrics.get("rounds", float(report.best_epoch))


def _flipped(samples: Samples) -> Samples:
    """Return the rows with labels that contradict what the features say."""
    return replace(samples, y_up=1 - samples.y_up, fwd_ret=-samples.fwd_ret)


def _with_deep(samples: Samples, change: Callable[[np.ndarray, int], None]) -> Samples:
    """Return the samples with copies of their deep bars, changed in place by symbol code."""
    rows = tuple(part.copy() for part in samples.deep.rows)
    for code, part in enumerate(rows):
        change(part, code)
    return replace(samples, deep=replace(samples.deep, rows=rows))


def _refused(ask: Callable[[], object]) -> TradewindError:
    with pytest.raises(TradewindError) as caught:
        ask()
    return caught.value


@pytest.mark.parametrize("family", sorted(FAMILIES))
class TestForecaster:
    """The contract of `tradewind.models.base.Forecaster`."""

    def test_is_created_from_settings(self, family: str) -> None:
        forecaster = create(family, Settings())
        assert forecaster.family == family
        assert FAMILY_SECTIONS[family]

    def test_passes_have_the_right_shapes_and_ranges(self, family: str) -> None:
        raw = sample(_fitted(family)[0], _first(50))
        passes = raw.p.shape[0]
        assert passes >= 2
        assert raw.p.shape == raw.mu.shape == raw.sigma.shape == (passes, 50)
        assert ((raw.p > 0) & (raw.p < 1)).all()
        assert np.isfinite(raw.mu).all()
        assert np.isfinite(raw.sigma).all()
        assert (raw.sigma > 0).all()

    def test_probabilities_stay_inside_at_extreme_inputs(self, family: str) -> None:
        rows = _first(20)
        wild = _with_deep(rows, lambda part, code: np.multiply(part, 1e6, out=part))
        raw = sample(_fitted(family)[0], replace(wild, wide=np.nan_to_num(rows.wide) * 1e6))
        assert ((raw.p > 0) & (raw.p < 1)).all()
        assert np.isfinite(raw.mu).all()
        assert (np.isfinite(raw.sigma) & (raw.sigma > 0)).all()

    def test_passes_differ(self, family: str) -> None:
        raw = sample(_fitted(family)[0], _first(50))
        assert (raw.p.std(axis=0) > 0).all()
        assert (raw.mu.std(axis=0) > 0).any()

    def test_the_same_question_has_the_same_answer(self, family: str) -> None:
        forecaster = _fitted(family)[0]
        _assert_same(sample(forecaster, _first(20)), sample(forecaster, _first(20)))

    def test_a_row_alone_answers_as_in_a_batch(self, family: str) -> None:
        forecaster, batch = _fitted(family)[0], _first(40)
        together = sample(forecaster, batch)
        for row in (0, 7, 39):
            alone = sample(forecaster, batch.subset(np.array([row])))
            _assert_same(alone, _picked(together, np.array([row])), within=1e-6)

    def test_two_fits_give_the_same_weights(self, family: str, tmp_path: Path) -> None:
        train, valid, _ = slices()
        again = tiny_forecaster(family)
        seen: list[int] = []
        report = again.fit(train, valid, seed=3, on_epoch=lambda epoch, _: seen.append(epoch))
        first = _bytes(_fitted(family)[0], tmp_path / "first")
        assert _bytes(again, tmp_path / "second") == first
        # And it tells of its progress.
        assert seen == list(range(1, report.epochs + 1))
        assert 1 <= report.best_epoch <= report.epochs
        assert np.isfinite(list(report.metrics.values())).all()

    def test_another_seed_gives_other_weights(self, family: str) -> None:
        part = _first(20)
        ours, theirs = (sample(_fitted(family, seed)[0], part) for seed in (3, 4))
        assert not np.allclose(ours.p.mean(axis=0), theirs.p.mean(axis=0), rtol=0, atol=1e-9)

    def test_a_clean_process_answers_with_the_same_bytes(
        self, family: str, elsewhere: Path
    ) -> None:
        with np.load(elsewhere / family / "raw.npz") as there:
            here = sample(_fitted(family)[0], _first(30))
            for name in ("p", "mu", "sigma"):
                assert there[name].tobytes() == getattr(here, name).tobytes(), name

    def test_a_killed_fit_continues_to_the_same_weights(
        self, family: str, elsewhere: Path, tmp_path: Path
    ) -> None:
        train, valid, _ = slices()
        shutil.copytree(elsewhere / family / "checkpoint", tmp_path / "checkpoint")
        told: list[list[object]] = []

        def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            told.append([epoch, dict(metrics)])

        resumed = tiny_forecaster(family)
        resumed.fit(train, valid, seed=3, on_epoch=on_epoch, checkpoint_dir=tmp_path / "checkpoint")
        # What was told before the kill is told again as it was.
        before = json.loads((elsewhere / family / "told.json").read_text())
        assert len(before) == KILLED_AT
        assert told[:KILLED_AT] == before
        whole = _bytes(_fitted(family)[0], tmp_path / "whole")
        assert _bytes(resumed, tmp_path / "resumed") == whole

    def test_a_checkpoint_of_another_fit_is_not_continued(
        self, family: str, elsewhere: Path, tmp_path: Path
    ) -> None:
        train, valid, _ = slices()
        shutil.copytree(elsewhere / family / "checkpoint", tmp_path / "checkpoint")
        other = tiny_forecaster(family)
        other.fit(train, valid, seed=4, checkpoint_dir=tmp_path / "checkpoint")
        fresh = _bytes(_fitted(family, 4)[0], tmp_path / "fresh")
        assert _bytes(other, tmp_path / "other") == fresh

    def test_validation_rows_stop_the_fit(self, family: str) -> None:
        train, valid, _ = slices()
        report = tiny_forecaster(family).fit(train, _flipped(valid), seed=3)
        assert _kept(report) < _kept(_fitted(family)[1])

    def test_nothing_but_stopping_is_learnt_from_validation_rows(
        self, family: str, tmp_path: Path
    ) -> None:
        train, valid, _ = slices()
        found = []
        for name, rows in (("plain", valid), ("flipped", _flipped(valid))):
            forecaster = tiny_forecaster(family, **ONE_STEP)
            forecaster.fit(train, rows, seed=3)
            found.append(_bytes(forecaster, tmp_path / name))
        assert found[0] == found[1]

    def test_a_fit_sees_nothing_after_its_rows(self, family: str, tmp_path: Path) -> None:
        train, valid, _ = slices()

        def later(part: np.ndarray, code: int) -> None:
            part[valid.deep.end[valid.deep.symbol == code].max() + 1 :] = 1e3

        changed = _with_deep(valid, later).deep.rows
        found = []
        for rows in (train.deep.rows, changed):
            forecaster = tiny_forecaster(family, **ONE_STEP)
            past = [replace(part, deep=replace(part.deep, rows=rows)) for part in (train, valid)]
            forecaster.fit(*past, seed=3)
            found.append(_bytes(forecaster, tmp_path / str(len(found))))
        assert found[0] == found[1]

    def test_an_answer_sees_nothing_after_its_bar(self, family: str) -> None:
        rows = _first(20)

        def later(part: np.ndarray, code: int) -> None:
            part[rows.deep.end[rows.deep.symbol == code].max() + 1 :] = np.nan

        forecaster = _fitted(family)[0]
        _assert_same(sample(forecaster, _with_deep(rows, later)), sample(forecaster, rows))

    def test_needs_no_pickle(self, family: str, tmp_path: Path) -> None:
        names = _bytes(_fitted(family)[0], tmp_path)
        assert {Path(name).suffix for name in names} <= {".json", ".txt", ".ubj", ".safetensors"}

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_refuses_nan_and_inf_naming_the_column(self, family: str, bad: float) -> None:
        forecaster, rows = _fitted(family)[0], _first(5)
        if forecaster.reads_wide:
            wide = rows.wide.copy()
            wide[2, 1] = bad
            broken, named = replace(rows, wide=wide), f"{WIDE_NAMES[1]} .* in 1 of 5"
        else:
            end = rows.deep.end[2]
            hit = int(rows.deep.symbol[2])

            def spoil(part: np.ndarray, code: int) -> None:
                if code == hit:
                    part[end, 3] = bad

            broken, named = _with_deep(rows, spoil), "feature 3 .* of 5"
        for ask in (
            lambda: sample(forecaster, broken),
            lambda: tiny_forecaster(family).fit(broken, slices()[1], seed=1),
        ):
            with pytest.raises(TradewindError, match=named) as caught:
                ask()
            assert caught.value.code is ErrorCode.BAD_INPUT

    def test_a_column_that_is_not_collected_may_be_unknown_but_not_infinite(
        self, family: str
    ) -> None:
        forecaster, rows = _fitted(family)[0], _first(4)
        wide = rows.wide.copy()
        column = WIDE_NAMES.index(NULLABLE[0])
        wide[:, column] = np.nan
        assert np.isfinite(sample(forecaster, replace(rows, wide=wide)).p).all()
        if forecaster.reads_wide:
            wide[1, column] = np.inf
            refusal = _refused(lambda: sample(forecaster, replace(rows, wide=wide)))
            assert NULLABLE[0] in refusal.detail

    def test_refuses_unknown_labels(self, family: str) -> None:
        train, valid, _ = slices()
        unknown = replace(train, fwd_ret=np.where(np.arange(len(train)) == 9, np.nan, 0.1))
        with pytest.raises(TradewindError, match=r"fwd_ret.*1 of"):
            tiny_forecaster(family).fit(unknown, valid, seed=1)

    def test_refuses_an_empty_slice(self, family: str) -> None:
        train, valid, _ = slices()
        empty = valid.subset(np.arange(0))
        refusal = _refused(lambda: tiny_forecaster(family).fit(train, empty, seed=1))
        assert refusal.code is ErrorCode.NOT_ENOUGH_BARS

    def test_learns_a_planted_signal_out_of_sample(self, family: str) -> None:
        # Scaled return x0 + N(0, 1): the best possible AUC is 0.75.
        assert _auc(_fitted(family)[0], slices()[2]) > 0.70

    def test_predicts_the_return_and_its_spread(self, family: str) -> None:
        test = slices()[2]
        raw = sample(_fitted(family)[0], test)
        residual = (test.fwd_ret - raw.mu.mean(axis=0)) / test.scale
        assert residual.std() < 0.85 * (test.fwd_ret / test.scale).std()
        assert np.median(raw.sigma.mean(axis=0) / test.scale) == pytest.approx(1, abs=0.2)

    def test_shuffled_labels_teach_nothing(self, family: str) -> None:
        train, valid, test = slices()
        forecaster = tiny_forecaster(family)
        forecaster.fit(shuffled(train), shuffled(valid), seed=3)
        # 320 test rows: the standard error of an AUC of 0.5 is 0.032.
        assert abs(_auc(forecaster, test) - 0.5) < 0.1

    def test_a_pooled_model_answers_for_a_symbol_alone(self, family: str) -> None:
        rows = _first(20)
        own = np.flatnonzero(rows.symbol == 1)
        alone = rows.subset(own)
        alone = replace(
            alone,
            symbols=(rows.symbols[1],),
            symbol=np.zeros_like(alone.symbol),
            deep=replace(
                alone.deep, rows=(rows.deep.rows[1],), symbol=np.zeros_like(alone.deep.symbol)
            ),
        )
        together = _picked(sample(_fitted(family)[0], rows), own)
        _assert_same(sample(_fitted(family)[0], alone), together, within=1e-6)

    def test_a_symbol_of_its_own_is_enough_to_learn_from(self, family: str) -> None:
        train, valid, test = (part.subset(part.symbol == 1) for part in slices())
        forecaster = tiny_forecaster(family)
        forecaster.fit(train, valid, seed=3)
        assert _auc(forecaster, test) > 0.65

    def test_refuses_a_foreign_or_damaged_folder(self, family: str, tmp_path: Path) -> None:
        assert _refused(lambda: load_forecaster(family, tmp_path)).code is ErrorCode.MODEL_UNUSABLE
        _fitted(family)[0].save(tmp_path)
        weights = next(path for path in sorted(tmp_path.iterdir()) if path.suffix != ".json")
        whole = weights.read_bytes()
        for left in (0, 40, len(whole) // 2):
            weights.write_bytes(whole[:left])
            refusal = _refused(lambda: load_forecaster(family, tmp_path))
            assert refusal.code is ErrorCode.MODEL_UNUSABLE, left
        weights.write_bytes(whole)
        config = json.loads((tmp_path / CONFIG_FILE).read_text())
        (tmp_path / CONFIG_FILE).write_text(json.dumps({**config, "family": "prophet"}))
        refusal = _refused(lambda: load_forecaster(family, tmp_path))
        assert refusal.code is ErrorCode.MODEL_UNUSABLE
        assert "'prophet'" in refusal.detail

    def test_refuses_to_predict_unfitted(self, family: str) -> None:
        refusal = _refused(lambda: sample(tiny_forecaster(family), slices()[2]))
        assert refusal.code is ErrorCode.MODEL_UNUSABLE


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(TradewindError, match="'prophet' is not registered"):
        create("prophet", Settings())
