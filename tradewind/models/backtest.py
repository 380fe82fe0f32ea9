"""What predictions would have earned after costs, one trade at a time per symbol.

A deliberately plain rule: when flat, enter at the base threshold, hold H bars, pay the
round trip. The policy's own rules are tested elsewhere; this compares models.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from tradewind.models.base import BoolArray, FloatArray, IntArray
from tradewind.models.selection_bias import deflated_sharpe as deflated_sharpe
from tradewind.settings import MS_PER_DAY, Settings
from tradewind.trading.costs import expected_trip

DAYS_A_YEAR = 365
MS_PER_HOUR = 3_600_000
NO_LOSS = 1000.0
"""Profit factor of trades without a single loss, where the ratio itself is infinite."""
MIN_TRADES = 20
"""Fewer trades say nothing about skill, however they ended."""


@dataclass(frozen=True, eq=False)
class Backtest:
    """Trades of all symbols with equal capital each, and their daily equity.

    Parameters
    ----------
    trade_ts, trade_net
        Bar (open, epoch ms) behind each entry, and its return after costs.
    day, daily, equity, held
        UTC days (epoch ms), return of each (trades count on the day they end), compounded
        equity from 1, and that of buying every symbol and holding; shape (days,).
    metrics
        Bare numbers, defined without trades too: sharpe (annual, of the daily returns,
        idle days included), deflated_sharpe, win_rate, profit_factor, turnover (notional
        traded a day over capital), max_drawdown, mean_net_bps and net_return are then 0;
        profit_factor without losses is 1000.
    """

    trade_ts: IntArray
    trade_net: FloatArray
    day: IntArray
    daily: FloatArray
    equity: FloatArray
    held: FloatArray
    metrics: dict[str, float]


def round_trip(settings: Settings) -> float:
    """Return what a small market order and its exit H bars later cost, as a fraction."""
    hours = settings.training.horizon * settings.market.timeframe_ms / MS_PER_HOUR
    trip = expected_trip(
        settings.costs,
        volatility=settings.thresholds.volatility_target,
        notional=Decimal(0),
        hours=Decimal(hours),
    )
    return float(trip.total)


def backtest(
    ts: IntArray,
    symbol: IntArray,
    p_up: FloatArray,
    fwd_ret: FloatArray,
    *,
    threshold: float,
    horizon_ms: int,
    cost: float,
    allowed: BoolArray | None = None,
    trials: int = 1,
) -> Backtest:
    """Trade ``p_up`` (n,) against realised H-bar log returns ``fwd_ret`` (n,), net of costs.

    Parameters
    ----------
    ts, symbol
        Bar open (epoch ms) and symbol code of each row, shape (n,), at least one row.
    threshold
        Enter long from p_up ≥ threshold, short from 1 − p_up ≥ threshold.
    horizon_ms
        How long a trade is held; a symbol enters again only after that.
    cost
        Fraction of the notional that each round trip costs; see `round_trip`.
    allowed
        Rows that may enter (default all), e.g. those certain enough.
    trials
        Strategies tried before this one, for the deflated Sharpe ratio.
    """
    side = np.where(p_up >= threshold, 1, np.where(1 - p_up >= threshold, -1, 0))
    if allowed is not None:
        side = np.where(allowed, side, 0)
    codes = np.unique(symbol)
    first = int(ts.min()) // MS_PER_DAY
    days = (int(ts.max()) + horizon_ms) // MS_PER_DAY - first + 1
    held, rows = np.zeros(days), []
    for code in codes:
        own = np.flatnonzero(symbol == code)
        own = own[np.argsort(ts[own], kind="stable")]
        rows.append(one_at_a_time(ts[own], side[own] != 0, horizon_ms, own))
        path = fwd_ret[own] * _shares(ts[own], horizon_ms)
        held += np.exp(np.cumsum(_by_day(ts[own] + horizon_ms, path, first, days)))
    trades = np.concatenate(rows)
    trades = trades[np.lexsort((trades, ts[trades]))]
    net = side[trades] * np.expm1(fwd_ret[trades]) - cost
    daily = _by_day(ts[trades] + horizon_ms, net / len(codes), first, days)
    equity = np.cumprod(1 + daily).astype(np.float64)
    return Backtest(
        trade_ts=ts[trades],
        trade_net=net,
        day=(first + np.arange(days, dtype=np.int64)) * MS_PER_DAY,
        daily=daily,
        equity=equity,
        held=held / len(codes),
        metrics={
            **_trade_metrics(net),
            "net_return": float(equity[-1] - 1),
            "sharpe": sharpe(daily),
            "deflated_sharpe": deflated_sharpe(daily, trials) if len(net) >= MIN_TRADES else 0.0,
            "max_drawdown": float(drawdown(equity).max()),
            "turnover": 2.0 * len(net) / len(codes) / days,
        },
    )


def one_at_a_time(ts: IntArray, wanted: BoolArray, horizon_ms: int, rows: IntArray) -> IntArray:
    """Return those of ``rows`` that are entered when a position blocks the next H bars."""
    entered, free_from = [], int(ts[0])
    for moment, row in zip(ts[wanted].tolist(), rows[wanted].tolist(), strict=True):
        if moment >= free_from:
            entered.append(row)
            free_from = moment + horizon_ms
    return np.array(entered, dtype=np.int64)


def sharpe(daily: FloatArray) -> float:
    """Return the annual Sharpe ratio of daily returns; 0 when they do not vary."""
    spread = float(daily.std())
    return float(daily.mean() / spread * np.sqrt(DAYS_A_YEAR)) if spread > 0 else 0.0


def drawdown(equity: FloatArray) -> FloatArray:
    """Return how far equity stands below its highest so far (at least 1), as a fraction."""
    peak = np.maximum(np.maximum.accumulate(equity), 1)
    fall: FloatArray = (peak - equity) / peak
    return fall


def _trade_metrics(net: FloatArray) -> dict[str, float]:
    gains, losses = float(net[net > 0].sum()), float(-net[net < 0].sum())
    return {
        "trades": float(len(net)),
        "mean_net_bps": float(net.mean() * 1e4) if len(net) else 0.0,
        "win_rate": float((net > 0).mean()) if len(net) else 0.0,
        "profit_factor": gains / losses if losses > 0 else NO_LOSS * (gains > 0),
    }


def _shares(ts: IntArray, horizon_ms: int) -> FloatArray:
    """Return the share of each row's H bars that passes until the next row: 1/H of bar by bar.

    Overlapping returns weighted so add up to the market's own.
    """
    gaps = np.diff(ts)
    last = np.median(gaps) if len(gaps) else horizon_ms
    shares: FloatArray = np.minimum(np.append(gaps, last), horizon_ms) / horizon_ms
    return shares


def _by_day(ts: IntArray, values: FloatArray, first: int, days: int) -> FloatArray:
    total = np.zeros(days)
    np.add.at(total, ts // MS_PER_DAY - first, values)
    return total
