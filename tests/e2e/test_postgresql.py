"""The whole chain with PostgreSQL behind Dagster, MLflow and the ledger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from pipelines.servers import free_port, serving
from tests.pipelines.conftest import ROOT, TINY, command, environment
from tests.support import postgres
from tradewind.client import ServingClient
from tradewind.settings import Settings, load_settings

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(1200)]
PLANTED = "pl4nted-s3cret"
SERVER_START_S = 120
COMMAND_LIMIT_S = 600
REPLAYED_BARS = 6
SQLITE_MAGIC = b"SQLite format 3\x00"


@dataclass
class Databases:
    """URLs of three databases on one server, with its password."""

    dagster: str
    mlflow: str
    ledger: str

    def all(self) -> tuple[str, str, str]:
        """Return the three URLs."""
        return self.dagster, self.mlflow, self.ledger


@pytest.fixture
def databases() -> Iterator[Databases]:
    """A server that asks for a password."""
    if not postgres.available():
        pytest.skip("PostgreSQL is not installed here: no initdb and pg_ctl")
    with postgres.running_postgres(PLANTED) as server:
        yield Databases(
            *(postgres.create_database(server, name) for name in ("dagster", "mlflow", "ledger"))
        )


@contextmanager
def _mlflow_server(url: str, folder: Path) -> Iterator[str]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    # By environment, not argument: a password must not stand in the list of processes.
    variables = {
        "MLFLOW_BACKEND_STORE_URI": url,
        "MLFLOW_ARTIFACTS_DESTINATION": (folder / "artifacts").as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    arguments = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "mlflow.log").open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *arguments],
            env={**os.environ, **variables},
            cwd=folder,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _until_healthy(process, f"{address}/health", folder / "mlflow.log")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + SERVER_START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(url, timeout=2).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"MLflow was not up within {SERVER_START_S} s: {log.read_text()}")


@dataclass
class House:
    """Commands run in one home, on given databases; everything they say is kept."""

    home: Path
    variables: dict[str, str]
    said: list[str]

    def run(self, *arguments: str, expected: int = 0) -> str:
        """Run a command of `tradewind`; return what it prints."""
        done = subprocess.run(
            command(*arguments),
            cwd=ROOT,
            env=environment(self.home, **self.variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_LIMIT_S,
        )
        self.said += [done.stdout, done.stderr]
        assert done.returncode == expected, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def house(
    databases: Databases, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    """A new home whose three databases and tracking server are up."""
    with _mlflow_server(databases.mlflow, tmp_path) as tracking:
        variables = {
            **TINY,
            "TRADEWIND_DATA": str(data_root),
            "TRADEWIND_LEDGER_URL": databases.ledger,
            # As people write it; the driver is the program's business.
            "TRADEWIND_DAGSTER_DATABASE_URL": databases.dagster.replace("+psycopg", ""),
            "TRADEWIND_REGISTRY__TRACKING_URI": tracking,
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield House(tmp_path / "home", variables, [])


def test_the_whole_chain(house: House, databases: Databases, tmp_path: Path) -> None:
    house.run("clock", "set", "2100-01-01T00:00")
    house.run("ingest", "--json")
    settings = load_settings(home=house.home)
    end_ms = _set_clock_before_the_end(house, settings)

    outcome = json.loads(house.run("train", "-f", "lightgbm", "--allow-failed-gates", "--json"))
    assert outcome["success"]
    (candidate,) = outcome["candidates"]
    assert candidate["alias"] == "champion"
    # The job let it in because there was nothing better; a person's promotion judges again.
    assert candidate["gates"] == "failed"
    house.run("promote", candidate["name"], str(candidate["version"]), "--why", "-", expected=4)

    _serve_and_trade(house, settings, end_ms)
    assert json.loads(house.run("ledger", "check", "--json"))["ok"]
    assert "decision" in json.loads(house.run("explain", "latest", "--json"))
    house.run("status", "--json")
    house.run("doctor", "--json")
    house.run("config", "show")

    _assert_rows(databases, outcome["run_id"])
    _assert_no_sqlite(house.home)
    _assert_never_said(house, databases, tmp_path)


def _set_clock_before_the_end(house: House, settings: Settings) -> int:
    """Set the market's time some bars before the newest one; return the newest one's close."""
    from datetime import UTC, datetime

    from tradewind.market.ingest import store_for

    market = settings.market
    last = store_for(settings).last_ts("BTCUSDT", market.timeframe)
    assert last is not None
    end_ms = last + market.timeframe_ms
    start = datetime.fromtimestamp((end_ms - REPLAYED_BARS * market.timeframe_ms) / 1000, tz=UTC)
    house.run("clock", "set", start.strftime("%Y-%m-%dT%H:%M"))
    return end_ms


def _serve_and_trade(house: House, settings: Settings, end_ms: int) -> None:
    from pipelines.paper import replay

    start_ms = end_ms - REPLAYED_BARS * settings.market.timeframe_ms
    with serving(settings, house.home / "logs" / "serving.log", {}) as url:
        with ServingClient(url) as client:
            answer = client.predict("BTCUSDT")
        assert 0 < answer.p_up < 1
        assert replay(settings, url, start_ms, end_ms) == REPLAYED_BARS + 1


def _assert_rows(databases: Databases, run_id: str) -> None:
    dagster = postgres.table_rows(databases.dagster)
    assert dagster["runs"] == 1
    assert dagster["event_logs"] > 50
    assert postgres.rows_that_hold(databases.dagster, run_id).keys() >= {"runs", "event_logs"}
    mlflow = postgres.table_rows(databases.mlflow)
    assert min(mlflow[name] for name in ("runs", "metrics", "model_versions")) > 0
    ledger = postgres.table_rows(databases.ledger)
    assert ledger["decisions"] >= REPLAYED_BARS
    assert ledger["predictions"] > 0
    assert ledger["settings_history"] == 1


def _assert_no_sqlite(home: Path) -> None:
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files
    found = []
    for path in files:
        with path.open("rb") as stream:
            if stream.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC:
                found.append(path)
    assert found == []


def _assert_never_said(house: House, databases: Databases, folder: Path) -> None:
    assert not [text for text in house.said if PLANTED in text]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert folder / "mlflow.log" in files
    assert [path for path in files if PLANTED.encode() in path.read_bytes()] == []
    for url in databases.all():
        assert postgres.rows_that_hold(url, PLANTED) == {}


def test_mlflow_directly_on_the_database(databases: Databases, tmp_path: Path) -> None:
    """Without a server between, the tracking URI is the database's own."""
    from registry.tracking import Tracking

    settings = load_settings(home=tmp_path / "home", registry={"tracking_uri": databases.mlflow})
    tracking = Tracking(settings)
    with tracking.start_run("direct", tags={"family": "none"}) as run:
        run.log_metrics({"auc": 0.5})
        run.log_text("kept", "note.txt")
    stored = tracking.client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert PLANTED not in stored.info.artifact_uri
    assert postgres.table_rows(databases.mlflow)["runs"] == 1
    assert postgres.rows_that_hold(databases.mlflow, PLANTED) == {}
    _assert_no_sqlite(tmp_path / "home")
