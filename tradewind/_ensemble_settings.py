"""The settings of the ensemble."""

from __future__ import annotations

from pydantic import Field

from tradewind._settings_base import Fraction, Section


class VoteSettings(Section):
    """When the votes of an ensemble's members stand."""

    strong_share: Fraction = Field(0.75, description="share of the votes that is strong consensus")
    tie: Fraction = Field(0.05, description="BUY and SELL this near each other are a tie: HOLD")
    least_skill: float = Field(
        0.0,
        ge=0,
        description="skill that each member is taken to have at least; above 0 those without vote",
    )
    members: tuple[str, ...] = Field(
        ("xgboost", "lightgbm", "nhits", "patchtst", "transformer"),
        min_length=1,
        description="families whose champions vote; gru serves the grid alone",
    )
