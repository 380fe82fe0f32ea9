"""What a person may choose when launching a run; the launchpad shows these texts.

Dagster's schema view shows a field's type, default and description, not pydantic's bounds: each
description therefore states unit, bounds and default itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from typing import Any, Literal

from dagster import Config
from pydantic import Field, ValidationError

from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import load_settings

MIN_DAYS_BACK, MAX_DAYS_BACK = 20, 3650
MIN_EPOCHS, MAX_EPOCHS = 1, 500
MIN_HISTORY_DAYS = 30
MAX_HORIZON = 1000
MIN_REASON = 3
MAX_TRIALS = 1000

_settings = load_settings()
_training = _settings.training
_search = _settings.search
_history = _settings.evaluation
_symbols = ", ".join(_settings.market.symbols)
_families = ", ".join(_training.families)
_pooled = [name for name in _training.families if name in _training.pooled_families]


class Family(StrEnum):
    """Model families; Dagster shows the members' names, so these are the values."""

    lightgbm = "lightgbm"
    xgboost = "xgboost"
    transformer = "transformer"
    nhits = "nhits"
    patchtst = "patchtst"
    gru = "gru"


def names(families: Sequence[Family]) -> list[str]:
    """Return plain texts: Dagster cannot store an enum's member in a run."""
    return [family.value for family in families]


class Choices(Config):
    """Base of the forms: a wrong value is told in one line, with the field's own description."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "config"
            field = type(self).model_fields.get(name)
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"{name} = {first['input']!r}: {first['msg'].lower()}",
                f"{name}: {field.description}" if field else "Choose one of the fields shown",
            ) from None


class IngestConfig(Choices):
    """Choices of an ingestion."""

    since: str | None = Field(
        default=None,
        description="UTC date from which to read, YYYY-MM-DD such as 2025-01-31; default null: "
        f"resume after the last stored bar, or {_settings.market.history_days} days back in an "
        "empty store",
    )


class TrainingConfig(Choices):
    """Choices of training one unit."""

    days_back: int = Field(
        default=_training.days_back,
        ge=MIN_DAYS_BACK,
        le=MAX_DAYS_BACK,
        description=f"days of labelled bars up to now; {MIN_DAYS_BACK} to {MAX_DAYS_BACK}; "
        f"default {_training.days_back} (setting training.days_back)",
    )
    epochs: int = Field(
        default=_training.epochs,
        ge=MIN_EPOCHS,
        le=MAX_EPOCHS,
        description=f"epochs of the deep families (boosted trees have none); {MIN_EPOCHS} to "
        f"{MAX_EPOCHS}; default {_training.epochs} (setting training.epochs)",
    )
    seed: int = Field(
        default=_training.seed,
        ge=0,
        description="seed, a whole number from 0; the same seed and data give the same model; "
        f"default {_training.seed} (setting training.seed)",
    )
    allow_failed_gates: bool = Field(
        default=False,
        description="true or false; default false. True, for paper only: where there is no "
        "champion at all, the candidate serves even if it misses a gate, tagged gates=failed",
    )


def _chosen_families(verb: str) -> Any:
    return Field(
        default=list(_training.families),
        validate_default=True,
        description=f"model families to {verb}, any of {_families}; empty: all of these; "
        f"default {_families} (setting training.families)",
    )


class RetrainConfig(TrainingConfig):
    """Choices of a retraining: which units, and how."""

    symbols: list[str] = Field(
        default=[],
        description=f"symbols that get a model of their own, any of {_symbols}; default empty: "
        f"every traded symbol, with one pooled model for each of {', '.join(_pooled)}",
    )
    families: list[Family] = _chosen_families("train")


class SearchConfig(Choices):
    """Choices of a search for hyperparameters."""

    family: Family = Field(
        default=Family(_training.families[0]),
        validate_default=True,
        description=f"model family to search for, one of {_families}; "
        f"default {_training.families[0]}",
    )
    symbol: str = Field(
        default="",
        description=f"one symbol with a model of its own, any of {_symbols}; default empty: the "
        "pooled model",
    )
    trials: int = Field(
        default=_search.trials,
        ge=2,
        le=MAX_TRIALS,
        description=f"trials, the first being the present settings; 2 to {MAX_TRIALS}; a later "
        f"run with more goes on; default {_search.trials} (setting search.trials)",
    )
    days_back: int = Field(
        default=_training.days_back,
        ge=MIN_DAYS_BACK,
        le=MAX_DAYS_BACK,
        description=f"days of labelled bars up to now; {MIN_DAYS_BACK} to {MAX_DAYS_BACK}; "
        f"default {_training.days_back} (setting training.days_back)",
    )
    holdout_days: int = Field(
        default=_search.holdout_days,
        ge=7,
        le=MAX_DAYS_BACK,
        description="newest days that no trial sees, where the best and the defaults meet once; "
        f"7 to {MAX_DAYS_BACK}; default {_search.holdout_days} (setting search.holdout_days)",
    )


class UnitsConfig(Choices):
    """Which champions to look at."""

    symbols: list[str] = Field(
        default=[],
        description=f"symbols with a model of their own, any of {_symbols}; default empty: the "
        "models that a retraining of every symbol makes",
    )
    families: list[Family] = _chosen_families("look at")


class HistoryConfig(Choices):
    """Choices of an evaluation over the whole history."""

    symbols: list[str] = Field(
        default=[],
        description=f"symbols that are judged, any of {_symbols}; default empty: all of these",
    )
    families: list[Family] = Field(
        default=list(_training.families),
        validate_default=True,
        description=f"model families, walked in this order, any of {_families}; empty: all of "
        f"these; default {_families} (setting training.families)",
    )
    since: str = Field(
        default=_history.since.isoformat(),
        description="first UTC day that is judged, YYYY-MM-DD; everything before it is the past "
        f"of the first fold; default {_history.since} (setting evaluation.since)",
    )
    refit_days: int = Field(
        default=_history.refit_days,
        ge=1,
        le=MAX_DAYS_BACK,
        description=f"days between two refits of boosted trees; 1 to {MAX_DAYS_BACK}; default "
        f"{_history.refit_days} (setting evaluation.refit_days)",
    )
    deep_refit_months: int = Field(
        default=_history.deep_refit_months,
        ge=1,
        le=12,
        description="calendar months between two refits of deep families; 1 to 12; default "
        f"{_history.deep_refit_months} (setting evaluation.deep_refit_months)",
    )
    days_back_max: int | None = Field(
        default=_history.days_back_max,
        ge=MIN_HISTORY_DAYS,
        le=MAX_DAYS_BACK,
        description=f"days that a refit looks back; {MIN_HISTORY_DAYS} to {MAX_DAYS_BACK}, or "
        f"null: to the first bar; default {_history.days_back_max or 'null'} (setting "
        "evaluation.days_back_max)",
    )
    horizon: int = Field(
        default=_training.horizon,
        ge=1,
        le=MAX_HORIZON,
        description=f"bars ahead that a label looks; 1 to {MAX_HORIZON}; default "
        f"{_training.horizon} (setting training.horizon)",
    )
    per_symbol: bool = Field(
        default=False,
        description="true or false; default false: one model over all symbols. True: a model of "
        "its own for each",
    )
    shuffle_labels: bool = Field(
        default=False,
        description="true or false; default false. True is the leak canary: labels are dealt out "
        "anew, and the run fails unless every AUC interval covers 0.5",
    )

    def first_day(self) -> date:
        """Return ``since`` as a day.

        Raises
        ------
        TradewindError
            ``bad_input`` when it is none.
        """
        try:
            return date.fromisoformat(self.since)
        except ValueError as error:
            raise TradewindError(
                ErrorCode.BAD_INPUT,
                f"since = {self.since!r} is not a date",
                "Write it as 2025-01-31 (UTC)",
            ) from error


class RollbackConfig(Choices):
    """Which model goes back to its previous champion, and why."""

    name: str = Field(
        description="registered model, tradewind.FAMILY.SYMBOL or tradewind.FAMILY.POOLED, e.g. "
        "tradewind.lightgbm.POOLED; no default",
    )
    why: str = Field(
        min_length=MIN_REASON,
        description=f"the reason, at least {MIN_REASON} characters; recorded with the change; "
        "no default",
    )


class PromoteConfig(RollbackConfig):
    """Which version gets which alias, and why."""

    version: int = Field(
        ge=1, description="version number in MLflow's registry, a whole number from 1; no default"
    )
    to: Literal["champion", "challenger", "canary"] = Field(
        default="champion",
        description="alias that the version gets: champion serves and trades, challenger is only "
        "watched, canary serves a small share; default champion",
    )
