"""How many entries the default rules would have let through, counted from the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.paper import entries_at_defaults
from tests.support import booking
from tests.support.predictions import prediction
from tests.support.synthetic import START_MS
from tradewind.contracts import Decision
from tradewind.ledger import open_ledger
from tradewind.settings import Settings, load_settings

STEP = 900_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings looser than the defaults, as the demo's are."""
    loose = {"thresholds": {"base": 0.51}, "engine": {"require_edge": False}}
    return load_settings(home=tmp_path, profile="quick", **loose)


def count(settings: Settings, *decisions: Decision) -> int:
    with open_ledger(settings) as ledger:
        for item in decisions:
            ledger.record_decision(item)
    return entries_at_defaults(settings, START_MS, START_MS + 100 * STEP)


def decided(
    bar: int,
    p_up: float,
    regime: str = "neutral",
    volatility: float = 0.02,
    net_edge: float | None = 0.001,
) -> Decision:
    inputs: dict[str, float | str] = {"volatility": volatility}
    if net_edge is not None:
        inputs["net_edge"] = net_edge
    update = {"prediction": prediction(p_up=p_up, regime=regime), "inputs": inputs}
    return booking.decision(bar=bar).model_copy(update=update)


@pytest.mark.parametrize(
    ("regime", "enters", "falls_short"),
    [("trend", 0.535, 0.525), ("neutral", 0.555, 0.545), ("meanrev", 0.575, 0.565)],
)
@pytest.mark.parametrize("short", [False, True])
def test_each_regime_has_its_own_threshold(
    settings: Settings, regime: str, enters: float, falls_short: float, short: bool
) -> None:
    both = (1 - enters, 1 - falls_short) if short else (enters, falls_short)
    assert count(settings, decided(0, both[0], regime), decided(1, both[1], regime)) == 1


def test_volatility_raises_the_threshold(settings: Settings) -> None:
    calm, wild = decided(0, 0.57), decided(1, 0.57, volatility=0.05)
    assert count(settings, calm, wild) == 1


def test_an_entry_needs_an_edge_above_costs(settings: Settings) -> None:
    none, refused_before = decided(0, 0.9, net_edge=0.0), decided(1, 0.9, net_edge=None)
    assert count(settings, none, refused_before, booking.decision(bar=2)) == 0


def test_another_strategys_decisions_are_not_counted(settings: Settings) -> None:
    other = decided(0, 0.9).model_copy(update={"strategy": "other", "decision_id": "other-0"})
    assert count(settings, other, decided(0, 0.9)) == 1
