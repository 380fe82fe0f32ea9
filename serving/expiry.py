"""Which versions have expired: by the market's clock, from the end of their evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from serving.loaded import LoadedModel
from tradewind.clock import Clock
from tradewind.contracts import DisabledMember
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import MS_PER_DAY, Settings

EXPIRED: Final = "expired"
BY_SERVING: Final = "serving"
SETTING: Final = "registry.model_expiry_days"


def age_days(model: LoadedModel, now_ms: int) -> float:
    """Return the days since the evidence of ``model`` ended; 0 for one of the future."""
    return max(0, now_ms - model.bundle.meta.data_end_ms) / MS_PER_DAY


@dataclass(frozen=True)
class Expiry:
    """The rule of one moment: who decides with one snapshot keeps one of these beside it.

    Parameters
    ----------
    limit_days
        Setting ``registry.model_expiry_days``; 0: never.
    now_ms
        Market time. None where the clock cannot be read: no age is known then, and no
        features either, so that no prediction comes of it.
    """

    limit_days: float
    now_ms: int | None

    @classmethod
    def now(cls, settings: Settings, clock: Clock) -> Expiry:
        """Return the rule as of the clock's present time."""
        try:
            now_ms: int | None = clock.now_ms()
        except TradewindError:
            now_ms = None
        return cls(settings.registry.model_expiry_days, now_ms)

    def expired(self, model: LoadedModel) -> bool:
        """Tell whether ``model`` is older than the limit."""
        if self.now_ms is None or self.limit_days == 0:
            return False
        return age_days(model, self.now_ms) > self.limit_days

    def check(self, model: LoadedModel) -> None:
        """Raise ``model_expired`` for a version that must not decide any more."""
        if self.expired(model):
            raise self.error([model])

    def why(self, model: LoadedModel) -> str:
        """Return the age and the limit of an expired version, in words."""
        age = age_days(model, self.now_ms or 0)
        return f"{model.model_version} is {age:.1f} days old, {SETTING} = {self.limit_days:g}"

    def left_out(self, model: LoadedModel) -> DisabledMember:
        """Return what an ensemble says of the member it leaves out."""
        registered = model.registered
        return DisabledMember(
            family=registered.family,
            key=registered.key,
            code=EXPIRED,
            why=self.why(model),
            who=BY_SERVING,
        )

    def error(self, models: Sequence[LoadedModel]) -> TradewindError:
        """Return the refusal that names expired versions and what brings an answer back."""
        return TradewindError(
            ErrorCode.MODEL_EXPIRED,
            "; ".join(dict.fromkeys(self.why(model) for model in models)),
            "Launch the Dagster job `retrain` or run `tradewind train`, promote a younger "
            f"version, or raise {SETTING} (0: versions never expire)",
        )
