"""A symbol's own record from its closed trades, and what it does to the size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import MS_PER_DAY, RiskSettings, SizingSettings
from tradewind.trading.sizing import kelly

MS_PER_HOUR = 3_600_000


@dataclass(frozen=True)
class ClosedTrade:
    """A closed position: net profit in quote currency and in R."""

    closed_ms: int
    pnl: Decimal
    realised_r: float


@dataclass(frozen=True)
class SymbolRecord:
    """What a symbol's trades say.

    ``avg_win_r`` and ``avg_loss_r`` are positive magnitudes (0 where there are none);
    ``streak`` is signed: +3 is three wins in a row, −3 three losses.
    """

    trades: int = 0
    wins: int = 0
    mean_r: float = 0.0
    avg_win_r: float = 0.0
    avg_loss_r: float = 0.0
    streak: int = 0
    disabled_until_ms: int = 0

    def __post_init__(self) -> None:
        """Refuse a record that no size can be derived from."""
        for name in ("mean_r", "avg_win_r", "avg_loss_r"):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise TradewindError(
                    ErrorCode.BAD_INPUT,
                    f"symbol record {name} = {value} is not a number",
                    "Rebuild the record from the ledger's closed trades",
                )

    @property
    def win_rate(self) -> float:
        """Return the share of trades won, 0 without trades."""
        return self.wins / self.trades if self.trades else 0.0


def _streak(trades: Sequence[ClosedTrade]) -> int:
    count = 0
    for trade in reversed(trades):
        step = 1 if trade.pnl > 0 else -1
        if count * step < 0:
            break
        count += step
    return count


def symbol_record(
    sizing: SizingSettings, risk: RiskSettings, trades: Sequence[ClosedTrade], now_ms: int
) -> SymbolRecord:
    """Summarise the trades of the last ``record_days`` (any order given).

    Old trades leave the record, so that a bad symbol has a way back. A losing streak of
    ``record_disable_streak`` disables the symbol from its last loss on for
    ``record_disable_hours``; a trade that neither won nor lost counts as lost.
    """
    since = now_ms - int(sizing.record_days * MS_PER_DAY)
    recent = sorted((t for t in trades if t.closed_ms >= since), key=lambda t: t.closed_ms)
    if not recent:
        return SymbolRecord()
    won = [t.realised_r for t in recent if t.pnl > 0]
    lost = [-t.realised_r for t in recent if t.pnl <= 0]
    streak = _streak(recent)
    disabled = -streak >= risk.record_disable_streak
    until = recent[-1].closed_ms + int(risk.record_disable_hours * MS_PER_HOUR)
    return SymbolRecord(
        trades=len(recent),
        wins=len(won),
        mean_r=sum(t.realised_r for t in recent) / len(recent),
        avg_win_r=sum(won) / len(won) if won else 0.0,
        avg_loss_r=sum(lost) / len(lost) if lost else 0.0,
        streak=streak,
        disabled_until_ms=until if disabled else 0,
    )


def record_factor(settings: SizingSettings, record: SymbolRecord) -> float:
    """Return the record's size factor: 1 until there are enough trades."""
    if record.trades < settings.record_min_trades:
        return 1.0
    if record.win_rate < settings.record_low:
        return settings.record_low_factor
    if record.win_rate > settings.record_high:
        return settings.record_high_factor
    return 1.0


def fractional_kelly(settings: SizingSettings, record: SymbolRecord) -> float | None:
    """Return the fraction of equity Kelly allows as notional, None without enough trades.

    Without a single win it is −1 (no trade). Without a single loss the odds are unbounded and
    full Kelly tends to the win rate.
    """
    if record.trades < settings.kelly_min_trades:
        return None
    if record.wins == 0 or record.avg_win_r <= 0:
        return -1.0
    if record.avg_loss_r <= 0:
        return settings.kelly_fraction * record.win_rate
    odds = record.avg_win_r / record.avg_loss_r
    full = kelly(record.win_rate, odds) if odds > 0 else -1.0
    return max(-1.0, settings.kelly_fraction * full)
