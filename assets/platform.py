"""The resource that assets and ops ask for settings and the clock."""

from __future__ import annotations

from pathlib import Path

from dagster import ConfigurableResource
from pydantic import Field

from tradewind.clock import Clock
from tradewind.settings import Settings, load_settings


class Platform(ConfigurableResource[None]):
    """The typed settings and what is opened by them.

    The settings come from `tradewind.toml` and the environment of the process, as
    everywhere else, so a run, the server and the command line agree.
    """

    home: str | None = Field(
        default=None, description="State folder; empty: the setting `home` (TRADEWIND_HOME)"
    )

    @property
    def settings(self) -> Settings:
        """Return the settings, read anew."""
        return load_settings(**({"home": Path(self.home)} if self.home else {}))

    def clock(self) -> Clock:
        """Return the clock that all processes share."""
        from tradewind.ledger.clock import open_clock

        return open_clock(self.settings)
