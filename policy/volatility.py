"""Where a symbol's volatility stands among its last 90 days."""

from __future__ import annotations

import math

from policy.portfolio import Features, FeatureSource
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import MS_PER_DAY, Settings
from tradewind.trading.risk import level_of_rank, volatility_rank
from tradewind.trading.views import VolatilityLevel

VOLATILITY = "vol_20"
WITHOUT_HISTORY = frozenset({ErrorCode.NO_BARS, ErrorCode.NOT_ENOUGH_BARS})


class VolatilityLevels:
    """Reads each symbol's history once a UTC day, so that a cycle stays fast.

    The history ends where the day of the decision's bar begins: within a day every decision
    is held against the same distribution, also after a restart.
    """

    def __init__(self, settings: Settings, features: FeatureSource) -> None:
        self._settings = settings
        self._features = features
        self._histories: dict[str, tuple[int, tuple[float, ...]]] = {}

    def of(self, row: Features) -> tuple[float | None, VolatilityLevel]:
        """Return the share of history below the row's volatility, and its level.

        Without history the share is None and the level ``normal``.
        """
        rank = volatility_rank(row.volatility, self._history(row.symbol, row.bar_ts))
        return rank, level_of_rank(self._settings.risk, rank)

    def _history(self, symbol: str, bar_ts: int) -> tuple[float, ...]:
        day = bar_ts // MS_PER_DAY * MS_PER_DAY
        known = self._histories.get(symbol)
        if known is None or known[0] != day:
            known = day, self._read(symbol, day)
            self._histories[symbol] = known
        return known[1]

    def _read(self, symbol: str, day: int) -> tuple[float, ...]:
        """Return sorted daily volatilities of the days before ``day``."""
        start = day - int(self._settings.risk.volatility_days * MS_PER_DAY)
        try:
            frame = self._features.frame(symbol, start_ms=start, until_ms=day)
        except TradewindError as error:
            if error.code not in WITHOUT_HISTORY:
                raise
            return ()
        if frame.is_empty():
            return ()
        a_day = math.sqrt(MS_PER_DAY / self._settings.market.timeframe_ms)
        found = frame[VOLATILITY].drop_nulls().drop_nans().sort()
        return tuple((found * a_day).to_list())
