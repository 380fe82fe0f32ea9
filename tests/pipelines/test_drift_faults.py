"""Faults in replayed real bars, through the job `drift` and the sensor that reads it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from dagster import (
    AssetKey,
    AssetRecordsFilter,
    DagsterInstance,
    DagsterRunStatus,
    build_sensor_context,
)

from pipelines.launch import resolve_job
from pipelines.sensors import REASON_TAG, retrain_when_needed
from registry.tracking import PARENT_TAG, Tracking
from tests.support import serving
from tests.support.trading_day import prediction
from tradewind.contracts import POOLED
from tradewind.features import reading
from tradewind.ledger import LedgerClock, PredictionRecord, open_ledger
from tradewind.ledger.clock import set_replay_clock
from tradewind.market.ingest import run_ingest, store_for
from tradewind.models import dataset
from tradewind.models.evaluation import calibrate_candidate
from tradewind.settings import MS_PER_DAY, Settings, load_settings

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(600)]
NAME = "tradewind.lightgbm.POOLED"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
MADE_MS = 1_747_440_000_000  # 2025-05-17: the version sees nothing after
NOW_MS = MADE_MS + 5 * MS_PER_DAY
DAYS_BACK = 120

Fault = Callable[[pl.Expr], pl.Expr]
FAULTS: list[tuple[str, str, Fault]] = [
    ("scaled", "atr_14", lambda column: 3 * column),
    ("shifted", "rsi_14", lambda column: column + 0.2),
    ("stuck", "volume_ratio_20", lambda column: 0 * column + 1.25),
    ("silent", "funding_rate", lambda column: column * float("nan")),
]


@pytest.fixture
def settings(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Real bars, and a champion made from those before `MADE_MS` as a retraining makes it."""
    for name, value in {
        "TRADEWIND_HOME": str(tmp_path / "home"),
        "TRADEWIND_DATA": str(data_root),
        "TRADEWIND_CLOCK": "replay",
        "TRADEWIND_MARKET": '{"symbols": ["BTCUSDT", "ETHUSDT"]}',
        "TRADEWIND_TRAINING": f'{{"days_back": {DAYS_BACK}, "bag": 2, "judge_passes": 2}}',
        "TRADEWIND_BOOSTED": '{"max_rounds": 20, "early_stopping_rounds": 10}',
        "TRADEWIND_REGISTRY__MAX_MODEL_AGE_DAYS": "30",
        "TRADEWIND_REGISTRY__MODEL_EXPIRY_DAYS": "60",
        "TRADEWIND_RETRAIN_TRIGGERS": '{"most_a_week": 9}',
        "TRADEWIND_LINKS__MLFLOW_URL": "http://127.0.0.1:5000",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    with open_ledger(settings) as ledger:
        set_replay_clock(ledger, NOW_MS + MS_PER_DAY)
        run_ingest(settings, LedgerClock(ledger), since_ms=MADE_MS - 2 * DAYS_BACK * MS_PER_DAY)
        set_replay_clock(ledger, NOW_MS)
    data = dataset.build_training_set(settings, store_for(settings), MADE_MS, symbols=SYMBOLS)
    fitted = serving.fit_bundle(settings, data, "lightgbm", POOLED, seed=1)
    calibrated = calibrate_candidate(settings, data, fitted.forecaster, POOLED)
    assert calibrated.reference.usual is not None
    bundle = dataclasses.replace(
        fitted,
        calibrator=calibrated.choice.calibrator,
        reference=calibrated.reference,
        meta=fitted.meta.model_copy(update={"data_end_ms": data.end_ms}),
    )
    (tmp_path / "scratch").mkdir()
    world = serving.World(settings, Tracking(settings), tmp_path / "scratch")
    world.point(world.register(bundle))
    return settings


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """An instance in memory."""
    with DagsterInstance.ephemeral() as held:
        yield held


@dataclasses.dataclass
class Desk:
    """The job, the sensor and its cursor, as they stand on one replay clock."""

    settings: Settings
    instance: DagsterInstance
    now_ms: int = NOW_MS
    cursor: str | None = None

    def look(self) -> dict[str, Any]:
        """Run the job `drift` an hour later; return what it observed."""
        self.now_ms += 3_600_000
        with open_ledger(self.settings) as ledger:
            set_replay_clock(ledger, self.now_ms)
        done = resolve_job("drift").execute_in_process(
            run_config={"ops": {"measure_drift": {"config": {}}}}, instance=self.instance
        )
        assert done.success
        wanted = AssetRecordsFilter(AssetKey(["lightgbm", "drift"]), asset_partitions=[POOLED])
        (record,) = self.instance.fetch_observations(wanted, limit=1).records
        assert record.asset_observation is not None
        return {name: item.value for name, item in record.asset_observation.metadata.items()}

    def tick(self) -> list[str]:
        """Evaluate the sensor after its pause; each request becomes a run that succeeds."""
        if self.cursor:
            self.cursor = json.dumps({**json.loads(self.cursor), "last_s": 0})
        result: Any = retrain_when_needed(
            build_sensor_context(instance=self.instance, cursor=self.cursor)
        )
        self.cursor = result.cursor or self.cursor
        reasons = []
        for request in result.run_requests or ():
            self.instance.create_run_for_job(
                resolve_job("retrain"),
                status=DagsterRunStatus.SUCCESS,
                tags={"dagster/run_key": request.run_key, **request.tags},
            )
            reasons.append(request.tags[REASON_TAG])
        return reasons


def test_each_fault_raises_its_own_alarm_and_asks_once_an_episode(
    settings: Settings, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(settings, instance)
    sound = reading.read_features
    for kind, name, fault in FAULTS:
        seen = desk.look()
        assert (seen["drift"], seen["status"]) == ("neither", "fine"), (kind, seen)
        assert desk.tick() == []

        def broken(*given: Any, name: str = name, fault: Fault = fault, **more: Any) -> Any:
            since = pl.col("ts") >= MADE_MS
            column = pl.col(name)
            return sound(*given, **more).with_columns(
                pl.when(since).then(fault(column)).otherwise(column).alias(name)
            )

        monkeypatch.setattr(dataset, "read_features", broken)
        seen = desk.look()
        assert (seen["drift"], seen["worst_feature"]) == ("data", name), kind
        assert ("dead" in seen) == (kind in ("stuck", "silent")), kind
        assert "feed of the worst feature" in seen["advice"]
        (reason,) = desk.tick()
        assert reason.endswith(f"of {name}"), kind
        assert desk.tick() == []
        if kind == "scaled":  # each look takes seconds: once is enough
            desk.look()
            assert desk.tick() == [], "the same episode"
        monkeypatch.setattr(dataset, "read_features", sound)

    _answer_the_wrong_way_round(settings)
    seen = desk.look()
    assert (seen["drift"], seen["status"], seen["concept"]) == ("concept", "fine", "alert")
    (reason,) = desk.tick()
    assert "concept drift alarm" in reason
    desk.look()
    assert desk.tick() == []
    _assert_recorded(settings, desk, seen)


def _answer_the_wrong_way_round(settings: Settings) -> None:
    for symbol in SYMBOLS:
        bars = store_for(settings).read_bars(symbol, "15m", start_ms=MADE_MS, until_ms=NOW_MS)
        close = bars["close"].to_list()
        said = []
        for i, (ts, now, later) in enumerate(zip(bars["ts"], close, close[16:], strict=False)):
            sure = 0.05 + 0.01 * (i % 10)
            right = i % 5 == 0
            p_up = 0.5 + sure if (later > now) == right else 0.5 - sure
            told = prediction(symbol, ts, p_up)
            said.append(told.model_copy(update={"model_version": f"{NAME}/1"}))
        with open_ledger(settings) as ledger:
            ledger.record_predictions(
                [PredictionRecord(p, "champion", 1.0, f"{symbol} {p.bar_ts}") for p in said]
            )


def _assert_recorded(settings: Settings, desk: Desk, seen: dict[str, Any]) -> None:
    """One run of looks in MLflow with every point on it, the reports beside, linked."""
    tracking = Tracking(settings)
    (run,) = tracking.search("tags.kind = 'drift'")
    assert run.data.tags["version"] == f"{NAME}/1"
    assert run.data.tags[PARENT_TAG]
    assert run.info.run_name == "drift lightgbm POOLED v1"
    history = tracking.client.get_metric_history(run.info.run_id, "psi_p_up")
    looks = [NOW_MS + (i + 1) * 3_600_000 for i in range((desk.now_ms - NOW_MS) // 3_600_000)]
    assert [point.timestamp for point in history] == looks
    assert {point.step for point in history} == {at_ms // MS_PER_DAY for at_ms in looks}
    names = {Path(item.path).name for item in tracking.client.list_artifacts(
        run.info.run_id, "drift"
    )}  # fmt: skip
    assert names == {"drift.html", "drift_2025-05-22.html"}
    assert seen["report"].startswith("http://127.0.0.1:5000/#/experiments/")
    assert seen["report"].endswith("/artifacts/drift/drift_2025-05-22.html")
    columns = {record.data["column"] for record in seen["by_column"].records}
    assert {"atr_14", "p_up"} <= columns
    assert np.isfinite(seen["over_limit"])
