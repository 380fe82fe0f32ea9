"""Keeps the gauges of features and models true when nobody asks for predictions."""

from __future__ import annotations

import itertools
import logging

from serving.expiry import Expiry, age_days
from serving.live_view import LiveView
from serving.metrics import ServingMetrics
from serving.models import ModelTable, Slot, Snapshot
from tradewind.clock import Clock
from tradewind.errors import TradewindError
from tradewind.features.samples import FeatureRow
from tradewind.settings import MS_PER_DAY, Settings

log = logging.getLogger("tradewind.serving")
S_PER_DAY = MS_PER_DAY / 1000
QUOTES = ("USDT", "USDC", "USD")


class MarketState:
    """Looks at the newest features of every symbol, once a `refresh`."""

    def __init__(
        self,
        settings: Settings,
        view: LiveView,
        clock: Clock,
        table: ModelTable,
        metrics: ServingMetrics,
    ) -> None:
        self._settings = settings
        self._view = view
        self._clock = clock
        self._table = table
        self._metrics = metrics
        self._shown: set[Slot] = set()
        self._expired: set[str] = set()

    def refresh(self) -> None:
        """Set staleness, regime and ratio of closes per symbol, and the age of each model."""
        self._follow_active_set()
        rows = {}
        for symbol in self._settings.market.all_symbols:
            row = self._row(symbol)
            if row is not None:
                rows[symbol] = row
        self._metrics.market(
            staleness_s={symbol: row.staleness_s for symbol, row in rows.items()},
            regimes={symbol: row.regime for symbol, row in rows.items()},
            ratios=ratios(self._settings.market.reference_symbols, rows),
        )
        self._ages(self._table.snapshot, Expiry.now(self._settings, self._clock))

    def _ages(self, snapshot: Snapshot, expiry: Expiry) -> None:
        """Show how old each model is, and raise the alarm where it has expired."""
        if expiry.now_ms is None:
            return  # no clock, no ages: the last known ones stand
        expired = set()
        for slot, model in snapshot.models.items():
            age_s = age_days(model, expiry.now_ms) * S_PER_DAY
            self._metrics.model_age.labels(*slot).set(age_s)
            self._metrics.model_expired.labels(*slot).set(int(expiry.expired(model)))
            if expiry.expired(model):
                expired.add(model.model_version)
                if model.model_version not in self._expired:
                    log.error("%s has expired and answers no more: %s", slot[1], expiry.why(model))
        for slot in self._shown - snapshot.models.keys():
            self._metrics.model_expired.labels(*slot).set(0)  # the alias is gone
        self._shown, self._expired = set(snapshot.models), expired

    def _follow_active_set(self) -> None:
        try:
            self._view.follow_active_set()
        except TradewindError as error:
            log.warning("the set in use cannot be read, the last known one is: %s", error)

    def _row(self, symbol: str) -> FeatureRow | None:
        try:
            return self._view.latest(symbol)
        except TradewindError as error:
            log.debug("no features of %s to show: %s", symbol, error)
            return None


def ratios(references: tuple[str, ...], rows: dict[str, FeatureRow]) -> dict[str, float]:
    """Return raw ratios of closes of neighbouring references, as ``BTC_ETH``, ``ETH_SOL``."""
    return {
        f"{base_asset(first)}_{base_asset(second)}": rows[first].close / rows[second].close
        for first, second in itertools.pairwise(references)
        if first in rows and second in rows and rows[first].bar_ts == rows[second].bar_ts
    }


def base_asset(symbol: str) -> str:
    """Return the base of an exchange id: BTCUSDT → BTC."""
    for quote in QUOTES:
        if symbol.endswith(quote) and symbol != quote:
            return symbol.removesuffix(quote)
    return symbol
