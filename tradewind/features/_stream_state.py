"""What a stream of bars remembers: running windows and recursive averages, in plain floats.

A new bar costs the same however long a window is. Nothing here is an array: for one number
at a time, calling into an array library costs more than the arithmetic.
"""

from __future__ import annotations

import math
from collections import deque

from tradewind.features.definitions import FAST, MACD, MIDDLE, PERIOD, SLOW

NAN = math.nan


class Lagged:
    """The last values, to look back ``bars``."""

    __slots__ = ("_values",)

    def __init__(self, bars: int) -> None:
        self._values: deque[float] = deque([NAN] * (bars + 1), maxlen=bars + 1)

    def push(self, value: float) -> float:
        """Add a value; return the one ``bars`` before it."""
        self._values.append(value)
        return self._values[0]


class Moments:
    """Mean and standard deviation of the last ``window`` values; NaN while one is missing.

    Sums of deviations from a value of the window are carried along, and summed afresh every
    ``window`` bars, so that rounding cannot pile up.
    """

    __slots__ = ("_age", "_base", "_ddof", "_equal", "_last", "_lost", "_squares", "_total",
                 "_values", "_window")  # fmt: skip

    def __init__(self, window: int, *, ddof: int) -> None:
        self._window, self._ddof = window, ddof
        self._values: deque[float] = deque([NAN] * window)
        self._lost = window
        self._base = self._total = self._squares = 0.0
        self._age = 0
        self._last, self._equal = NAN, 0

    def push(self, value: float) -> tuple[float, float]:
        """Add a value; return mean and standard deviation."""
        values = self._values
        old = values.popleft()
        values.append(value)
        if old != old:
            self._lost -= 1
        else:
            gone = old - self._base
            self._total -= gone
            self._squares -= gone * gone
        if value != value:
            self._lost += 1
            self._equal = 0
        else:
            come = value - self._base
            self._total += come
            self._squares += come * come
            self._equal = self._equal + 1 if value == self._last else 1
        self._last = value
        self._age += 1
        if self._age >= self._window:
            self._sum_afresh()
        if self._lost:
            return NAN, NAN
        if self._equal >= self._window:
            return value, 0.0
        n = self._window
        variance = (self._squares - self._total * self._total / n) / (n - self._ddof)
        return self._base + self._total / n, math.sqrt(variance) if variance > 0 else 0.0

    def _sum_afresh(self) -> None:
        known = [value for value in self._values if value == value]
        base = known[-1] if known else 0.0
        away = [value - base for value in known]
        self._base, self._age = base, 0
        self._total, self._squares = sum(away), sum(d * d for d in away)


class Extremes:
    """The least low and the greatest high of the last ``window`` bars, NaN while one lacks."""

    __slots__ = ("_high", "_lost", "_low")

    def __init__(self, window: int) -> None:
        self._low: deque[float] = deque([NAN] * window, maxlen=window)
        self._high: deque[float] = deque([NAN] * window, maxlen=window)
        self._lost = window

    def push(self, low: float, high: float) -> tuple[float, float]:
        """Add a bar; return the least low and the greatest high."""
        oldest = self._low[0]
        self._lost += (low != low) - (oldest != oldest)
        self._low.append(low)
        self._high.append(high)
        if self._lost:
            return NAN, NAN
        return min(self._low), max(self._high)


class Recursions:
    """EMA, RSI, ATR, DI, ADX and MACD, one bar at a time.

    They begin with the first value instead of a first average: after the warm-up nothing is
    left of where they began.
    """

    def __init__(self) -> None:
        self.bars = 0
        self.ema_fast = self.ema_middle = self.ema_slow = 0.0
        self.atr = self.plus = self.minus = self.adx = 0.0
        self._gain = self._loss = 0.0
        self._macd_fast = self._macd_slow = self._macd_signal = 0.0
        self._high = self._low = self._close = 0.0

    def push(self, high: float, low: float, close: float) -> None:
        """Add a bar."""
        if not self.bars:
            self.ema_fast = self.ema_middle = self.ema_slow = close
            self._macd_fast = self._macd_slow = close
            self._high, self._low, self._close = high, low, close
            self.atr = high - low
        self.bars += 1
        self.ema_fast += (close - self.ema_fast) * K_FAST
        self.ema_middle += (close - self.ema_middle) * K_MIDDLE
        self.ema_slow += (close - self.ema_slow) * K_SLOW
        self._macd_fast += (close - self._macd_fast) * K_MACD[0]
        self._macd_slow += (close - self._macd_slow) * K_MACD[1]
        line = self._macd_fast - self._macd_slow
        self._macd_signal += (line - self._macd_signal) * K_MACD[2]

        before = self._close
        move = close - before
        self._gain += ((move if move > 0 else 0.0) - self._gain) / PERIOD
        self._loss += ((-move if move < 0 else 0.0) - self._loss) / PERIOD
        top, bottom = (high if high > before else before), (low if low < before else before)
        self.atr += (top - bottom - self.atr) / PERIOD
        up, down = high - self._high, self._low - low
        self.plus += ((up if up > 0 and up > down else 0.0) - self.plus) / PERIOD
        self.minus += ((down if down > 0 and down > up else 0.0) - self.minus) / PERIOD
        both = self.plus + self.minus
        if both > 0:
            self.adx += (100 * abs(self.plus - self.minus) / both - self.adx) / PERIOD
        self._high, self._low, self._close = high, low, close

    @property
    def rsi(self) -> float:
        """RSI in 0..1; 0 where nothing ever moved."""
        both = self._gain + self._loss
        return self._gain / both if both > 0 else 0.0

    @property
    def di_diff(self) -> float:
        """The DI's difference in −1..1: TA-Lib's true range beside theirs is the ATR's."""
        return (self.plus - self.minus) / self.atr if self.atr > 0 else 0.0

    @property
    def macd_hist(self) -> float:
        """MACD line less its signal, price units."""
        return self._macd_fast - self._macd_slow - self._macd_signal


def _smoothing(period: int) -> float:
    return 2.0 / (period + 1)


K_FAST, K_MIDDLE, K_SLOW = (_smoothing(period) for period in (FAST, MIDDLE, SLOW))
K_MACD = tuple(_smoothing(period) for period in MACD)
