"""One walk over a planted history, shared by the tests that only look at its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.rolling import planted_history, rolling_settings
from tradewind.models.rolling.evaluate import Evaluation, evaluate_history
from tradewind.settings import Settings, load_settings

FAMILIES = ("lightgbm", "transformer")


@dataclass
class Walked:
    """Where the walk was done, and what it found."""

    work: Path
    settings: Settings
    found: Evaluation
    pictures: dict[str, Path] = field(default_factory=dict)


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    """Both families over forty days with a signal."""
    work = tmp_path_factory.mktemp("walked")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRADEWIND_DATA", raising=False)
        settings = rolling_settings(
            lambda **given: load_settings(home=work / "home", profile="quick", **given)
        )
    found = evaluate_history(settings, planted_history(), FAMILIES, workdir=work)
    return Walked(work, settings, found)
