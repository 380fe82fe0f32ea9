"""The data tier in Dagster's pages: a backfill, the graph it filled, the checks it ran."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.browser import journeys
from tests.support.browser import Page, browser, chromium
from tests.support.dagster_ui import Ui, web_and_daemon
from tradewind.ledger import open_ledger, set_replay_clock
from tradewind.settings import load_settings

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.timeout(600)]
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
SET, HOUR_MS = "binance_spot", 3_600_000
BARS = 10_000
"""Hourly bars of a symbol, the newest ones: the exchange was down four times in them."""
OUTAGES, HOURS_DOWN = 4, 11
PLOT_MIN_WIDTH = 300
ASSETS = 5


@pytest.fixture
def ui(data_root: Path, tmp_path: Path) -> Iterator[Ui]:
    """Dagster on an empty home, whose clock stands at the close of the newest real bar."""
    chromium()  # no browser, no servers
    folder = tmp_path / "bars" / f"{SET}_1h"
    folder.mkdir(parents=True)
    for symbol in SYMBOLS:
        frame = pl.read_parquet(data_root / folder.name / f"{symbol}_1h.parquet").tail(BARS)
        frame.write_parquet(folder / f"{symbol}_1h.parquet")
    home = tmp_path / "home"
    with open_ledger(load_settings(home=home, clock="replay")) as ledger:
        set_replay_clock(ledger, int(frame["ts"][-1]) + HOUR_MS)
    variables = {
        "TRADEWIND_CLOCK": "replay",
        "TRADEWIND_DATA": str(tmp_path / "bars"),
        "TRADEWIND_MARKET": f'{{"set_id": "{SET}", "timeframe": "1h"}}',
    }
    with web_and_daemon(home, tmp_path, **variables) as found:
        yield found


@pytest.fixture
def page(ui: Ui, pictures: Path, tmp_path: Path) -> Iterator[Page]:
    """The browser, opened once the servers are ready."""
    with browser(tmp_path / "profile", pictures) as found:
        yield found


def test_a_backfill_fills_the_graph_and_its_checks_have_figures(ui: Ui, page: Page) -> None:
    journeys.open_graph(page, ui.url, "market")
    page.until(lambda: re.search(r"(?<!\d)0% filled", page.text), "an empty asset")
    backfill = journeys.launch_backfill(page, len(SYMBOLS))
    journeys.open_backfills(page, ui.url, backfill)
    text = journeys.watch_backfill(page, ui.url, backfill, "dagster-backfill")
    assert "Succeeded" in text
    assert text.count("100% completed") == ASSETS

    journeys.open_graph(page, ui.url, "market")
    page.until(lambda: page.text.count("100% filled") == ASSETS, "every asset filled")
    page.picture("dagster-data-graph")

    journeys.open_checks(page, ui.url, "bars")
    text = journeys.open_check(page, "gaps", "missing_bars")
    assert f"missing_bars\n{HOURS_DOWN}\n" in text
    assert f"confirmed\n{OUTAGES}\n" in text
    page.picture("dagster-data-checks")
    assert journeys.open_picture(page, "coverage") > PLOT_MIN_WIDTH
    page.picture("dagster-data-plot")
