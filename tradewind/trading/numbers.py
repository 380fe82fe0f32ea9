"""Small number helpers: exact Decimals from floats, and rounding to an exchange's steps."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal


def dec(value: float | Decimal) -> Decimal:
    """Return the Decimal with the shortest digits of ``value`` (0.1 stays 0.1)."""
    return value if isinstance(value, Decimal) else Decimal(repr(float(value)))


def figure(value: float | Decimal) -> float | str:
    """Return a number a durable record can hold; NaN and Inf become words."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


def clip(value: float, low: float, high: float) -> float:
    """Return ``value`` held within [low, high]."""
    return min(max(value, low), high)


def round_down(value: Decimal, step: Decimal) -> Decimal:
    """Return the greatest multiple of ``step`` not above ``value``."""
    return (value / step).to_integral_value(ROUND_FLOOR) * step


def round_up(value: Decimal, step: Decimal) -> Decimal:
    """Return the least multiple of ``step`` not below ``value``."""
    return (value / step).to_integral_value(ROUND_CEILING) * step
