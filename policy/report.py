"""What the paper account did over a stretch, beside holding everything and doing nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from policy.brokers.base import BarSource
from tradewind.contracts import Action
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import Ledger
from tradewind.settings import MS_PER_DAY, Settings
from tradewind.trading.costs import slippage
from tradewind.trading.numbers import dec

DAYS_A_YEAR = 365
FEWEST_DAYS = 10
FloatArray = NDArray[np.float64]


def paper_report(
    settings: Settings, ledger: Ledger, bars: BarSource, start_ms: int, end_ms: int
) -> dict[str, Any]:
    """Return bare numbers of the account over [start, end].

    ``sharpe`` is annual, without a risk-free rate: from daily equity where there are at least
    ten days, else from the marks of each bar (``sharpe_from`` says which). What cannot be
    said (no trade, no loss, no movement) is None.

    Equity starts from the last mark at or before ``start_ms``, from the initial cash where
    there is none. What is still open at the end counts at present prices, without the cost
    of leaving it: for the account and for holding everything alike. Holding pays its entry.

    Parameters
    ----------
    bars
        Where the traded symbols' bars are read, for holding them in equal parts.
    """
    curve = ledger.equity_curve(since_ms=start_ms + 1, until_ms=end_ms + 1)
    opening = ledger.equity_at(start_ms)
    initial = float(ledger.initial_cash() if opening is None else opening)
    marks = np.concatenate([[initial], curve["equity"].to_numpy()])
    trades = ledger.trades(since_ms=start_ms, until_ms=end_ms + 1)
    step = settings.market.timeframe_ms
    decisions = ledger.decisions(since_ms=start_ms - step, until_ms=end_ms)
    fills = [fill for fill in ledger.fills(since_ms=start_ms) if fill.ts <= end_ms]
    orders = ledger.orders().filter(pl.col("updated_ms").is_between(start_ms, end_ms))
    return {
        "start_ms": start_ms,
        "end_ms": end_ms,
        "decisions": decisions.height,
        "entries": decisions.filter(pl.col("action") != Action.HOLD.value).height,
        "entries_without_edge": _without_edge(ledger, decisions),
        "refusals": _counts(decisions["refusal"]),
        "orders": orders.height,
        "fills": len(fills),
        "turnover": float(sum(fill.quantity * fill.price for fill in fills)),
        "fees_paid": float(sum(fill.fee for fill in fills)),
        **_trade_figures(trades),
        **_equity_figures(curve, marks, settings),
        "buy_and_hold": _hold(settings, bars, start_ms, end_ms, initial),
        "no_trade": {"net_pnl": 0.0, "return": 0.0, "sharpe": 0.0, "max_drawdown": 0.0},
    }


def _without_edge(ledger: Ledger, decisions: pl.DataFrame) -> int:
    """Return how many entries had no expected gain above costs (possible with the rule off)."""
    entered = decisions.filter(pl.col("action") != Action.HOLD.value)["decision_id"]
    found = [ledger.decision(item) for item in entered]
    return sum(float(item.inputs.get("net_edge", 0.0)) <= 0 for item in found if item)


def _counts(column: pl.Series) -> dict[str, int]:
    known = column.drop_nulls()
    return {str(name): int(n) for name, n in sorted(known.value_counts().iter_rows())}


def _trade_figures(trades: pl.DataFrame) -> dict[str, Any]:
    pnl = trades["pnl"]
    won, lost = float(pnl.filter(pnl > 0).sum()), float(-pnl.filter(pnl < 0).sum())
    return {
        "trades": trades.height,
        "trades_net_pnl": float(pnl.sum()),
        "trades_fees": float(trades["fees"].sum()),
        "funding": float(trades["funding"].sum()),
        "win_rate": float((pnl > 0).mean()) if trades.height else None,  # type: ignore[arg-type]
        "profit_factor": won / lost if lost > 0 else None,
        "mean_r": float(trades["realised_r"].mean()) if trades.height else None,  # type: ignore[arg-type]
        "mean_minutes_held": float(trades["minutes_held"].mean()) if trades.height else None,  # type: ignore[arg-type]
        "exits": _counts(trades["exit_reason"].str.split(":").list.first()),
    }


def _equity_figures(curve: pl.DataFrame, marks: FloatArray, settings: Settings) -> dict[str, Any]:
    ts = curve["ts"].to_numpy()
    sharpe, basis = sharpe_of(ts, marks, settings.market.timeframe_ms)
    return {
        "initial_equity": float(marks[0]),
        "final_equity": float(marks[-1]),
        "net_pnl": float(marks[-1] - marks[0]),
        "return": float(marks[-1] / marks[0] - 1) if marks[0] else None,
        "sharpe": sharpe,
        "sharpe_from": basis,
        "max_drawdown": max_drawdown(marks),
        "exposed_share": float((curve["open_positions"] > 0).mean()) if len(ts) else None,  # type: ignore[arg-type]
    }


def max_drawdown(marks: Sequence[float] | FloatArray) -> float:
    """Return the deepest fall from a peak, as a fraction of it (0 for no fall)."""
    values = np.asarray(marks, dtype=np.float64)
    peaks = np.maximum.accumulate(values)
    return float(np.max((peaks - values) / np.where(peaks > 0, peaks, 1.0), initial=0.0))


def sharpe_of(ts: NDArray[np.int64], marks: FloatArray, step_ms: int) -> tuple[float | None, str]:
    """Return the annual Sharpe ratio of equity marks and what it was taken from.

    Parameters
    ----------
    ts
        Times of ``marks[1:]``, ms; ``marks[0]`` is the equity before them.
    """
    if len(ts) == 0:
        return None, "none"
    # A mark at midnight closes the day that ends there.
    last_of_day = np.flatnonzero(np.diff((ts - 1) // MS_PER_DAY, append=np.iinfo(np.int64).max))
    if len(last_of_day) >= FEWEST_DAYS:
        closes, a_year, basis = np.append(marks[0], marks[1:][last_of_day]), DAYS_A_YEAR, "days"
    else:
        closes, a_year, basis = marks, DAYS_A_YEAR * MS_PER_DAY // step_ms, "bars"
    returns = np.diff(closes) / closes[:-1]
    spread = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    if spread == 0:
        return None, basis
    return float(returns.mean()) / spread * math.sqrt(a_year), basis


def _hold(
    settings: Settings, bars: BarSource, start_ms: int, end_ms: int, initial: float
) -> dict[str, Any] | None:
    """Return the result of buying equal parts at the start, worth what they are at the end."""
    step = settings.market.timeframe_ms
    paths = []
    for symbol in settings.market.symbols:
        frame = _bars(settings, bars, symbol, start_ms, end_ms)
        if frame.height:
            value = (pl.col("close") / frame["open"][0]).alias(symbol)
            paths.append(frame.select((pl.col("ts") + step).alias("ts"), value))
    if not paths:
        return None
    joined = paths[0]
    for path in paths[1:]:
        joined = joined.join(path, on="ts", how="full", coalesce=True)
    joined = joined.sort("ts").fill_null(strategy="forward").fill_null(1.0)
    worth = joined.drop("ts").mean_horizontal().to_numpy() * initial
    part = dec(initial) / len(paths)
    side = slippage(settings.thresholds.volatility_target, part, settings.costs)
    cost = float(settings.costs.taker + side) * initial
    marks = np.append(initial, worth - cost)
    sharpe, _ = sharpe_of(joined["ts"].to_numpy(), marks, step)
    return {
        "net_pnl": float(marks[-1] - initial),
        "return": float(marks[-1] / initial - 1),
        "costs": cost,
        "sharpe": sharpe,
        "max_drawdown": max_drawdown(marks),
    }


def _bars(
    settings: Settings, bars: BarSource, symbol: str, start_ms: int, end_ms: int
) -> pl.DataFrame:
    try:
        return bars.read_bars(symbol, settings.market.timeframe, until_ms=end_ms, start_ms=start_ms)
    except TradewindError as error:
        if error.code is not ErrorCode.NO_BARS:
            raise
        return pl.DataFrame()
