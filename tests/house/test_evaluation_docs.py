"""The page on evaluation names every setting with its default."""

from __future__ import annotations

from pathlib import Path

from tradewind.settings import EvaluationSettings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"


def test_every_setting_is_on_the_page_with_its_default() -> None:
    rows = [row for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| `")]
    told: dict[str, str] = {}
    for row in rows:
        names, defaults = row.split("|")[1:3]
        values = defaults.split(", ")
        told |= dict(zip((n.strip(" `") for n in names.split(",")), values, strict=True))
    defaults = EvaluationSettings()
    assert set(told) == set(EvaluationSettings.model_fields)
    for name, value in told.items():
        default = getattr(defaults, name)
        if isinstance(default, tuple):
            assert value.strip() == f"{default[0]:.2f} … {default[-1]:.2f}"
        else:
            assert value.strip() == ("none" if default is None else str(default)), name
