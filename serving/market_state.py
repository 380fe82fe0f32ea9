"""Keeps the gauges of features and models true when nobody asks for predictions."""

from __future__ import annotations

import itertools
import logging

from serving.live_view import LiveView
from serving.metrics import ServingMetrics
from serving.models import ModelTable
from tradewind.clock import Clock
from tradewind.errors import TradewindError
from tradewind.features.samples import FeatureRow
from tradewind.settings import Settings

log = logging.getLogger("tradewind.serving")
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
        try:
            now_ms = self._clock.now_ms()
        except TradewindError as error:
            log.debug("no clock, no model ages: %s", error)
            return
        for (name, alias), model in self._table.snapshot.models.items():
            age_s = max(0, now_ms - model.bundle.meta.data_end_ms) / 1000
            self._metrics.model_age.labels(name, alias).set(age_s)

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
