"""Where a person sees why a candidate was turned away: MLflow's version page, Dagster's check."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.browser import journeys
from tests.browser.conftest import mlflow_server
from tests.pipelines.conftest import rejections  # noqa: F401
from tests.support.browser import Page, browser, chromium
from tests.support.dagster_ui import web_and_daemon
from tests.support.rejections import NAME, VARIABLES, Rejections

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(900)]
ASSET = "lightgbm/evaluation"


@dataclass(frozen=True)
class Pages:
    """The two addresses, and the version that each bad candidate became."""

    dagster: str
    mlflow: str
    versions: dict[str, int]


@pytest.fixture
def pages(rejections: Rejections, tmp_path: Path) -> Iterator[Pages]:  # noqa: F811
    """MLflow's and Dagster's pages over the home of the rejections."""
    chromium()  # no browser, no servers
    versions = {kind: done["candidates"][0]["version"] for kind, done in rejections.bad.items()}
    with (
        mlflow_server(rejections.home, tmp_path / "mlflow.log") as mlflow,
        web_and_daemon(rejections.home, tmp_path, **VARIABLES) as ui,
    ):
        yield Pages(ui.url, mlflow, versions)


@pytest.fixture
def page(pages: Pages, pictures: Path, tmp_path: Path) -> Iterator[Page]:
    """The browser, opened once the servers are ready."""
    with browser(tmp_path / "profile", pictures) as found:
        yield found


def test_the_reasons_stand_on_both_pages(pages: Pages, page: Page) -> None:
    text = journeys.open_version(page, pages.mlflow, NAME, pages.versions["overconfident"])
    assert "gate_reasons" in text
    assert re.search(r"ECE 0\.\d+ on \d+ walk-forward rows", text), text
    page.show("//*[normalize-space(text())='Gates failed']")
    page.picture("mlflow-rejected")

    journeys.open_checks(page, pages.dagster, ASSET)
    text = journeys.open_check(page, "ece", "walk-forward rows")
    assert re.search(r"ECE 0\.\d+ on \d+ walk-forward rows \(gate ≤ 0\.05", text), text
    assert "Failed" in text
    page.picture("dagster-rejected")
