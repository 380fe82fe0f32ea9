"""The settings of the search for better hyperparameters."""

from __future__ import annotations

from pydantic import Field

from tradewind._settings_base import Section


class SearchSettings(Section):
    """How a search is run, and what it may not look at."""

    trials: int = Field(20, ge=2, description="trials, the defaults' own being the first")
    holdout_days: int = Field(
        28, ge=7, description="newest days that no trial sees; best and defaults meet there once"
    )
    startup_trials: int = Field(
        8, ge=1, description="trials drawn at random before the sampler learns from them"
    )
    prune_after_folds: int = Field(
        2, ge=1, description="folds a trial is granted before it may be stopped as hopeless"
    )
