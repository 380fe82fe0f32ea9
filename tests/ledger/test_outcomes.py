"""What became of predictions: filled from closed bars, once."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest
from dagster import job

from assets.outcome_ops import fill_outcomes as fill_op
from assets.platform import Platform
from tests.support.booking import STEP, decision
from tests.support.synthetic import START_MS
from tests.support.trading_day import prediction, trading_settings
from tradewind.ledger import Ledger, PredictionRecord, fill_outcomes, open_ledger, set_replay_clock
from tradewind.market.store import BarStore
from tradewind.settings import Settings

HORIZON = 2


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return trading_settings(tmp_path / "home", training={"horizon": HORIZON})


@pytest.fixture
def store(settings: Settings) -> BarStore:
    store = BarStore(settings.store_root, settings.market.set_id)
    write(store, [100.0, 102.0, 101.0, 99.0, 101.0, 101.0])
    return store


def write(store: BarStore, closes: list[float], first: int = 0) -> None:
    ts = [START_MS + (first + i) * STEP for i in range(len(closes))]
    frame = pl.DataFrame({"ts": ts, "close": closes})
    price = pl.col("close")
    store.write_bars("BTCUSDT", "15m", frame.with_columns(open=price, high=price, low=price,
                                                          volume=1.0))  # fmt: skip


def log(ledger: Ledger, *bars: int, symbol: str = "BTCUSDT") -> None:
    for bar in bars:
        said = prediction(symbol, START_MS + bar * STEP, 0.6)
        for kind in ("ensemble", "lightgbm"):
            record = said.model_copy(update={"model_type": kind})
            ledger.record_predictions([PredictionRecord(record, "champion", 1.0, f"r{bar}")])


def test_each_bar_gets_its_return_once_its_horizon_has_closed(
    ledger: Ledger, settings: Settings, store: BarStore
) -> None:
    log(ledger, 0, 1, 2, 3)
    at_close = START_MS + (HORIZON + 1) * STEP  # of the bar two after the first
    assert fill_outcomes(settings, ledger, store, at_close - 1) == 0
    assert fill_outcomes(settings, ledger, store, at_close) == 1
    assert fill_outcomes(settings, ledger, store, START_MS + 6 * STEP) == 3
    assert fill_outcomes(settings, ledger, store, START_MS + 6 * STEP) == 0
    rows = ledger.outcomes().to_dicts()
    assert [row["fwd_ret"] for row in rows] == pytest.approx(
        [math.log(101 / 100), math.log(99 / 102), 0.0, math.log(101 / 99)]
    )
    assert [row["y_up"] for row in rows] == [True, False, False, True]
    assert {row["horizon"] for row in rows} == {HORIZON}


def test_a_bar_that_is_missing_is_waited_for(
    ledger: Ledger, settings: Settings, store: BarStore
) -> None:
    log(ledger, 4)
    log(ledger, 0, symbol="NOBARS")
    assert fill_outcomes(settings, ledger, store, START_MS + 20 * STEP) == 0
    write(store, [90.0], first=6)
    assert fill_outcomes(settings, ledger, store, START_MS + 20 * STEP) == 1
    assert ledger.outcomes()["fwd_ret"][0] == pytest.approx(math.log(90 / 101))


def test_the_op_fills_them_and_the_story_tells(
    settings: Settings, store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADEWIND_HOME", str(settings.home))
    monkeypatch.setenv("TRADEWIND_CLOCK", "replay")
    monkeypatch.setenv("TRADEWIND_PROFILE", "quick")
    monkeypatch.setenv("TRADEWIND_TRAINING__HORIZON", str(HORIZON))
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, START_MS + 6 * STEP)
        log(ledger, 0)
        ledger.record_decision(decision())
        assert "no outcome yet" in ledger.explain("latest").text()

    @job(resource_defs={"platform": Platform()})
    def outcomes() -> None:
        fill_op()

    run = outcomes.execute_in_process()
    assert run.output_for_node("fill_outcomes") == {"outcomes": 1, "now_ms": START_MS + 6 * STEP}
    with open_ledger(settings) as ledger:
        assert "outcome: +0.009950 over 2 bars (up)" in ledger.explain("latest").text()
