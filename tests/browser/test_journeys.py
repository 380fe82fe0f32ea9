"""The pages that people use, by clicks in a real browser on real servers."""

from __future__ import annotations

import re

import pytest

from tests.browser import journeys
from tests.browser.conftest import Site
from tests.support.browser import Page

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(900)]
FIGURES = ("auc", "log_loss", "brier", "ece")
PICTURE_MIN_WIDTH = 300


def test_a_retraining_with_changed_fields_ends_well(site: Site, page: Page, retrained: str) -> None:
    journeys.open_checks(page, site.dagster, "lightgbm/evaluation")
    page.picture("dagster-asset")
    page.click("//*[@role='tab'][starts-with(normalize-space(), 'Checks')]")
    for check in ("artefact", "smoke"):
        page.click(f"(//a[contains(@href, '{check}')] | //*[normalize-space(text())='{check}'])[1]")
        page.see("Evaluation result", "Passed")
    page.click("(//a[contains(@href, 'ece')] | //*[normalize-space(text())='ece'])[1]")
    text = page.see("Evaluation result", "walk-forward rows")
    assert re.search(r"(on|there are) \d+( walk-forward rows|: raise)", text), text
    page.picture("dagster-checks")


def test_two_runs_beside_each_other_and_a_picture(site: Site, page: Page, retrained: str) -> None:
    journeys.open_runs(page, site.mlflow, "tradewind")
    journeys.search_runs(page, "tags.kind = 'candidate'")
    journeys.unfold_only(page, "transformer")
    for family in ("lightgbm", "transformer"):
        journeys.select_run(page, family)
    page.picture("mlflow-runs")
    page.press("Compare")
    days = journeys.DAYS_BACK
    text = page.see("Run Name:", "Metrics", *FIGURES)
    assert re.search(rf"days_back\s+{days}\s+{days}", text), text
    page.show("//*[normalize-space(text())='Metrics']")
    page.picture("mlflow-compare")

    page.click("(//a[contains(@href, '/runs/')])[1]")
    page.see("Run ID", "Metrics (")
    width = journeys.open_artifact(page, "pictures", "reliability")
    assert width > PICTURE_MIN_WIDTH
    page.picture("mlflow-reliability")


def test_a_registered_version_shows_its_card(site: Site, page: Page, retrained: str) -> None:
    text = journeys.open_version(page, site.mlflow, "tradewind.lightgbm.POOLED", 1)
    assert "champion" in text
    assert re.search("intended use", text, re.IGNORECASE), text
    assert retrained in page.text
    page.picture("mlflow-version")


def test_a_prediction_from_the_documentation_page(page: Page, serving_url: str) -> None:
    text = journeys.try_out(page, serving_url, "/ml/predict_deep", symbol="BTCUSDT")
    assert re.search(r"Server response\s+Code\s+Details\s+200", text), text
    assert "tradewind.transformer.POOLED/1" in text
    page.show("//*[normalize-space(text())='Curl']")
    page.picture("serving-docs")
