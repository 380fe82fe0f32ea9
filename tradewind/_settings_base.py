"""What every branch of the settings is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MS_PER_DAY = 86_400_000
TIMEFRAME_MS = {
    "1m": 60_000,
    "5m": 300_000,
    "15m": 900_000,
    "1h": 3_600_000,
    "4h": 14_400_000,
    "8h": 28_800_000,
    "1d": MS_PER_DAY,
}
Timeframe = Literal["1m", "5m", "15m", "1h", "4h", "8h", "1d"]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of the tree's branches: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
