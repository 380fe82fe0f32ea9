"""Data assets: each kind by itself, tries again after network errors only, checks that show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from dagster import AssetKey, DagsterInstance, materialize

from assets.found import found
from assets.market import bars
from assets.platform import Platform
from pipelines.launch import QUIET, resolve_job
from tests.support.synthetic import random_walk_market
from tradewind.market.active import store_for
from tradewind.settings import Settings, load_settings

SET = "binance_usdm_perp"
N = 1600
MARKET = random_walk_market(N)
STEP = 900_000


def folder_of(root: Path) -> Path:
    """Write a folder of bars with a hole and a jump in BTC, and of open interest."""
    row = pl.int_range(pl.len())
    jump = pl.when(row >= 800).then(pl.col("close") * 3).otherwise("close").alias("close")
    frames = {
        **MARKET,
        "BTCUSDT": MARKET["BTCUSDT"]
        .with_columns(jump)
        .with_columns(
            high=pl.max_horizontal("open", "high", "close"),
            volume=pl.when(row == 5).then(0.0).otherwise("volume"),
        )
        .filter(~row.is_between(300, 309)),
    }
    for symbol, frame in frames.items():
        path = root / f"{SET}_15m" / f"{symbol}_15m.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)
    interest = root / "binance_usdm_oi_4h"
    interest.mkdir()
    ts = MARKET["BTCUSDT"]["ts"].gather_every(16)
    pl.DataFrame({"ts": ts, "open_interest": ts.cast(pl.Float64) / 1e9}).write_parquet(
        interest / "BTCUSDT_4h.parquet"
    )
    return root


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a home that reads the folder, its clock at the newest close."""
    from tradewind.ledger import open_ledger
    from tradewind.ledger.clock import set_replay_clock

    monkeypatch.setenv("TRADEWIND_DATA", str(folder_of(tmp_path / "bars")))
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRADEWIND_CLOCK", "replay")
    monkeypatch.setenv("TRADEWIND_FEATURES__WARMUP_BARS", "300")
    monkeypatch.setenv("TRADEWIND_MARKET__RUN_RETRIES", "2")
    monkeypatch.setenv("TRADEWIND_MARKET__RUN_RETRY_WAIT_S", "0.01")
    settings = load_settings()
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, int(MARKET["BTCUSDT"]["ts"][-1]) + STEP)
    return settings


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as made:
        yield made


def read(instance: DagsterInstance, *kinds: str, symbol: str = "BTCUSDT") -> Any:
    return materialize(
        [bars],
        selection=[AssetKey(kind) for kind in kinds],
        partition_key=symbol,
        instance=instance,
        resources={"platform": Platform()},
        run_config=QUIET,
        raise_on_error=False,
    )


def shown(result: Any) -> dict[str, dict[str, Any]]:
    return {
        event.asset_key.to_user_string(): {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
    }


def test_each_kind_can_be_materialised_by_itself(
    settings: Settings, instance: DagsterInstance
) -> None:
    got = shown(read(instance, "open_interest"))
    assert set(got) == {"open_interest"}
    assert (got["open_interest"]["available"], got["open_interest"]["added"]) == ("yes", 100)
    store = store_for(settings)
    assert store.symbols("15m") == ()
    got = shown(read(instance, "bars"))
    assert set(got) == {"bars"}
    assert (got["bars"]["added"], got["bars"]["gaps"]) == (N - 10, 1)


def test_what_the_source_lacks_is_told_and_no_error(
    settings: Settings, instance: DagsterInstance
) -> None:
    result = read(instance, "bars", "funding", "long_short_ratio", symbol="ETHUSDT")
    assert result.success
    got = shown(result)
    assert got["funding"]["available"].startswith("no")
    assert got["long_short_ratio"]["available"].startswith("no")


def test_a_symbol_that_fails_stops_no_other_and_is_not_tried_again(
    settings: Settings, instance: DagsterInstance
) -> None:
    assert settings.data is not None
    (settings.data / f"{SET}_15m" / "ETHUSDT_15m.parquet").write_bytes(b"junk")
    results = {symbol: read(instance, "bars", symbol=symbol) for symbol in MARKET}
    assert {symbol: result.success for symbol, result in results.items()} == {
        "BTCUSDT": True,
        "ETHUSDT": False,
        "SOLUSDT": True,
    }
    assert not [e for e in results["ETHUSDT"].all_events if e.is_step_up_for_retry]
    told = [entry.user_message for entry in instance.all_logs(results["BTCUSDT"].run_id)]
    assert any(text.startswith("reference symbol ETHUSDT: corrupt_file") for text in told)


def test_an_exchange_out_of_reach_is_asked_again(
    settings: Settings, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRADEWIND_DATA")
    monkeypatch.setenv("TRADEWIND_MARKET__SOURCE", "ccxt")
    monkeypatch.setenv("TRADEWIND_MARKET__EXCHANGES", '["binanceusdm"]')
    monkeypatch.setenv("TRADEWIND_MARKET__PROXY", "http://127.0.0.1:9")  # nobody listens there
    result = read(instance, "bars")
    assert not result.success
    waits = [
        event.step_retry_data.seconds_to_wait
        for event in result.all_events
        if event.is_step_up_for_retry
    ]
    assert waits == [0.01, 0.02]
    failed = next(event for event in result.all_events if event.is_step_failure)
    assert "exchange_unreachable" in failed.step_failure_data.error.to_string()


def test_checks_show_the_rows_and_a_picture_of_what_they_found(
    settings: Settings, instance: DagsterInstance
) -> None:
    result = resolve_job("ingest").execute_in_process(
        instance=instance, partition_key="BTCUSDT", run_config=QUIET, raise_on_error=False
    )
    checks = {
        event.event_specific_data.check_name: event.event_specific_data
        for event in result.all_events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
    }
    gaps = checks["gaps"].metadata
    assert (gaps["gaps"].value, gaps["confirmed"].value, gaps["missing_bars"].value) == (1, 1, 10)
    assert gaps["gap_share"].value == pytest.approx(10 / N)
    assert gaps["coverage"].value.startswith("![coverage](data:image/png;base64,iVBOR")
    assert len(gaps["rows"].records) == 1
    outliers = checks["outliers"].metadata
    assert outliers["outliers"].value == 1
    assert abs(outliers["rows"].records[0].data["z"]) > 20
    assert "robust_z" in outliers
    assert checks["zero_volume"].metadata["bars"].value == 1
    assert len(checks["zero_volume"].metadata["rows"].records) == 1
    assert checks["alignment"].metadata["missing_in_ETHUSDT"].value == 0
    assert checks["schema"].metadata["columns"].value.startswith("ts Int64, open Float64")


def test_upkeep_runs_as_a_job_and_a_dry_run_changes_nothing(
    settings: Settings, instance: DagsterInstance
) -> None:
    assert read(instance, "bars").success
    path = next((store_for(settings).folder / "15m" / "BTCUSDT").glob("*.parquet"))
    pl.read_parquet(path).write_parquet(path, compression="uncompressed")
    loose = path.read_bytes()
    for dry_run in (True, False):
        config = {**QUIET, "ops": {"keep_store": {"config": {"dry_run": dry_run}}}}
        result = resolve_job("store_upkeep").execute_in_process(
            instance=instance, run_config=config
        )
        values = result.output_for_node("keep_store")
        assert (values["compacted"], values["dropped"]) == (1, 0)
        assert (path.read_bytes() == loose) is dry_run


def test_what_json_cannot_hold_is_text() -> None:
    rows = pl.DataFrame({"ts": [0], "close": [float("inf")], "open": [float("nan")]})
    (record,) = found(rows, {})["rows"].records
    assert record.data == {"ts": "1970-01-01 00:00", "close": "inf", "open": "nan"}
    assert json.dumps(record.data)
    assert found(rows.clear(), {}) == {}
