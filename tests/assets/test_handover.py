"""A champion makes way by its age alone only near its expiry."""

from __future__ import annotations

import pytest

from assets.steps.handover import handover_reason
from assets.steps.judge import Judgement
from assets.steps.release import _handover
from registry.versions import RegisteredVersion
from tradewind.settings import MS_PER_DAY, RegistrySettings, Settings


def _champion() -> RegisteredVersion:
    return RegisteredVersion(
        "tradewind.lightgbm.POOLED", 3, "run", "digest", "source", 0, tags={"data_end_ms": "0"}
    )


@pytest.mark.parametrize(
    ("expiry", "handover", "age", "makes_way"),
    [(21, 7, 13.9, False), (21, 7, 14, True), (21, 7, 90, True), (21, 0, 20.9, False),
     (21, 0, 21, True), (0, 7, 900, False)],
)  # fmt: skip
def test_from_when_on(expiry: float, handover: float, age: float, makes_way: bool) -> None:
    settings = RegistrySettings(model_expiry_days=expiry, handover_days=handover)
    why = handover_reason(settings, _champion(), round(age * MS_PER_DAY))
    assert (why is not None) == makes_way
    if why is not None:
        assert "tradewind.lightgbm.POOLED/3" in why
        assert f"{age:.1f} days" in why


def test_where_there_is_no_champion_nobody_makes_way() -> None:
    assert handover_reason(RegistrySettings(), None, 10**12) is None


@pytest.mark.parametrize(
    ("age", "compared", "makes_way"),
    [(13, True, False), (15, True, True), (15, False, False), (22, False, True)],
)
def test_who_was_not_compared_waits_until_the_champion_has_expired(
    age: int, compared: bool, makes_way: bool
) -> None:
    gate = {"name": "champion", "passed": True, "value": 0.001 if compared else None}
    judged = Judgement("tradewind.lightgbm.POOLED", 4, "run", True, [gate], {}, [])
    why = _handover(Settings(), judged, _champion(), age * MS_PER_DAY)
    assert (why is not None) == makes_way
