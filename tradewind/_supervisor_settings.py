"""The settings of the model supervisor."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from tradewind._settings_base import Section


class Limit(Section):
    """A figure's limits: reaching ``warn`` or ``disable`` enters, under ``leave`` ends it."""

    warn: float = Field(gt=0)
    disable: float = Field(gt=0)
    leave: float = Field(ge=0, description="between leave and warn nothing changes")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.leave < self.warn <= self.disable:
            raise ValueError("must be leave < warn <= disable")
        return self


class SupervisorSettings(Section):
    """When a live member of the ensemble is warned, disabled, and let back."""

    window_days: int = Field(14, ge=1, description="answers that its quality is judged on")
    min_days: int = Field(5, ge=2, description="days with realised labels before it is judged")
    min_labels: int = Field(400, ge=10, description="realised labels before it is judged")
    min_calls: int = Field(100, ge=2, description="BUY or SELL before bias, flips, accuracy count")
    min_asked: int = Field(50, ge=1, description="answers before errors and latency count")
    operations_hours: float = Field(24, gt=0, description="answers for errors and latency")
    min_warned_hours: float = Field(24, ge=0, description="a younger warning disables nothing")
    min_disabled_hours: float = Field(72, ge=0, description="earliest way back of a disabled one")
    min_calm_hours: float = Field(24, ge=0, description="earliest end of a warning")
    perfect_repeats: int = Field(100, ge=20, description="label draws behind a perfect model's ECE")
    bias: Limit = Field(
        Limit(warn=0.35, disable=0.42, leave=0.25),
        description="share of BUY among the calls, away from the share of rises",
    )
    bias_days: float = Field(6, ge=2, description="evenly filled days of calls before bias counts")
    bias_score: float = Field(
        3.0, ge=0, description="standard errors from as many BUY as SELL before bias counts"
    )
    retrain_warned_hours: float = Field(
        72, ge=0, description="a warning of quality this old asks for a retraining"
    )
    accuracy: Limit = Field(
        Limit(warn=2.5, disable=3.5, leave=1.0),
        description="standard errors by which fewer calls come true than were claimed",
    )
    log_loss: Limit = Field(
        Limit(warn=2.5, disable=3.5, leave=1.0),
        description="standard errors by which log-loss is above the base rate's",
    )
    ece: Limit = Field(
        Limit(warn=3.0, disable=4.5, leave=1.5),
        description="standard errors of ECE above that of a perfect model on the same rows",
    )
    flips: Limit = Field(
        Limit(warn=0.25, disable=0.40, leave=0.15),
        description="share of calls on the other side than the call before",
    )
    latency_ms: Limit = Field(
        Limit(warn=1000, disable=2500, leave=500), description="95th percentile of a forward"
    )
    errors: Limit = Field(
        Limit(warn=0.05, disable=0.25, leave=0.02), description="share of answers that it failed"
    )
