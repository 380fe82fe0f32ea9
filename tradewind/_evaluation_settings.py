"""The settings of the evaluation over the whole history."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from tradewind._settings_base import Section


class EvaluationSettings(Section):
    """Walk forward over all stored bars: how often models are refitted, and on what.

    The sizes here replace those of `training` and `boosted` for the folds of the past alone:
    there are many folds, and each stands for one retraining.
    """

    since: date = Field(date(2025, 1, 1), description="first UTC day that is judged")
    refit_days: int = Field(7, ge=1, description="days between refits of boosted trees")
    deep_refit_months: int = Field(
        3, ge=1, le=12, description="calendar months between refits of deep families"
    )
    days_back_max: int | None = Field(
        None, ge=30, description="days that a refit looks back; None: to the first bar"
    )
    valid_days: int = Field(30, ge=1, description="days that stop a fit early, before calib_days")
    calib_days: int = Field(60, ge=1, description="days that calibrate, just before those judged")
    skill_days: int = Field(
        182,
        ge=30,
        description="days walked before those judged, and looked back at each refit, to weigh the "
        "ensemble's members: what a retraining's own walk-forward spans",
    )
    embargo_bars: int = Field(
        16, ge=0, description="bars left out between slices beyond the purged horizon"
    )
    stride: int = Field(
        8, ge=1, description="every k-th bar is compared over families; trees are judged on all too"
    )
    bag: int = Field(3, ge=2, description="boosted-tree seeds of a past fold")
    fit_stride: int = Field(
        4, ge=1, description="boosted trees of a past fold are fitted on every k-th bar"
    )
    max_rounds: int = Field(300, ge=1, description="trees of a booster of a past fold, at most")
    epochs: int = Field(4, ge=1, description="epochs of a deep family's past fold, at most")
    max_epoch_samples: int = Field(4000, ge=100, description="deep samples drawn per epoch")
    passes: int = Field(8, ge=2, description="stochastic passes of deep families")
    thresholds: tuple[float, ...] = Field(
        (0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.58, 0.60),
        min_length=1,
        description="entry thresholds tried, over which luck is deflated",
    )
    overfitting_blocks: int = Field(
        16, ge=4, le=20, multiple_of=2, description="blocks of time that CSCV combines"
    )
