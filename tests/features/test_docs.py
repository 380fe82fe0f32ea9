"""The documentation shows the table and the rules as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tradewind.features.definitions import TABLE, feature_table, warmup_of
from tradewind.regimes.kinds import METRICS, Regime
from tradewind.regimes.views import condition_view, direction_view, regime_view
from tradewind.settings import load_settings

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_table_of_features_is_the_definitions() -> None:
    text = (DOCS / "features.md").read_text()
    shown = text.split("feature_table -->\n")[1].split("\n<!-- end")[0]
    assert shown == feature_table(load_settings())


@pytest.mark.parametrize("regime", Regime)
def test_every_regime_is_documented_with_its_views(regime: Regime) -> None:
    rows = (DOCS / "regimes.md").read_text().splitlines()
    row = next(line for line in rows if line.startswith("| `") and f"`{regime.value}`" in line)
    for view in (regime_view(regime), direction_view(regime), condition_view(regime)):
        assert view.value in row


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_documented(metric: str) -> None:
    assert f"`{metric}`" in (DOCS / "regimes.md").read_text()


def test_warm_ups_are_those_of_the_numbers() -> None:
    settings = load_settings()
    bars = {feature.name: warmup_of(feature, settings) for feature in TABLE}
    assert (bars["ema_200"], bars["ratio_BTC_ETH"], bars["ret_96"]) == (3000, 199, 96)
