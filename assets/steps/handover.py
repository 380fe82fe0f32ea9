"""When a champion is old enough to make way for a version that has not beaten it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tradewind.settings import MS_PER_DAY, RegistrySettings

if TYPE_CHECKING:
    from registry.versions import RegisteredVersion


def handover_reason(
    settings: RegistrySettings, champion: RegisteredVersion | None, now_ms: int
) -> str | None:
    """Return why ``champion`` makes way for any version whose gates passed; None if it does not.

    A champion is replaced on merit, by a review. But one that nothing beats grows old, and an
    expired one answers no more: ``registry.handover_days`` before that a younger version, which
    its gates found not worse, takes its place.

    Parameters
    ----------
    now_ms
        Market time; the age counts from the end of the champion's evidence.
    """
    if champion is None or settings.model_expiry_days == 0:
        return None
    age = _age_days(champion, now_ms)
    if age < settings.model_expiry_days - settings.handover_days:
        return None
    return (
        f"handover: champion {champion.label} is {age:.1f} days old and expires at "
        f"{settings.model_expiry_days:g}"
    )


def has_expired(settings: RegistrySettings, champion: RegisteredVersion, now_ms: int) -> bool:
    """Return whether ``champion`` makes no decisions any more, by its age."""
    return 0 < settings.model_expiry_days < _age_days(champion, now_ms)


def _age_days(version: RegisteredVersion, now_ms: int) -> float:
    return (now_ms - int(version.tags["data_end_ms"])) / MS_PER_DAY
