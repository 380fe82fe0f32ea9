"""The fingerprint of a family's code: what it builds on counts, how it is written does not."""

from __future__ import annotations

import ast

import pytest

from tradewind.models import code
from tradewind.models.families import FAMILIES


def test_families_differ() -> None:
    found = {family: code.family_code(family) for family in FAMILIES}
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        ("tradewind.models._deep_fit", True),
        ("tradewind.models._mc_dropout", True),
        ("tradewind.models.calibration", True),
        ("tradewind.models._lightgbm", False),
        ("tradewind.models.report", False),
    ],
)
def test_only_what_a_family_builds_on_counts(
    module: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code.family_code("transformer")
    read = code._source
    monkeypatch.setattr(
        code, "_source", lambda name: read(name) + ("\nCHANGED = 1\n" if name == module else "")
    )
    assert (code.family_code.__wrapped__("transformer") != before) is counts


def test_comments_and_docstrings_do_not_count() -> None:
    plain = ast.parse("def f(x):\n    return x + 1\n")
    told = ast.parse('"""Module."""\ndef f(x):\n    """Add."""\n    # why\n    return x + 1\n')
    assert ast.dump(code._without_docstrings(told)) == ast.dump(code._without_docstrings(plain))
