"""The search job on real bars: trials nested in MLflow, the best on the asset graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from assets.steps.search import search
from assets.units import Unit
from registry.tracking import PARENT_TAG, Tracking
from tradewind.contracts import POOLED
from tradewind.ledger import LedgerClock, open_ledger
from tradewind.ledger.clock import set_replay_clock
from tradewind.market.ingest import run_ingest, store_for
from tradewind.settings import MS_PER_DAY, Settings

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(300)]
SIZES: dict[str, Any] = {
    "market": {"symbols": ["BTCUSDT", "ETHUSDT"]},
    "training": {
        "days_back": 60,
        "walk_forward_folds": 2,
        "fold_days": 4,
        "bag": 2,
        "bootstrap_samples": 100,
    },
    "boosted": {"max_rounds": 10},
    "search": {"trials": 3, "holdout_days": 8, "startup_trials": 2},
}


@pytest.fixture
def settings(
    make_settings: Callable[..., Settings], data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    settings = make_settings(data=data_root, clock="replay", **SIZES)
    monkeypatch.setenv("TRADEWIND_HOME", str(settings.home))
    monkeypatch.setenv("TRADEWIND_CLOCK", "replay")
    for section, values in SIZES.items():
        for name, value in values.items():
            text = json.dumps(value)
            monkeypatch.setenv(f"TRADEWIND_{section.upper()}__{name.upper()}", text)
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, 4_000_000_000_000)
        run_ingest(settings, LedgerClock(ledger))
        last = store_for(settings).last_ts("BTCUSDT", settings.market.timeframe)
        assert last is not None
        set_replay_clock(ledger, last + settings.market.timeframe_ms)
    return settings


def test_trials_stand_nested_in_mlflow_once_each(settings: Settings) -> None:
    unit = Unit("lightgbm", POOLED)
    with open_ledger(settings) as ledger:
        report = search(settings, LedgerClock(ledger), unit)
        search(settings, LedgerClock(ledger), unit)
        longer = search(settings, LedgerClock(ledger), unit, trials=4)
    assert longer.run_id == report.run_id
    assert longer.trials[:3] == report.trials
    assert "[boosted]" in report.toml
    tracking = Tracking(settings)
    runs = tracking.search(f"tags.`{PARENT_TAG}` = '{report.run_id}'")
    numbers = sorted(int(run.data.tags["trial"]) for run in runs)
    assert numbers == [1, 2, 3, 4]
    assert all(run.info.status == "FINISHED" for run in runs)
    shown = tracking.run_metrics(report.run_id)
    assert shown["trials"] == 4
    assert shown["holdout_rows"] == report.holdout["rows"] > 1000
    assert 0.4 < shown["holdout_auc_best"] < 0.65, "more would be a leak"


def test_a_search_goes_on_though_bars_have_closed_since(settings: Settings) -> None:
    """Hours later too, or no search that takes hours could be taken up; not a fortnight later."""
    unit = Unit("lightgbm", POOLED)
    with open_ledger(settings) as ledger:
        clock = LedgerClock(ledger)
        last = clock.now_ms()
        set_replay_clock(ledger, last - 20 * MS_PER_DAY)
        first = search(settings, clock, unit, trials=2)
        set_replay_clock(ledger, last - 19 * MS_PER_DAY)
        later = search(settings, clock, unit, trials=3)
        set_replay_clock(ledger, last - 21 * MS_PER_DAY)
        earlier = search(settings, clock, unit, trials=2)
        set_replay_clock(ledger, last)
        anew = search(settings, clock, unit, trials=2)
    assert later.run_id == first.run_id
    assert later.trials[:2] == first.trials
    assert len({first.run_id, earlier.run_id, anew.run_id}) == 3, "never bars after the clock"


def test_the_command_runs_the_job_and_says_what_the_holdout_says(settings: Settings) -> None:
    from pipelines.cli.main import app

    done = CliRunner().invoke(app, ["search", "--trials", "2", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [trial["number"] for trial in report["trials"]] == [1, 2]
    assert {"gain", "gain_low", "gain_high", "auc_best", "auc_defaults"} <= report["holdout"].keys()
    assert report["verdict"]
