"""Texts of a retraining's runs that need no store."""

from __future__ import annotations

from assets.steps.card import CARD_FILE, DESCRIPTION_LIMIT, description
from assets.steps.record import asked_by, interval


def test_what_launched_a_run_is_told_from_its_tags() -> None:
    assert asked_by({}) == ("manual", "")
    assert asked_by({"dagster/schedule_name": "weekly"}) == ("weekly", "")
    tags = {"dagster/sensor_name": "retrain_sensor", "tradewind/reason": "drift"}
    assert asked_by(tags) == ("retrain_sensor", "drift")


def test_a_long_card_is_cut_at_a_line_and_says_where_the_rest_is() -> None:
    card = "\n".join(f"line {number} " + "x" * 60 for number in range(200))
    cut = description(card)
    assert len(cut) <= DESCRIPTION_LIMIT
    assert CARD_FILE in cut
    assert all(line in card for line in cut.splitlines()[:-2])
    assert description("short") == "short"


def test_figures_show_their_interval_where_there_is_one() -> None:
    metrics = {"auc": 0.5, "auc_low": 0.4, "auc_high": 0.6, "log_loss_minus_base_rate": 0.001}
    assert interval(metrics, "auc", 2) == "0.50 [0.40, 0.60]"
    assert interval(metrics, "log_loss_minus_base_rate", 3) == "+0.001"
    assert interval(metrics, "ece") == "–"
