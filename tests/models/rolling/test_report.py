"""The report: whole, self-contained, and honest about what was not earned."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.rolling.conftest import Walked
from tests.support.rolling import rolling_settings
from tradewind.models.rolling.canaries import coin_flips, slices_apart
from tradewind.models.rolling.evaluate import Evaluation
from tradewind.models.rolling.figures import figures, trade
from tradewind.models.rolling.pictures import save_evaluation_pictures
from tradewind.models.rolling.report import render
from tradewind.models.rolling.verdict import findings
from tradewind.settings import Settings

SECTIONS = ("verdict", "comparison", "every-row", "paired", "pictures", "luck", "leaks", "folds")


@pytest.fixture
def found(walk: Walked) -> Evaluation:
    return walk.found


@pytest.fixture
def pictures(walk: Walked) -> dict[str, Path]:
    if not walk.pictures:
        drawn = save_evaluation_pictures(walk.settings, walk.found, walk.work / "pictures")
        walk.pictures.update(drawn)
    return walk.pictures


def _facts(settings: Settings, **more: Any) -> dict[str, Any]:
    return {
        "symbols": ["BTCUSDT", "ETHUSDT"],
        "pooled": True,
        "shuffled_labels": False,
        "horizon": 4,
        "end_ms": 1_739_000_000_000,
        "evaluation": settings.evaluation.model_dump(mode="json"),
        "boosted": settings.boosted.model_dump(mode="json"),
        **more,
    }


def _page(settings: Settings, found: Evaluation, pictures: dict[str, Path], **more: Any) -> str:
    canaries = {
        "lookahead": {
            "ok": False,
            "symbols": {
                "BTCUSDT": {"ok": False, "rows": 9, "cuts": 2, "offending": ["<leak>"]},
            },
        },
        "slices": slices_apart(settings, found.walks),
        "coin_flips": coin_flips(found.figures["same"], settings.gates.confidence_level),
    }
    facts = _facts(settings, **more)
    return render(settings, found, findings(settings, found), canaries, facts, pictures)


def test_it_is_one_file_with_everything_in_it(
    found: Evaluation, make_settings: Callable[..., Settings], pictures: dict[str, Path]
) -> None:
    page = _page(rolling_settings(make_settings), found, pictures)
    for section in SECTIONS:
        assert f'id="{section}"' in page
    assert page.count("data:image/png;base64,") == 8
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "&lt;leak&gt;" in page  # what comes from data is never markup
    assert "<leak>" not in page
    told = found.figures["same"]["ensemble"]["pooled"]
    assert f"{told['auc']:.4f}" in page
    assert "FAILED" in page


def test_a_shuffled_run_says_so_at_the_top(
    found: Evaluation, make_settings: Callable[..., Settings], pictures: dict[str, Path]
) -> None:
    page = _page(rolling_settings(make_settings), found, pictures, shuffled_labels=True)
    assert "Leak canary" in page.split('id="verdict"')[0]


def test_no_net_edge_is_said_plainly(
    found: Evaluation, make_settings: Callable[..., Settings]
) -> None:
    settings = rolling_settings(make_settings)
    poor = _with(found, sharpe=-1.0, sharpe_low=-2.0, sharpe_high=0.5, trades=50.0)
    (edge,) = [part for part in findings(settings, poor) if part.title == "Net edge"]
    assert edge.tone == "bad"
    assert edge.text.startswith("None")
    idle = _with(found, trades=0.0)
    (edge,) = [part for part in findings(settings, idle) if part.title == "Net edge"]
    assert "nothing was earned" in edge.text
    lucky = _with(found, sharpe=2.0, sharpe_low=0.5, sharpe_high=3.0, trades=50.0)
    lucky = _with(lucky, deflated_sharpe=0.6)
    (edge,) = [part for part in findings(settings, lucky) if part.title == "Net edge"]
    assert edge.tone == "bad"  # an interval above 0 that as many trials would show by luck
    (edge,) = [
        part
        for part in findings(settings, _with(lucky, deflated_sharpe=0.99))
        if part.title == "Net edge"
    ]
    assert edge.tone == "good"


def test_the_surest_rows_are_held_against_costs(
    found: Evaluation, make_settings: Callable[..., Settings]
) -> None:
    settings = rolling_settings(make_settings)
    rich = _with(found, confident_5pct_gross_bps=80.0, confident_5pct_gross_bps_low=60.0)
    (sure,) = [part for part in findings(settings, rich) if part.title.startswith("The surest")]
    assert sure.tone == "good"
    thin = _with(found, confident_5pct_gross_bps=8.0, confident_5pct_gross_bps_low=2.0)
    (sure,) = [part for part in findings(settings, thin) if part.title.startswith("The surest")]
    assert sure.tone == "bad"


def test_a_handful_of_sure_rows_proves_nothing(
    walk: Walked, make_settings: Callable[..., Settings]
) -> None:
    """One row that was right once is not right 1.000 [1.000, 1.000] of the time."""
    settings = rolling_settings(make_settings)
    few = walk.found.same["lightgbm"].subset(np.arange(60))
    told = figures(settings, few, trade(settings, few))
    assert told["confident_5pct_accuracy"] is not None
    assert told["confident_5pct_accuracy_low"] is told["confident_5pct_gross_bps_high"] is None
    found = _with(walk.found, **told)
    (sure,) = [part for part in findings(settings, found) if part.title.startswith("The surest")]
    assert (sure.tone, "too few" in sure.text) == ("plain", True)


def test_a_choice_that_loses_money_speaks_for_nobody(
    found: Evaluation, make_settings: Callable[..., Settings]
) -> None:
    """The same strategy may be best in both halves because it loses least."""
    settings = rolling_settings(make_settings)
    tones = []
    for loses in (0.2, 0.9):
        tested = {**found.luck["overfitting"], "probability": 0.05, "loss_probability": loses}
        told = replace(found, luck={**found.luck, "overfitting": tested})
        (chosen,) = [p for p in findings(settings, told) if p.title == "Choosing by backtest"]
        tones.append(chosen.tone)
    assert tones == ["good", "bad"]


def test_it_says_that_trees_are_grown_again_nearer_to_what_is_judged(
    found: Evaluation, make_settings: Callable[..., Settings], pictures: dict[str, Path]
) -> None:
    settings = rolling_settings(make_settings)
    assert "grown once more" in _page(settings, found, pictures, boosted={"refit": True})
    assert "grown once more" not in _page(settings, found, pictures, boosted={"refit": False})


def _with(found: Evaluation, **changed: Any) -> Evaluation:
    same = {
        name: {**parts, "pooled": {**parts["pooled"], **changed}}
        for name, parts in found.figures["same"].items()
    }
    return replace(found, figures={**found.figures, "same": same})
