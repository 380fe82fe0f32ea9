"""Every model family by name; its implementation is imported when first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tradewind.errors import ErrorCode, TradewindError
from tradewind.models.base import Forecaster
from tradewind.settings import Settings

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "lightgbm": "tradewind.models._lightgbm:LightGBMForecaster",
        "gru": "tradewind.models._gru:GRUForecaster",
        "nhits": "tradewind.models._nhits:NHitsForecaster",
        "patchtst": "tradewind.models._patchtst:PatchTSTForecaster",
        "transformer": "tradewind.models._transformer:TransformerForecaster",
        "xgboost": "tradewind.models._xgboost:XGBoostForecaster",
    }
)
"""Family name to ``module:class``. A new family is one line here and one private module."""

FAMILY_SECTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gru": ("deep", "gru"),
        "lightgbm": ("boosted",),
        "nhits": ("deep", "nhits"),
        "patchtst": ("deep", "patchtst"),
        "transformer": ("deep",),
        "xgboost": ("boosted",),
    }
)
"""Sections of the settings that a family reads besides ``training`` and ``features``.

What another family reads does not decide this one's fit: changing it keeps finished work.
"""


def forecaster_class(family: str) -> type[Forecaster]:
    """Return the implementation of ``family``.

    Raises
    ------
    TradewindError
        ``bad_setting`` for a family that is not registered.
    """
    if family not in FAMILIES:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            f"family = {family!r} is not registered",
            f"Choose one of {', '.join(sorted(FAMILIES))}",
        )
    module, name = FAMILIES[family].split(":")
    implementation: type[Forecaster] = getattr(importlib.import_module(module), name)
    return implementation


def family_settings(family: str, settings: Settings) -> dict[str, Any]:
    """Return the sections that only some families read, those of ``family``, as JSON values."""
    return {
        section: getattr(settings, section).model_dump(mode="json")
        for section in FAMILY_SECTIONS[family]
    }


def create(family: str, settings: Settings) -> Forecaster:
    """Return an unfitted forecaster of ``family``, sized by ``settings``."""
    return forecaster_class(family).from_settings(settings)


def load_forecaster(family: str, folder: Path) -> Forecaster:
    """Read a fitted forecaster that `Forecaster.save` wrote to ``folder``.

    Raises
    ------
    TradewindError
        ``model_unusable`` where the folder is missing, foreign or damaged.
    """
    return forecaster_class(family).load(folder)
