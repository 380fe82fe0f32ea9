"""What a prediction suggests at the base threshold; it informs, the policy decides."""

from __future__ import annotations

from tradewind.contracts import Signal
from tradewind.settings import ServingSettings


def signal_of(p_up: float, epistemic_p: float, settings: ServingSettings) -> Signal:
    """Return LONG from the threshold on, SHORT where ``1 − p_up`` passes it, else HOLD.

    HOLD too where the probability itself is too uncertain.
    """
    if epistemic_p > settings.epistemic_p_limit:
        return Signal.HOLD
    if p_up >= settings.base_threshold:
        return Signal.ENTRY_LONG
    if 1 - p_up >= settings.base_threshold:
        return Signal.ENTRY_SHORT
    return Signal.HOLD
