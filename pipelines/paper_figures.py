"""Figures of the paper account: what it earned, what it cost, and what it refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tradewind.settings import MS_PER_DAY, Settings

if TYPE_CHECKING:
    import polars as pl

    from tradewind.ledger import Ledger
    from tradewind.market.store import BarStore

DAYS_A_YEAR = 365


def account_figures(
    settings: Settings, ledger: Ledger, store: BarStore, start_ms: int, end_ms: int
) -> dict[str, Any]:
    """Return equity, trades, costs and refusals between two moments.

    ``sharpe`` is annual, from daily closes of equity, and None with fewer than two days or
    without any movement; ``win_rate`` and ``profit_factor`` are None without closed trades
    (or without a losing one).
    """
    curve = ledger.equity_curve(since_ms=start_ms, until_ms=end_ms + 1)
    trades = ledger.trades(since_ms=start_ms, until_ms=end_ms + 1)
    decisions = ledger.decisions(since_ms=start_ms - settings.market.timeframe_ms, until_ms=end_ms)
    initial = float(ledger.initial_cash())
    return {
        "start_ms": start_ms,
        "end_ms": end_ms,
        "initial_cash": initial,
        **_equity_figures(curve, initial),
        **_trade_figures(trades),
        "fills": len(ledger.fills(since_ms=start_ms)),
        "turnover": _turnover(ledger, start_ms, initial),
        "open_positions": len(ledger.positions()),
        "decisions": decisions.height,
        "actions": _counts(decisions, "action"),
        "refusals": _counts(decisions, "refusal"),
        "buy_and_hold_return": _buy_and_hold(settings, store, start_ms, end_ms),
    }


def _equity_figures(curve: pl.DataFrame, initial: float) -> dict[str, Any]:
    if curve.is_empty():
        return {"final_equity": initial, "return": 0.0, "sharpe": None, "max_drawdown": 0.0}
    ts = curve["ts"].to_numpy()
    equity = np.concatenate([[initial], curve["equity"].cast(float).to_numpy()])
    peak = np.maximum.accumulate(equity)
    last_of_day = np.flatnonzero(np.diff(ts // MS_PER_DAY, append=-1))
    daily = np.diff(np.log(np.concatenate([[initial], equity[1:][last_of_day]])))
    moves = len(daily) > 1 and float(daily.std()) > 0
    return {
        "final_equity": float(equity[-1]),
        "return": float(equity[-1] / initial - 1),
        "sharpe": float(daily.mean() / daily.std() * np.sqrt(DAYS_A_YEAR)) if moves else None,
        "max_drawdown": float((1 - equity / peak).max()),
    }


def _trade_figures(trades: pl.DataFrame) -> dict[str, Any]:
    if trades.is_empty():
        return {
            "trades": 0,
            "win_rate": None,
            "profit_factor": None,
            "pnl": 0.0,
            "fees": 0.0,
            "funding": 0.0,
        }
    pnl = trades["pnl"].cast(float).to_numpy()
    losses = float(-pnl[pnl < 0].sum())
    return {
        "trades": len(pnl),
        "win_rate": float((pnl > 0).mean()),
        "profit_factor": float(pnl[pnl > 0].sum()) / losses if losses else None,
        "pnl": float(pnl.sum()),
        "fees": float(trades["fees"].cast(float).sum()),
        "funding": float(trades["funding"].cast(float).sum()),
    }


def _turnover(ledger: Ledger, start_ms: int, initial: float) -> float:
    traded = sum(float(fill.quantity * fill.price) for fill in ledger.fills(since_ms=start_ms))
    return traded / initial if initial else 0.0


def _counts(decisions: pl.DataFrame, column: str) -> dict[str, int]:
    known = decisions[column].drop_nulls()
    return {str(name): int(count) for name, count in known.value_counts().sort(column).iter_rows()}


def _buy_and_hold(settings: Settings, store: BarStore, start_ms: int, end_ms: int) -> float | None:
    """Return the mean return of holding every traded symbol over the stretch, before costs."""
    moves = []
    for symbol in settings.market.symbols:
        bars = store.read_bars(
            symbol, settings.market.timeframe, until_ms=end_ms, start_ms=start_ms
        )
        if bars.height > 1:
            moves.append(float(bars["close"][-1] / bars["open"][0] - 1))
    return sum(moves) / len(moves) if moves else None
