"""Whether a home is replayed or follows the wall clock."""

from __future__ import annotations

from typing import Literal

from pipelines.up.homes import holds_demo
from pipelines.up.state import UpState
from tradewind.settings import Settings

Mode = Literal["replay", "wall"]
REPLAYED = ("folder", "simulated")


def choose_mode(settings: Settings, asked: Mode | None, before: UpState | None) -> Mode:
    """Return what was asked for, else what the settings or the home say, else by the source.

    Bars from a folder or a simulated market have an end, so they are replayed.
    """
    known = asked or _known(settings, before)
    if known is not None:
        return known
    return "replay" if _source_kind(settings) in REPLAYED else "wall"


def as_before(settings: Settings, before: UpState | None) -> Mode:
    """Return what a home's last start was, else what the settings say."""
    return _known(settings, before) or settings.clock


def _known(settings: Settings, before: UpState | None) -> Mode | None:
    if "clock" in settings.model_fields_set:
        return settings.clock
    if before is not None:
        return "replay" if before.mode == "replay" else "wall"
    return "replay" if holds_demo(settings.home) else None


def _source_kind(settings: Settings) -> str:
    from tradewind.clock import WallClock
    from tradewind.market.active import active_set
    from tradewind.market.open_source import settle_source

    active = active_set(settings)
    if active is not None:
        return active.source_kind
    if settings.data is not None or settings.market.source == "folder":
        return "folder"
    if settings.market.source != "auto":
        return settings.market.source
    return settle_source(settings, WallClock()).source_kind
