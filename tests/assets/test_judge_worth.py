"""A candidate is saved with the worth that its walk-forward record gives it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from assets.steps.judge import _saved
from assets.workspace import Workspace
from tests.models.test_bundle import _bundle
from tests.models.test_track_record import _rows
from tradewind.models.bundle import ModelBundle
from tradewind.models.evaluation import EvaluationReport
from tradewind.models.track_record import record_skill
from tradewind.models.walk_forward import OutOfSample


def _worth(folder: Path, rows: OutOfSample | None) -> tuple[float, float]:
    """Return the skill before and after saving, the latter as the files hold it."""
    bundle = _bundle("lightgbm")
    work = cast(Workspace, SimpleNamespace(bundle=folder / "saved"))
    report = cast(
        EvaluationReport, SimpleNamespace(metrics=lambda: {"auc": 0.5}, out_of_sample=rows)
    )
    saved = _saved(bundle, report, work)
    assert saved.meta.metrics == {"auc": 0.5}
    assert ModelBundle.load(work.bundle).meta == saved.meta
    return bundle.meta.skill, saved.meta.skill


def test_the_record_decides(tmp_path: Path) -> None:
    rows = _rows(60, strength=0.8)
    before, after = _worth(tmp_path, rows)
    assert after == pytest.approx(record_skill(rows, otherwise=before))
    assert after != before


@pytest.mark.parametrize("days", [0, 10])
def test_without_a_long_record_the_slice_stands(tmp_path: Path, days: int) -> None:
    before, after = _worth(tmp_path, _rows(days, strength=0.8) if days else None)
    assert after == before
