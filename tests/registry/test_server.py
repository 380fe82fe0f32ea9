"""The same registry through a real MLflow server on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.aliases import history, promote_candidate, rollback
from registry.tracking import Tracking
from registry.versions import alias_table, fetch_bundle, list_versions, register_bundle, resolve
from tests.support.registered import EXAMPLE, NAME, OUTPUT
from tests.support.tracking_server import serve
from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.bundle import digest
from tradewind.settings import Settings


@pytest.fixture
def server(tmp_path: Path, empty_database: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    database = tmp_path / "server.db"
    database.write_bytes(empty_database.read_bytes())
    with serve(database, tmp_path) as started:
        yield started


@pytest.mark.slow
def test_everything_works_through_a_server_and_its_death_is_told_in_seconds(
    server: tuple[str, subprocess.Popen[bytes]],
    make_settings: Callable[..., Settings],
    make_bundle: Callable[..., Path],
    tmp_path: Path,
) -> None:
    url, process = server
    settings = make_settings(
        registry={"tracking_uri": url, "request_timeout_s": 5, "request_retries": 1}
    )
    tracking = Tracking(settings)
    versions = []
    for seed in range(2):
        with tracking.start_run("train", params={"epochs": 1}) as run:
            run.log_metrics({"auc": 0.5})
            run.log_text("report", "report.md")
            version = register_bundle(
                tracking,
                make_bundle(seed),
                run_id=run.run_id,
                name=NAME,
                input_example=EXAMPLE,
                output_example=OUTPUT,
            )
        versions.append(version)
        promote_candidate(tracking, version, True, ["fine"])
    assert alias_table(tracking) == {NAME: {"champion": 1, "challenger": 2}}
    assert [item.label for item in list_versions(tracking)] == [f"{NAME}/2", f"{NAME}/1"]
    with pytest.raises(TradewindError, match="no previous champion"):
        rollback(tracking, NAME, who="ann", why="test")
    assert resolve(tracking, "gru", "BTCUSDT") is None
    assert resolve(tracking, "lightgbm", "BTCUSDT", "canary") is None
    champion = resolve(tracking, "lightgbm", "BTCUSDT")
    assert champion is not None
    assert champion.digest == versions[0].digest
    folder = fetch_bundle(tracking, NAME, alias="champion", cache_dir=tmp_path / "cache")
    assert digest(folder) == champion.digest
    assert not settings.mlflow_artifacts.exists(), "the server keeps the artifacts"
    assert [change.to_version for change in history(tracking, NAME)] == [2, 1]

    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    started = time.monotonic()
    with pytest.raises(TradewindError) as caught:
        alias_table(tracking)
    assert time.monotonic() - started < 20
    assert caught.value.code is ErrorCode.TRACKING_UNREACHABLE
    assert url in caught.value.detail
