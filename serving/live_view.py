"""The newest features of the set that is in use now, also after another set became it."""

from __future__ import annotations

import contextlib
import logging

from tradewind.clock import Clock
from tradewind.errors import TradewindError
from tradewind.features.samples import FeatureRow
from tradewind.features.view import FeatureView
from tradewind.market.active import store_for
from tradewind.settings import Settings

log = logging.getLogger("tradewind.serving")

REMEMBERED = 48
"""Partitions kept in memory, about 0.15 MB each: the references' and one symbol's own, in turn."""


class LiveView:
    """A `FeatureView` that follows the active set: serving may start before the first ingest.

    Parameters
    ----------
    settings, clock
        As of `FeatureView`.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._view = FeatureView(settings, store_for(settings, remembered=REMEMBERED), clock)

    def latest(self, symbol: str) -> FeatureRow:
        """Return the row of the newest closed bar, as `FeatureView.latest` does."""
        return self._view.latest(symbol)

    def warm(self) -> None:
        """Compute what new bars have changed, so that no request has to.

        A request that comes earlier computes it itself: it never reads what is out of date.
        """
        for symbol in self._settings.market.symbols:
            # What is wrong with a symbol's features, its requests say.
            with contextlib.suppress(TradewindError):
                self._view.latest(symbol)

    def follow_active_set(self) -> None:
        """Read from the active set from now on; requests in flight finish on the old one."""
        store = store_for(self._settings, remembered=REMEMBERED)
        if store.set_id != self._view.store.set_id:
            log.info("the set in use is now %s", store.set_id)
            self._view = FeatureView(self._settings, store, self._clock)
