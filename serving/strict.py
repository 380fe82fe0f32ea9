"""Numbers and flags of a JSON body that are what they say: no text, no 1 for true."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictBool

LARGEST_SEED = 2**63 - 1


def _number(value: Any) -> Any:
    """Refuse what Python would take for a whole number, and JSON does not."""
    if isinstance(value, bool | str | bytes):
        raise ValueError("Input should be a valid integer")
    return value


Flag = StrictBool
Whole = Annotated[int, BeforeValidator(_number)]
Seed = Annotated[int, BeforeValidator(_number), Field(ge=0, le=LARGEST_SEED)]
