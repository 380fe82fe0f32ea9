"""Evaluation and gates: honest on noise, awake to a signal, strict about the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.samples import planted_samples, shuffled
from tradewind.contracts import POOLED
from tradewind.errors import TradewindError
from tradewind.market.store import BarStore
from tradewind.models._lightgbm import LightGBMForecaster
from tradewind.models.base import IntArray, RawForecast, Samples
from tradewind.models.bundle import BundleMeta, ModelBundle
from tradewind.models.dataset import TrainingSet, build_training_set
from tradewind.models.evaluation import EvaluationReport, calibrate_candidate, evaluate
from tradewind.models.gates import GATE_NAMES, Gate, GateReport, check_gates
from tradewind.models.metric_table import known
from tradewind.models.pictures import save_loss_curve, save_pictures
from tradewind.models.training import fit_candidate
from tradewind.models.walk_forward import pool, run_walk_forward
from tradewind.settings import MS_PER_DAY, Settings, load_settings

ROWS = 3_000  # per symbol: 31 days of 15-minute bars


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(
        home=tmp_path_factory.mktemp("home"),
        profile="quick",
        training={"horizon": 4, "bag": 2, "fold_days": 4, "walk_forward_folds": 3, "seed": 3},
        calibration={"min_gate_rows": 1000},
    )


@pytest.fixture(scope="module")
def report(small: Settings, tmp_path_factory: pytest.TempPathFactory) -> EvaluationReport:
    """A planted signal, fitted, walked forward and evaluated once for every test here."""
    samples = planted_samples(ROWS, strength=1.0)
    return _report(small, samples, tmp_path_factory.mktemp("work"))


def _training_set(samples: Samples) -> TrainingSet:
    names = ("ret_1", *samples.wide_names[1:])
    return TrainingSet(
        samples=replace(samples, wide_names=names),
        feature_version="test",
        data_fingerprint="test",
        start_ms=int(samples.ts[0]),
        end_ms=int(samples.ts[-1]),
        timeframe="15m",
        horizon=4,
    )


def _bundle(settings: Settings, data: TrainingSet, work: Path) -> ModelBundle:
    fit = fit_candidate(settings, data, "lightgbm", POOLED, workdir=work)
    found = calibrate_candidate(settings, data, fit.forecaster, POOLED)
    meta = BundleMeta(
        family="lightgbm",
        key=POOLED,
        symbols=data.samples.symbols,
        timeframe="15m",
        horizon=data.horizon,
        window=data.samples.deep.width,
        feature_version="test",
        wide_names=data.samples.wide_names,
        data_fingerprint="test",
        train_start_ms=fit.boundaries["train"][0],
        train_end_ms=fit.boundaries["train"][1],
        data_end_ms=data.end_ms,
        seed=fit.seed,
        epochs=1,
        created_ms=0,
        skill=found.skill,
        base_rate=found.base_rate,
        gates="pending",
    )
    return ModelBundle(meta, fit.forecaster, found.choice.calibrator, found.reference)


class _Failing(LightGBMForecaster):
    """Answers NaN for every tenth row."""

    def sample(self, samples: Samples, *, n_samples: int, seeds: IntArray) -> RawForecast:
        raw = super().sample(samples, n_samples=n_samples, seeds=seeds)
        lost = np.arange(len(samples)) % 10 == 0
        return RawForecast(*(np.where(lost, np.nan, part) for part in (raw.p, raw.mu, raw.sigma)))


def _report(settings: Settings, samples: Samples, work: Path) -> EvaluationReport:
    return _evaluated(settings, _training_set(samples), work)


def _evaluated(settings: Settings, data: TrainingSet, work: Path) -> EvaluationReport:
    rows = run_walk_forward(settings, data, "lightgbm", POOLED, workdir=work)
    return evaluate(settings, data, _bundle(settings, data, work), POOLED, rows)


def test_shuffled_labels_give_a_coin_flip_and_fail_the_skill_gate(
    small: Settings, tmp_path: Path
) -> None:
    samples = shuffled(planted_samples(ROWS, strength=1.0), seed=11)
    report = _report(small, samples, tmp_path)
    assert report.figures["auc_low"] < 0.5 < report.figures["auc_high"]
    assert abs(report.figures["wf_auc"] - 0.5) < 0.04
    assert report.figures["log_loss_minus_base_rate_high"] > 0
    skill = check_gates(small, report, None).gates[0]
    assert (skill.name, skill.passed) == ("skill", False)


def test_a_planted_signal_is_found_with_its_baselines_and_pictures(
    small: Settings, report: EvaluationReport, tmp_path: Path
) -> None:
    figures = report.figures
    assert figures["auc_low"] > 0.65
    assert figures["log_loss"] < figures["log_loss_base_rate"]
    assert figures["log_loss_minus_base_rate_high"] < 0
    assert figures["auc_logistic"] > 0.65
    assert figures["auc_base_rate"] == 0.5
    assert set(figures["per_symbol"]) == set(report.test.symbols)
    assert len(figures["error_by_uncertainty_decile"]) == 10
    json.dumps(report.to_json(), allow_nan=False)
    skill = check_gates(small, report, None).gates[0]
    assert skill.passed
    pictures = save_pictures(report, tmp_path / "pictures")
    assert {path.stem for path in pictures} >= {"reliability", "roc", "equity", "folds"}
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in pictures)


def test_every_figure_that_a_run_logs_is_in_the_table(report: EvaluationReport) -> None:
    logged = report.metrics() | report.symbol_metrics()
    assert [name for name in logged if not known(name)] == []
    assert "wf_log_loss_base_rate" in logged
    assert {name.split("/")[0] for name in report.symbol_metrics()} == set(report.test.symbols)


def test_losses_become_a_picture_and_trees_have_none(tmp_path: Path) -> None:
    series = {"train_loss": [(1, 1.5), (2, 1.4)], "valid_loss": [(1, 1.6), (2, 1.55)]}
    picture = save_loss_curve(series, tmp_path)
    assert picture == tmp_path / "loss.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert save_loss_curve({"valid_log_loss": [(1, 0.7)]}, tmp_path / "trees") is None


def test_walk_forward_never_trains_on_what_it_predicts_and_is_stored(
    small: Settings, tmp_path: Path
) -> None:
    data = _training_set(planted_samples(ROWS))
    seen: list[int] = []
    first = run_walk_forward(
        small, data, "lightgbm", POOLED, workdir=tmp_path, on_fold=lambda n, _: seen.append(n)
    )
    assert seen == [1, 2, 3]
    assert len(np.unique(first.fold)) == 3
    assert all(
        first.ts[first.fold == k].max() < first.ts[first.fold == k + 1].min() for k in (1, 2)
    )
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "folds").glob("*.npz")}
    assert len(stored) == 3
    again = run_walk_forward(small, data, "lightgbm", POOLED, workdir=tmp_path)
    assert np.array_equal(first.p_up, again.p_up)
    assert {path: path.stat().st_mtime_ns for path in stored} == stored


def test_gates_refuse_too_few_rows_a_worse_candidate_and_nan(
    small: Settings, report: EvaluationReport
) -> None:
    strict = small.model_copy(
        update={"calibration": small.calibration.model_copy(update={"min_gate_rows": 10**6})}
    )
    few = {gate.name: gate for gate in check_gates(strict, report, None).gates}
    assert not few["ece"].passed
    assert "1000000" in few["ece"].text
    oracle = np.where(report.test.y_up == 1, 0.95, 0.05)
    worse = {gate.name: gate for gate in check_gates(small, report, oracle).gates}
    assert not worse["champion"].passed
    equal = {gate.name: gate for gate in check_gates(small, report, report.forecast.p_up).gates}
    assert equal["champion"].passed
    broken = replace(report, forecast=replace(report.forecast, mu=report.forecast.mu * np.nan))
    finite = check_gates(small, broken, None).gates[-1]
    assert (finite.name, finite.passed) == ("finite", False)


def test_rows_that_the_champion_learnt_from_are_no_comparison(
    small: Settings, report: EvaluationReport
) -> None:
    """A champion that knows by heart what it was fitted on, and is no better after it."""
    ts, y = report.test.ts, report.test.y_up
    after = int(ts.max()) - 3 * MS_PER_DAY
    by_heart = np.where(ts < after, np.where(y == 1, 0.95, 0.05), report.forecast.p_up)

    def gate(settings: Settings, since_ms: int) -> Gate:
        found = check_gates(settings, report, by_heart, champion_unfitted_from_ms=since_ms)
        return {item.name: item for item in found.gates}["champion"]

    few = small.gates.model_copy(update={"promotion_min_rows": 30, "promotion_min_days": 3})
    easy = small.model_copy(update={"gates": few})
    assert not gate(easy, 0).passed, "what was learnt by heart beats any candidate"
    fair = gate(easy, after)
    assert fair.passed
    assert fair.value == 0
    left = int((ts >= after).sum())
    assert f"{left} of {len(ts)} test rows" in fair.text
    none = gate(easy, int(ts.max()) + 1)
    assert (none.passed, none.value) == (True, None)
    assert "0 of" in none.text
    assert "not compared with the champion" in none.text


def test_an_over_confident_candidate_fails_the_ece_gate(
    small: Settings, report: EvaluationReport
) -> None:
    rows = report.out_of_sample
    assert rows is not None
    loud = replace(report, out_of_sample=replace(rows, p_up=np.where(rows.p_up > 0.5, 0.99, 0.01)))
    ece = check_gates(small, loud, None).gates[1]
    assert ece.value is not None
    assert not ece.passed
    assert ece.value > 0.05


def test_a_report_passes_only_if_every_gate_does() -> None:
    good = Gate("a", True, 1.0, 0.0, "fine")
    report = GateReport((good,)).with_gate(Gate("b", False, None, None, "it broke"))
    assert (report.passed, report.reasons) == (False, ["it broke"])
    assert len(GATE_NAMES) == len(set(GATE_NAMES)) == 7


def test_the_ece_gate_takes_the_familys_pooled_rows_where_one_symbol_has_too_few(
    small: Settings, report: EvaluationReport
) -> None:
    rows = report.out_of_sample
    assert rows is not None
    needed = 2 * len(rows.ts)
    strict = small.model_copy(
        update={"calibration": small.calibration.model_copy(update={"min_gate_rows": needed})}
    )
    assert not check_gates(strict, report, None).gates[1].passed
    ece = check_gates(strict, report, None, pooled=pool([rows, rows])).gates[1]
    assert ece.passed
    assert str(needed) in ece.text


def test_a_figure_without_a_value_is_none_in_json(report: EvaluationReport) -> None:
    broken = replace(report, figures={**report.figures, "auc": float("nan"), "inner": [np.inf]})
    assert broken.to_json()["auc"] is None
    assert broken.to_json()["inner"] == [None]
    assert broken.metrics()["auc"] is None


def test_uninformative_uncertainty_fails_its_gate(
    small: Settings, report: EvaluationReport
) -> None:
    blind = np.random.default_rng(0).permutation(report.forecast.uncertainty)
    mute = replace(report, forecast=replace(report.forecast, uncertainty=blind))
    by_name = {gate.name: gate.passed for gate in check_gates(small, mute, None).gates}
    assert not by_name["uncertainty"]
    with pytest.raises(TradewindError, match="bad_input"):
        check_gates(small, report, report.forecast.p_up[:-1])


def test_a_model_that_answers_nan_is_judged_shown_and_refused(
    small: Settings, report: EvaluationReport, tmp_path: Path
) -> None:
    data = _training_set(planted_samples(ROWS, strength=1.0))
    sound = _bundle(small, data, tmp_path)
    sound.forecaster.save(tmp_path / "copy")
    broken = replace(sound, forecaster=_Failing.load(tmp_path / "copy"))
    found = evaluate(small, data, broken, POOLED, report.out_of_sample)
    json.dumps(found.to_json(), allow_nan=False)
    assert save_pictures(found, tmp_path / "pictures")
    verdicts = {gate.name: gate for gate in check_gates(small, found, None).gates}
    assert not verdicts["finite"].passed
    assert verdicts["finite"].value == 6 * -(-len(found.test) // 10)
    assert all(gate.value is None or np.isfinite(gate.value) for gate in verdicts.values())


@pytest.mark.data
def test_real_bars_give_figures_that_could_be_true(
    data_root: Path, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """A look-ahead anywhere between bars and figures would lift the AUC far above these."""
    settings = make_settings(
        data=data_root,
        training={"days_back": 60, "bag": 2, "walk_forward_folds": 2, "fold_days": 7},
        boosted={"max_rounds": 60, "learning_rate": 0.05},
    )
    store = BarStore(settings.store_root, settings.market.set_id)
    for symbol in settings.market.symbols:
        file = data_root / "binance_usdm_perp_15m" / f"{symbol}_15m.parquet"
        bars = pl.read_parquet(file).tail(100 * 96)
        store.write_bars(symbol, "15m", bars.select("ts", "open", "high", "low", "close", "volume"))
    until_ms = int(bars["ts"][-1]) + settings.market.timeframe_ms
    data = build_training_set(settings, store, until_ms, symbols=settings.market.symbols)
    found = _evaluated(settings, data, tmp_path).figures
    assert found["rows"] > 3_000
    for name in ("auc", "wf_auc"):
        assert 0.40 < found[name] < 0.62
        assert found[f"{name}_low"] < 0.56
    assert 0.68 < found["wf_log_loss"] < 0.72
    assert found["wf_ece"] < 0.15
    assert found["trades"] <= found["rows"] / settings.training.horizon


def test_always_saying_the_commoner_side_is_no_skill(small: Settings, tmp_path: Path) -> None:
    report = _report(small, planted_samples(ROWS, strength=1.0), tmp_path)
    rising = np.where(np.arange(len(report.test)) % 100 < 54, 1.0, 0.0)
    figures = {**report.figures, "accuracy": 0.54, "log_loss_minus_base_rate_high": 0.001}
    drifting = replace(report, test=replace(report.test, y_up=rising), figures=figures)
    skill = check_gates(small, drifting, None).gates[0]
    assert skill.limit == pytest.approx(rising.mean())
    assert not skill.passed
