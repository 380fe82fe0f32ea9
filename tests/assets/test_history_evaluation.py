"""An evaluation over the history, recorded: killed, continued, and read by a person."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterEventType, DagsterInstance

from assets.steps.history import HistoryChoices, HistoryPlan, evaluate_plan, plan_history
from registry.tracking import PARENT_TAG, Tracking
from tests.support.history import CLOCK, SYMBOLS, history_home
from tradewind.clock import WallClock
from tradewind.errors import TradewindError
from tradewind.features import lookahead as features_lookahead
from tradewind.models.baselines import BASELINES
from tradewind.models.metric_table import known
from tradewind.models.rolling.walk import FoldNews
from tradewind.settings import Settings

CHOICES = HistoryChoices(families=("lightgbm",))


class Killed(BaseException):
    """Stands for a signal: nothing in the code may catch it."""


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return history_home(make_settings, links={"mlflow_url": "http://127.0.0.1:5000"}, clock="wall")


def _plan(settings: Settings, choices: HistoryChoices = CHOICES) -> HistoryPlan:
    return plan_history(settings, CLOCK, choices)


def test_without_tracking_the_files_are_there(settings: Settings) -> None:
    plan = _plan(settings)
    assert [cost.folds for cost in plan.costs] == [2]
    done = evaluate_plan(plan, track=False)
    assert done.run_id is None
    values = json.loads((plan.folder / "evaluation.json").read_text(encoding="utf-8"))
    assert values["facts"]["symbols"] == list(SYMBOLS)
    assert values["figures"]["same"]["lightgbm"]["pooled"]["auc"] == pytest.approx(
        done.evaluation.figures["same"]["lightgbm"]["pooled"]["auc"]
    )
    assert "Net edge" in done.report.read_text(encoding="utf-8")
    assert not (settings.home / "mlflow").exists()


def test_other_choices_are_another_evaluation(settings: Settings) -> None:
    shuffled = HistoryChoices(families=("lightgbm",), shuffle_labels=True)
    assert _plan(settings).token == _plan(settings).token
    assert _plan(settings).token != _plan(settings, shuffled).token
    twice = HistoryChoices(symbols=(*SYMBOLS, SYMBOLS[0]), families=("lightgbm",))
    assert _plan(settings, twice).token == _plan(settings).token


@pytest.mark.parametrize(
    ("section", "update"),
    [
        ("serving", {"base_threshold": 0.6}),
        ("serving", {"epistemic_p_limit": 0.01}),
        ("training", {"bootstrap_samples": 200}),
        ("calibration", {"interval_level": 0.8}),
        ("gates", {"confidence_level": 0.9}),
    ],
)
def test_what_decides_a_figure_decides_where_it_is_kept(
    settings: Settings, section: str, update: dict[str, Any]
) -> None:
    """Another threshold must not overwrite the results, nor continue the run, of this one."""
    changed = getattr(settings, section).model_copy(update=update)
    assert _plan(settings.model_copy(update={section: changed})).token != _plan(settings).token


def test_the_facts_are_the_sizes_that_folds_are_fitted_with(settings: Settings) -> None:
    facts = _plan(settings).facts
    assert facts["boosted"]["max_rounds"] == settings.evaluation.max_rounds
    assert facts["training"]["bag"] == settings.evaluation.bag
    assert "deep" not in facts  # nobody reads it here


def test_wrong_choices_are_refused(settings: Settings) -> None:
    with pytest.raises(TradewindError, match="bad_setting"):
        _plan(settings, HistoryChoices(families=("oracle",)))
    with pytest.raises(TradewindError, match="no_bars"):
        _plan(settings, HistoryChoices(symbols=("DOGEUSDT",)))


def test_features_that_look_ahead_are_not_evaluated(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = features_lookahead.compute_features

    def leaking(*given: Any, **named: Any) -> Any:
        frame = compute(*given, **named)
        return frame.with_columns(frame["close"].shift(-1).fill_null(0.0).alias("range"))

    monkeypatch.setattr(features_lookahead, "compute_features", leaking)
    with pytest.raises(TradewindError, match=r"look ahead.*range"):
        evaluate_plan(_plan(settings), track=False)


@pytest.mark.slow
def test_a_killed_evaluation_continues_into_one_tree(settings: Settings) -> None:
    plan = _plan(settings)

    def killed(news: FoldNews) -> None:
        if news.number == 2:
            raise Killed

    with pytest.raises(Killed):
        evaluate_plan(plan, on_fold=killed, dagster_run_id="dag-1")
    tracking = Tracking(settings)
    (half,) = tracking.search("tags.kind = 'history_evaluation'")
    assert half.info.status == "FAILED"

    done = evaluate_plan(plan, dagster_run_id="dag-2")
    again = evaluate_plan(plan)
    assert done.run_id == again.run_id == half.info.run_id
    run = tracking.client.get_run(done.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["dagster_run_ids"] == "dag-1 dag-2"
    assert run.data.params["evaluation.since"] == "2025-01-20"
    parts = tracking.search(f"tags.`{PARENT_TAG}` = '{done.run_id}'")
    assert {part.data.tags["family"] for part in parts} == {"lightgbm", *BASELINES}
    assert len(parts) == 4
    (trees,) = [part for part in parts if part.data.tags["family"] == "lightgbm"]
    assert {"auc", "auc_low", "sharpe", "ETHUSDT/ece"} <= set(trees.data.metrics)
    folds = tracking.search(f"tags.`{PARENT_TAG}` = '{trees.info.run_id}'")
    assert sorted(fold.data.tags["fold"] for fold in folds) == ["1", "2"]
    everything = tracking.search("attributes.status != 'NONE'")
    assert {item.info.status for item in everything} == {"FINISHED"}
    logged = {name for item in everything for name in item.data.metrics}
    assert [name for name in logged if not known(name)] == []
    files = {file.path for file in tracking.client.list_artifacts(done.run_id, "evaluation")}
    assert {"evaluation/report.html", "evaluation/evaluation.json"} <= files
    assert done.run_url is not None
    assert done.report_url == f"{done.run_url}/artifacts/evaluation/report.html"


@pytest.mark.slow
def test_the_dagster_job_shows_verdict_table_and_folds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in settings.model_dump(mode="json").items():
        if name in ("market", "features", "training", "boosted", "evaluation"):
            monkeypatch.setenv(f"TRADEWIND_{name.upper()}", json.dumps(value))
    monkeypatch.setenv("TRADEWIND_HOME", str(settings.home))
    from pipelines.launch import resolve_job

    form = {"since": "2025-01-20", "refit_days": 4, "horizon": 4, "families": ["lightgbm"]}
    with DagsterInstance.ephemeral() as instance:
        done = resolve_job("evaluate").execute_in_process(
            run_config={"ops": {"history_evaluation": {"config": form}}},
            instance=instance,
            raise_on_error=False,
        )
    assert done.success
    (made,) = [
        event.step_materialization_data.materialization
        for event in done.all_events
        if event.event_type is DagsterEventType.ASSET_MATERIALIZATION
    ]
    assert {"verdict", "comparison", "report", "mlflow_run_id", "reliability"} <= set(made.metadata)
    assert Path(str(made.metadata["report"].value)).is_file()
    seen = [
        event for event in done.all_events if event.event_type is DagsterEventType.ASSET_OBSERVATION
    ]
    assert len(seen) == 2


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("shuffle", [False, True])
def test_real_bars_pass_the_canaries(
    make_settings: Callable[..., Settings], data_root: Path, shuffle: bool
) -> None:
    """Straight from a folder: two refits on two years of bars, as they are and shuffled."""
    settings = make_settings(
        data=data_root,
        training={"bootstrap_samples": 200},
        evaluation={"since": "2026-04-10", "refit_days": 12, "bag": 2, "max_rounds": 10},
    )
    choices = HistoryChoices(families=("lightgbm",), shuffle_labels=shuffle)
    plan = plan_history(settings, WallClock(), choices)
    done = evaluate_plan(plan, track=False)
    assert plan.facts["bars_from"].startswith("folder ")
    assert done.canaries["lookahead"]["ok"]
    assert done.canaries["slices"]["ok"]
    if shuffle:
        assert done.canaries["coin_flips"]["ok"], done.canaries["coin_flips"]
        figures = done.evaluation.figures["all"]["lightgbm"]["pooled"]
        assert figures["auc"] == pytest.approx(0.5, abs=0.03)
