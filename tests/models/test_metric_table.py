"""The table of metric names: complete, unambiguous, and the one that the documents show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tradewind.models.metric_table import METRICS, known, markdown

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "comparing-runs.md"


def test_no_name_is_spelt_by_two_rows() -> None:
    names = [name for row in METRICS for name in row.spellings()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "name",
    ["auc", "auc_low", "auc_base_rate", "wf_log_loss_minus_base_rate_high", "BTCUSDT/auc_logistic"],
)
def test_names_of_the_scheme_are_known(name: str) -> None:
    assert known(name)


@pytest.mark.parametrize("name", ["base_rate_auc", "fold_auc", "BTCUSDT/psi_worst", "loss", ""])
def test_other_names_are_not(name: str) -> None:
    assert not known(name)


def test_a_baseline_stands_beside_its_metric_in_a_sorted_list() -> None:
    names = sorted(name for row in METRICS for name in row.spellings() if name.startswith("auc"))
    assert names == [
        "auc",
        "auc_base_rate",
        "auc_champion",
        "auc_high",
        "auc_logistic",
        "auc_low",
        "auc_momentum",
    ]


def test_the_document_shows_this_table() -> None:
    assert markdown() in DOCUMENT.read_text(encoding="utf-8")
