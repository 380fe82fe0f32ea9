"""What predictions would have earned after costs, one trade at a time per symbol.

A deliberately plain rule: when flat, enter at the base threshold, hold H bars, pay the
round trip. The policy's own rules are tested elsewhere; this compares models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tradewind.models.base import FloatArray, IntArray
from tradewind.settings import MS_PER_DAY, CostSettings

DAYS_A_YEAR = 365


@dataclass(frozen=True)
class Backtest:
    """Trades of all symbols, equally weighted, and their daily equity.

    ``metrics`` are defined without trades too: sharpe, win_rate, profit_factor, turnover
    and max_drawdown are then 0.
    """

    trade_ts: IntArray
    trade_net: FloatArray
    day: IntArray
    equity: FloatArray
    metrics: dict[str, float]


def round_trip(costs: CostSettings) -> float:
    """Return the cost of entering and leaving at market, as a fraction of notional."""
    slippage = (costs.slippage_min + costs.slippage_max) / 2
    return float(2 * (costs.taker + slippage))


def backtest(
    ts: IntArray,
    symbol: IntArray,
    p_up: FloatArray,
    fwd_ret: FloatArray,
    *,
    threshold: float,
    horizon_ms: int,
    costs: CostSettings,
) -> Backtest:
    """Trade ``p_up`` (n,) against realised H-bar log returns ``fwd_ret`` (n,), net of costs.

    Parameters
    ----------
    ts, symbol
        Bar open (epoch ms) and symbol code of each row, shape (n,).
    threshold
        Enter long from p_up ≥ threshold, short from 1 − p_up ≥ threshold.
    horizon_ms
        How long a trade is held; a symbol enters again only after that.
    """
    cost = round_trip(costs)
    entries: list[tuple[int, float]] = []
    for code in np.unique(symbol):
        rows = np.flatnonzero(symbol == code)
        rows = rows[np.argsort(ts[rows], kind="stable")]
        free_from = -1
        for row in rows:
            side = 1 if p_up[row] >= threshold else -1 if 1 - p_up[row] >= threshold else 0
            if side == 0 or ts[row] < free_from:
                continue
            simple = float(np.expm1(fwd_ret[row]))
            entries.append((int(ts[row]), side * simple - cost))
            free_from = int(ts[row]) + horizon_ms
    entries.sort()
    trade_ts = np.array([entry[0] for entry in entries], dtype=np.int64)
    net = np.array([entry[1] for entry in entries], dtype=np.float64)
    return _summed(ts, trade_ts, net, len(np.unique(symbol)))


def _summed(ts: IntArray, trade_ts: IntArray, net: FloatArray, symbols: int) -> Backtest:
    first = int(ts.min()) // MS_PER_DAY
    days = int(ts.max()) // MS_PER_DAY - first + 1
    daily = np.zeros(days)
    np.add.at(daily, trade_ts // MS_PER_DAY - first, net / symbols)
    equity = 1 + np.cumsum(daily)
    peak = np.maximum.accumulate(np.concatenate([[1.0], equity]))[1:]
    spread = float(daily.std())
    losses = float(-net[net < 0].sum())
    gains = float(net[net > 0].sum())
    return Backtest(
        trade_ts=trade_ts,
        trade_net=net,
        day=(first + np.arange(days, dtype=np.int64)) * MS_PER_DAY,
        equity=equity,
        metrics={
            "trades": float(len(net)),
            "net_return": float(daily.sum()),
            "mean_net_bps": float(net.mean() * 1e4) if len(net) else 0.0,
            "sharpe": float(daily.mean() / spread * np.sqrt(DAYS_A_YEAR)) if spread > 0 else 0.0,
            "win_rate": float((net > 0).mean()) if len(net) else 0.0,
            "max_drawdown": float(((peak - equity) / peak).max()),
            "profit_factor": gains / losses if losses > 0 else 0.0,
            "turnover": 2.0 * len(net) / symbols / days,
        },
    )
