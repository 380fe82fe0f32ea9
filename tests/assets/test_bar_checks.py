"""Ingestion as a Dagster job: twice changes nothing, and bad bars stop what is downstream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from dagster import DagsterInstance

from pipelines.launch import QUIET, resolve_job
from tests.support.synthetic import random_walk_market
from tradewind.files import sha256_tree
from tradewind.market.active import store_for
from tradewind.settings import Settings, load_settings

SET = "binance_usdm_perp"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a home that reads a folder of synthetic bars, at their newest close."""
    from tradewind.ledger import open_ledger
    from tradewind.ledger.clock import set_replay_clock

    folder = tmp_path / "bars" / f"{SET}_15m"
    folder.mkdir(parents=True)
    frames = random_walk_market(1600)
    for symbol, frame in frames.items():
        frame.write_parquet(folder / f"{symbol}_15m.parquet")
    monkeypatch.setenv("TRADEWIND_DATA", str(tmp_path / "bars"))
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRADEWIND_CLOCK", "replay")
    monkeypatch.setenv("TRADEWIND_FEATURES__WARMUP_BARS", "300")
    found = load_settings()
    with open_ledger(found) as ledger:
        set_replay_clock(ledger, int(frames["BTCUSDT"]["ts"][-1]) + found.market.timeframe_ms)
    return found


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """A Dagster instance in memory."""
    with DagsterInstance.ephemeral() as made:
        yield made


def _ingest(instance: DagsterInstance, symbol: str) -> Any:
    return resolve_job("ingest").execute_in_process(
        instance=instance, partition_key=symbol, run_config=QUIET, raise_on_error=False
    )


def _checks(result: Any) -> dict[str, Any]:
    events = [e for e in result.all_events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
    return {e.event_specific_data.check_name: e.event_specific_data for e in events}


def test_ingest_twice_changes_no_byte(settings: Settings, instance: DagsterInstance) -> None:
    first = _ingest(instance, "BTCUSDT")
    assert first.success
    checks = _checks(first)
    assert {name for name, check in checks.items() if not check.passed} == set()
    assert checks["schema"].metadata["rows"].value == 1600
    assert checks["staleness"].metadata["staleness_s"].value == 0
    assert checks["look_ahead"].metadata["offending"].value == "none"
    assert {check.partition for check in checks.values()} == {"BTCUSDT"}
    before = sha256_tree(settings.store_root / SET)
    second = _ingest(instance, "BTCUSDT")
    assert second.success
    assert sha256_tree(settings.store_root / SET) == before


def test_broken_bars_stop_the_features(settings: Settings, instance: DagsterInstance) -> None:
    assert _ingest(instance, "ETHUSDT").success
    store = store_for(settings)
    path = next((store.folder / "15m" / "ETHUSDT").glob("*.parquet"))
    frame = pl.read_parquet(path)
    swapped = frame.with_columns(high=pl.col("low"), low=pl.col("high") + 1.0)
    swapped.write_parquet(path, compression="zstd")
    result = _ingest(instance, "ETHUSDT")
    assert not result.success
    ohlc = _checks(result)["ohlc"]
    assert not ohlc.passed
    assert ohlc.metadata["violations"].value >= frame.height - 20
    made = {e.asset_key.to_user_string() for e in result.get_asset_materialization_events()}
    assert made == {"bars", "funding", "open_interest", "long_short_ratio"}


def test_a_symbol_without_bars_is_named(settings: Settings, instance: DagsterInstance) -> None:
    assert settings.data is not None
    next(settings.data.rglob("SOLUSDT_15m.parquet")).unlink()
    result = _ingest(instance, "SOLUSDT")
    assert not result.success
    failed = next(e for e in result.all_events if e.is_step_failure)
    text = failed.step_failure_data.error.to_string()
    assert "SOLUSDT" in text
    assert "unknown_symbol" in text
