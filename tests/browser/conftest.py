"""Real servers on a small home, a browser beside them, and one retraining launched by clicks.

Pictures go to the test's folder, or to the folder that `PICTURES` names (`make pictures`).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import httpx
import pytest

from pipelines.servers import free_port
from tests.browser import journeys
from tests.pipelines.conftest import TINY, environment, ingested  # noqa: F401
from tests.support.browser import Page, browser, chromium
from tests.support.dagster_ui import until, web_and_daemon
from tradewind.settings import load_settings

START_LIMIT_S = 120
STOP_LIMIT_S = 30
TRACKING = "TRADEWIND_REGISTRY__TRACKING_URI"


@dataclass(frozen=True)
class Site:
    """Where the pages are."""

    home: Path
    dagster: str
    mlflow: str
    variables: dict[str, str]


@pytest.fixture(scope="module")
def site(ingested: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:  # noqa: F811
    """MLflow's server, Dagster's web server and daemon, on one home."""
    chromium()  # no browser, no servers
    logs = tmp_path_factory.mktemp("logs")
    home = tmp_path_factory.mktemp("site") / "home"
    shutil.copytree(ingested, home)
    with mlflow_server(home, logs / "mlflow.log") as mlflow:
        variables = {**TINY, TRACKING: mlflow}
        with web_and_daemon(home, logs, **variables) as ui:
            yield Site(home, ui.url, mlflow, variables)


@contextmanager
def mlflow_server(home: Path, log: Path) -> Iterator[str]:
    """MLflow's server with one worker, on the home's own database."""
    folder = home / "mlflow"
    folder.mkdir(exist_ok=True)
    port = free_port()
    variables = environment(
        home, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", MLFLOW_DISABLE_TELEMETRY="true"
    )
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
                *("--port", str(port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
                *("--artifacts-destination", str(folder / "artifacts")),
            ],
            env=variables,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            until(lambda: _answers(f"{url}/health"), "MLflow ready", START_LIMIT_S)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(STOP_LIMIT_S)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures go."""
    named = os.environ.get("PICTURES")
    return Path(named).absolute() if named else tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def page(site: Site, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The browser, opened once the servers are ready."""
    with browser(tmp_path_factory.mktemp("profile"), pictures) as found:
        yield found


@pytest.fixture(scope="module")
def retrained(site: Site, page: Page) -> str:
    """A retraining with two changed fields, launched by clicks; returns the run's id."""
    journeys.open_launchpad(page, site.dagster)
    before = journeys.editor_lines(page)
    journeys.set_field(page, "days_back", str(journeys.DAYS_BACK))
    journeys.set_field(page, "allow_failed_gates", "true")
    assert journeys.editor_lines(page) != before
    page.see("No errors")
    page.picture("dagster-launchpad")
    run_id = journeys.launch(page)
    page.picture("dagster-run-going-on")
    assert journeys.watch(page) == "Success"
    page.picture("dagster-run")
    return run_id


@pytest.fixture(scope="module")
def serving_url(
    site: Site, retrained: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Serving, on the champions of the retraining."""
    from pipelines.servers import serving

    given = {**site.variables, "TRADEWIND_HOME": str(site.home)}
    with mock.patch.dict(os.environ, given):
        settings = load_settings()
    with serving(settings, tmp_path_factory.mktemp("serving") / "serving.log", {}) as url:
        yield url
