"""A walk over a planted history: finds what is there, nothing in noise, and continues."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.rolling.conftest import Walked
from tests.support.rolling import planted_history, rolling_settings
from tradewind.errors import TradewindError
from tradewind.models import metrics as m
from tradewind.models.backtest import MIN_TRADES
from tradewind.models.baselines import BASELINES
from tradewind.models.rolling.canaries import coin_flips, slices_apart
from tradewind.models.rolling.cost import walk_cost
from tradewind.models.rolling.evaluate import Evaluation, evaluate_history, in_ensemble, luck_of
from tradewind.models.rolling.figures import confident_rows, trade
from tradewind.models.rolling.folds import since_ms
from tradewind.models.rolling.history import shuffled_labels
from tradewind.models.rolling.record import summary
from tradewind.models.rolling.walk import FoldNews
from tradewind.models.selection_bias import deflated_sharpe
from tradewind.settings import Settings

FAMILIES = ("lightgbm", "transformer")


@pytest.fixture
def walked(walk: Walked) -> Evaluation:
    return walk.found


@pytest.fixture
def work(walk: Walked) -> Path:
    return walk.work


def test_everyone_is_judged_on_the_same_rows(walked: Evaluation) -> None:
    assert list(walked.same) == [*FAMILIES, "ensemble", *BASELINES]
    first = walked.same["lightgbm"]
    for rows in walked.same.values():
        for name in ("ts", "symbol", "y", "fwd_ret"):
            assert np.array_equal(getattr(rows, name), getattr(first, name))
        assert np.isfinite(rows.p_up).all()


def test_what_was_planted_is_found_and_momentum_finds_it_too(walked: Evaluation) -> None:
    found = {name: parts["pooled"] for name, parts in walked.figures["same"].items()}
    assert found["lightgbm"]["auc_low"] > 0.55
    assert found["logistic"]["auc_low"] > 0.55  # the signal is linear in a feature it sees
    assert found["momentum"]["auc"] > 0.55
    assert found["ensemble"]["auc_low"] > 0.55
    gap = walked.against["lightgbm_minus_base_rate"]
    assert gap["value_high"] < 0
    assert walked.against["ensemble_minus_best_member"]["best_member"] in FAMILIES


def test_figures_are_those_of_the_metrics(walked: Evaluation) -> None:
    rows, figures = walked.same["lightgbm"], walked.figures["same"]["lightgbm"]
    assert figures["pooled"]["auc"] == pytest.approx(m.auc(rows.p_up, rows.y))
    assert figures["pooled"]["ece"] == pytest.approx(m.ece(rows.p_up, rows.y, 15))
    own = rows.symbol == rows.symbols.index("ETHUSDT")
    assert figures["ETHUSDT"]["log_loss"] == pytest.approx(m.log_loss(rows.p_up[own], rows.y[own]))
    assert figures["ETHUSDT"]["rows"] == own.sum()
    for name in ("auc", "log_loss", "brier", "ece", "accuracy", "sharpe", "risk_coverage_area"):
        low, high = figures["pooled"][f"{name}_low"], figures["pooled"][f"{name}_high"]
        assert low <= figures["pooled"][name] <= high, name
    sure = confident_rows(rows.p_up)
    assert len(sure) == int(len(rows) * 0.05)
    hit = m.accuracy(rows.p_up[sure], rows.y[sure])
    assert figures["pooled"]["confident_5pct_accuracy"] == pytest.approx(hit)


def test_baselines_state_no_uncertainty(walked: Evaluation) -> None:
    for name in BASELINES:
        figures = walked.figures["same"][name]["pooled"]
        assert figures["risk_coverage_area"] is None
        assert figures["auc"] is not None


def test_trees_are_judged_on_every_bar_as_well(walked: Evaluation) -> None:
    assert set(walked.figures["all"]) == {"lightgbm"}
    every = walked.figures["all"]["lightgbm"]["pooled"]["rows"]
    assert every == pytest.approx(4 * walked.figures["same"]["lightgbm"]["pooled"]["rows"], rel=0.1)


def test_luck_counts_what_was_tried(walked: Evaluation, make_settings: Any) -> None:
    settings = rolling_settings(make_settings)
    assert walked.luck["strategies"] == 3 * len(settings.evaluation.thresholds)
    assert 1 < walked.luck["trials"] <= walked.luck["strategies"]
    assert 0 <= walked.luck["overfitting"]["probability"] <= 1
    again = luck_of(settings, {name: walked.same[name] for name in FAMILIES})
    assert again["trials"] < walked.luck["trials"]


def test_every_deflated_ratio_is_deflated_by_all_trials(walked: Evaluation, walk: Walked) -> None:
    """Of each symbol and of every bar too: beside it stands that of a single trial, higher."""
    luck = walked.luck
    # The transformer of this walk hardly trades: a short epoch leaves it near the base rate.
    judged = [("same", name, walked.same[name]) for name in ("lightgbm", "ensemble")]
    judged.append(("all", "lightgbm", walked.walks["lightgbm"].rows))
    for kind, name, rows in judged:
        for scope, found in walked.figures[kind][name].items():
            own = rows
            if scope != "pooled":
                own = rows.subset(rows.symbol == rows.symbols.index(scope))
            daily = trade(walk.settings, own).daily
            assert found["trades"] >= MIN_TRADES
            deflated = deflated_sharpe(daily, luck["trials"], spread=luck["sharpe_spread"])
            assert found["deflated_sharpe"] == pytest.approx(deflated), (kind, name, scope)
            assert deflated < deflated_sharpe(daily, 1)


def test_slices_lie_apart_and_a_breach_is_seen(
    walked: Evaluation, make_settings: Callable[..., Settings]
) -> None:
    settings = rolling_settings(make_settings)
    seen = slices_apart(settings, walked.walks)
    assert seen["ok"]
    assert seen["least_gap_bars"] >= settings.evaluation.embargo_bars
    walk = walked.walks["lightgbm"]
    first = walk.results["POOLED"][0]
    late = {**first.spans, "calib": (first.spans["calib"][0], first.spans["test"][0])}
    broken = replace(walk, results={"POOLED": (replace(first, spans=late),)})
    assert not slices_apart(settings, {"lightgbm": broken})["ok"]


def test_the_record_is_json(walked: Evaluation) -> None:
    text = json.dumps(summary(walked), allow_nan=False)
    assert json.loads(text)["figures"]["same"]["ensemble"]["pooled"]["rows"] > 100


def test_finished_folds_are_read_again_and_a_lost_one_is_made_again(
    walked: Evaluation, work: Path, make_settings: Callable[..., Settings]
) -> None:
    settings = rolling_settings(make_settings)
    files = sorted(work.rglob("*.npz"))
    before = {file: file.stat().st_mtime_ns for file in files}
    lost = next(file for file in files if "transformer" in str(file))
    lost.unlink()
    heard: list[FoldNews] = []
    again = evaluate_history(
        settings, planted_history(), FAMILIES, workdir=work, on_fold=heard.append
    )
    for name, rows in walked.same.items():
        assert np.array_equal(rows.p_up, again.same[name].p_up)
    assert {file for file in files if file.stat().st_mtime_ns != before[file]} == {lost}
    assert [news.family for news in heard] == sorted(
        (news.family for news in heard), key=[*FAMILIES, "baselines"].index
    )
    assert heard[0].total == len(walked.walks["lightgbm"].results["POOLED"])


def test_newer_bars_leave_old_folds_as_they_were(
    walked: Evaluation, work: Path, make_settings: Callable[..., Settings]
) -> None:
    """A longer history walks the days that it shares from the folds that are there."""
    del walked
    settings = rolling_settings(make_settings)
    whole = planted_history()
    kept = whole.samples.ts < whole.samples.ts.min() + 35 * 86_400_000
    shorter = replace(whole, samples=whole.samples.subset(kept), data_fingerprint="older")
    before = set((work / "folds" / "lightgbm").rglob("*.npz"))
    evaluate_history(settings, shorter, ["lightgbm"], workdir=work)
    made = set((work / "folds" / "lightgbm").rglob("*.npz")) - before
    assert len(made) <= 1  # the last fold, which is cut short


def test_shuffled_labels_teach_nothing(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = rolling_settings(make_settings)
    dealt = shuffled_labels(planted_history(strength=2.0), seed=11)
    found = evaluate_history(settings, dealt, ["lightgbm"], workdir=tmp_path)
    verdict = coin_flips(found.figures["same"], settings.gates.confidence_level)
    assert verdict["ok"], verdict
    assert "ensemble" not in found.same  # one member is none


def test_shuffling_deals_out_the_labels_of_each_symbol() -> None:
    whole = planted_history()
    dealt = shuffled_labels(whole, seed=1)
    for code in (0, 1):
        own = whole.samples.symbol == code
        a, b = whole.samples.fwd_ret[own], dealt.samples.fwd_ret[own]
        assert not np.array_equal(a, b)
        assert np.isin(b, a).all()
        assert len(np.unique(b)) < len(np.unique(a))  # drawn with replacement
    assert np.array_equal(dealt.samples.y_up, (dealt.samples.fwd_ret > 0).astype(float))
    assert np.array_equal(dealt.samples.wide, whole.samples.wide, equal_nan=True)


def test_a_label_among_the_features_is_no_coin_flip(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """The canary can fail: labels that the features know are found though they are shuffled."""
    settings = rolling_settings(make_settings)
    dealt = shuffled_labels(planted_history(), seed=11)
    wide = dealt.samples.wide.copy()
    wide[:, 1] = dealt.samples.fwd_ret / dealt.samples.scale
    leaking = replace(dealt, samples=replace(dealt.samples, wide=wide))
    found = evaluate_history(settings, leaking, ["lightgbm"], workdir=tmp_path)
    assert not coin_flips(found.figures["same"], settings.gates.confidence_level)["ok"]


def test_a_model_for_each_symbol(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
    settings = rolling_settings(make_settings)
    found = evaluate_history(
        settings, planted_history(), ["lightgbm"], pooled=False, workdir=tmp_path
    )
    assert set(found.walks["lightgbm"].results) == {"BTCUSDT", "ETHUSDT"}
    rows = found.same["lightgbm"]
    assert np.array_equal(np.unique(rows.symbol), [0, 1])
    assert (np.diff(rows.ts) >= 0).all()


def test_the_cost_is_told_before(make_settings: Callable[..., Settings]) -> None:
    settings = rolling_settings(make_settings)
    (trees,) = walk_cost(settings, planted_history(), "lightgbm", ["POOLED"])
    (deep,) = walk_cost(settings, planted_history(), "transformer", ["POOLED"])
    assert trees.folds > deep.folds
    assert trees.test_rows == deep.test_rows > trees.compared_rows == deep.compared_rows > 0
    assert min(trees.seconds, deep.seconds) > 0


def test_the_days_before_weigh_the_members_and_are_not_judged(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = rolling_settings(make_settings, since=date(2025, 2, 4))
    news: list[FoldNews] = []
    found = evaluate_history(
        settings, planted_history(), FAMILIES, workdir=tmp_path, on_fold=news.append
    )
    since = since_ms(settings)
    for name in FAMILIES:
        walk, told = found.walks[name], [item for item in news if item.family == name]
        assert walk.rows.ts.min() >= since
        judged = [result.number for result in walk.results["POOLED"]]
        assert judged == list(range(1, len(judged) + 1))
        assert [item.number for item in told] == list(range(1, told[0].total + 1))
        earlier = [item.result.spans["test"] for item in told if item.result][: -len(judged)]
        assert earlier
        assert max(end for _, end in earlier) < since
        (cost,) = walk_cost(settings, planted_history(), name, ["POOLED"], record=True)
        assert cost.folds == told[0].total
        assert cost.compared_rows == len(found.same[name])
    alone = walk_cost(settings, planted_history(), "lightgbm", ["POOLED"])[0]
    assert alone.folds == len(found.walks["lightgbm"].results["POOLED"])
    assert in_ensemble(settings, "lightgbm", FAMILIES)
    assert not in_ensemble(settings, "lightgbm", ["lightgbm", "gru"])
    assert not in_ensemble(settings, "gru", ["lightgbm", "xgboost", "gru"])


def test_two_walks_of_one_family_do_not_mix(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    from filelock import FileLock

    folder = tmp_path / "folds" / "lightgbm"
    folder.mkdir(parents=True)
    with FileLock(folder / ".walk.lock"), pytest.raises(TradewindError, match="already_running"):
        evaluate_history(
            rolling_settings(make_settings), planted_history(), ["lightgbm"], workdir=tmp_path
        )
