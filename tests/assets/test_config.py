"""The forms of the launchpad: every field tells unit, bounds and default."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from assets.config import (
    Choices,
    Family,
    HistoryConfig,
    IngestConfig,
    PromoteConfig,
    RetrainConfig,
    RollbackConfig,
    TrainingConfig,
    UnitsConfig,
)
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import TrainingSettings, load_settings

FORMS = [
    HistoryConfig,
    IngestConfig,
    TrainingConfig,
    RetrainConfig,
    UnitsConfig,
    PromoteConfig,
    RollbackConfig,
]


@pytest.mark.parametrize("form", FORMS)
def test_every_field_says_its_default_and_its_bounds(form: type[Choices]) -> None:
    for name, field in form.model_fields.items():
        assert field.description, name
        assert "default" in field.description, name
        for bound in field.metadata:
            for limit in ("ge", "le", "min_length"):
                if (value := getattr(bound, limit, None)) is not None:
                    assert str(value) in field.description, (name, limit)


def test_defaults_are_the_settings() -> None:
    training = load_settings().training
    form = RetrainConfig()
    assert (form.days_back, form.epochs, form.seed) == (
        training.days_back,
        training.epochs,
        training.seed,
    )
    assert [family.value for family in form.families] == list(training.families)
    assert form.symbols == []


def test_the_families_to_choose_from_are_those_of_the_settings() -> None:
    (allowed, _) = get_args(TrainingSettings.model_fields["families"].annotation)
    assert {family.value for family in Family} == set(get_args(allowed))


@pytest.mark.parametrize(
    ("form", "values", "words"),
    [
        (RetrainConfig, {"days_back": 19}, "days_back = 19"),
        (RetrainConfig, {"days_back": 3651}, "20 to 3650"),
        (RetrainConfig, {"epochs": 0}, "epochs = 0"),
        (RetrainConfig, {"epochs": 501}, "1 to 500"),
        (RetrainConfig, {"seed": -1}, "seed = -1"),
        (RetrainConfig, {"families": ["oracle"]}, "oracle"),
        (HistoryConfig, {"refit_days": 0}, "1 to 3650"),
        (HistoryConfig, {"deep_refit_months": 13}, "1 to 12"),
        (HistoryConfig, {"days_back_max": 29}, "30 to 3650"),
        (HistoryConfig, {"horizon": 0}, "1 to 1000"),
        (PromoteConfig, {"name": "x", "version": 0, "why": "because"}, "version = 0"),
        (PromoteConfig, {"name": "x", "version": 1, "why": ""}, "at least 3 characters"),
        (PromoteConfig, {"name": "x", "version": 1, "why": "because", "to": "king"}, "king"),
        (RollbackConfig, {"name": "x", "why": "no"}, "why = 'no'"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(
    form: type[Choices], values: dict[str, Any], words: str
) -> None:
    with pytest.raises(TradewindError) as caught:
        form(**values)
    assert caught.value.code is ErrorCode.BAD_INPUT
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
