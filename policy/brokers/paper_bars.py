"""What the paper exchange reads of the market: bars on the tick, volatility, funding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise

import polars as pl

from policy.brokers.base import BarSource
from policy.brokers.matching import Bar
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import MS_PER_DAY, TIMEFRAME_MS, Settings
from tradewind.trading.numbers import dec

FUNDING_STEP = TIMEFRAME_MS["8h"]
FUNDING_KIND = "funding_8h"


@dataclass(frozen=True)
class BarReader:
    """Bars of the trading timeframe as an exchange with this tick would have printed them."""

    settings: Settings
    source: BarSource

    def read(self, symbol: str, start_ms: int, until_ms: int) -> tuple[list[Bar], list[Bar]]:
        """Return (bars before ``start_ms`` for the volatility, bars from it on), all closed."""
        step = self.settings.market.timeframe_ms
        before = start_ms - step * (self.settings.costs.volatility_bars + 1)
        frame = self._bars(symbol, until_ms, start_ms=before)
        bars = [self._bar(row) for row in frame.iter_rows(named=True)]
        closed = [bar for bar in bars if bar.ts + step <= until_ms]
        return [b for b in closed if b.ts < start_ms], [b for b in closed if b.ts >= start_ms]

    def last_close(self, symbol: str, now_ms: int) -> Decimal | None:
        """Return the close of the newest closed bar, None for a symbol without bars."""
        frame = self._bars(symbol, now_ms, last=1)
        return None if frame.is_empty() else self._bar(frame.row(-1, named=True)).close

    def _bars(
        self, symbol: str, until_ms: int, *, start_ms: int | None = None, last: int | None = None
    ) -> pl.DataFrame:
        timeframe = self.settings.market.timeframe
        try:
            return self.source.read_bars(
                symbol, timeframe, until_ms=until_ms, start_ms=start_ms, last=last
            )
        except TradewindError as error:
            if error.code is not ErrorCode.NO_BARS:
                raise
            return pl.DataFrame()

    def _bar(self, row: dict[str, float]) -> Bar:
        def tick(value: float) -> Decimal:
            return dec(value).quantize(self.settings.risk.price_tick, rounding=ROUND_HALF_EVEN)

        return Bar(
            ts=int(row["ts"]),
            open=tick(row["open"]),
            high=tick(row["high"]),
            low=tick(row["low"]),
            close=tick(row["close"]),
            volume=float(row["volume"]),
        )

    def volatility(self, bars: Sequence[Bar]) -> float:
        """Return the daily volatility of the newest bars, 0 where there are too few."""
        recent = bars[-(self.settings.costs.volatility_bars + 1) :]
        returns = [math.log(b.close / a.close) for a, b in pairwise(recent) if a.close > 0]
        if len(returns) < self.settings.costs.volatility_bars:
            return 0.0
        mean = sum(returns) / len(returns)
        variance = sum((r - mean) ** 2 for r in returns) / (len(returns) - 1)
        return math.sqrt(variance * MS_PER_DAY / self.settings.market.timeframe_ms)

    def funding_rate(self, symbol: str, ts: int) -> Decimal:
        """Return the rate paid at ``ts``: the exchange's where known, else the setting's."""
        frame = self.source.read_series(FUNDING_KIND, symbol, until_ms=ts, start_ms=ts)
        if frame.is_empty():
            return self.settings.costs.funding_8h
        return dec(float(frame["funding_rate"][-1]))


def funding_times(after: int, until: int) -> list[int]:
    """Return the funding moments in [``after``, ``until``]."""
    first = -(-after // FUNDING_STEP) * FUNDING_STEP
    return list(range(first, until + 1, FUNDING_STEP))
