"""What became of each prediction: the return that the bars have shown since."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import polars as pl
from sqlalchemy import and_, func, select

from tradewind.contracts import Outcome
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger.predictions import PredictionBook
from tradewind.ledger.schema import outcomes, predictions
from tradewind.settings import Settings


class BarReader(Protocol):
    """Where closed bars are read: `tradewind.market.store.BarStore`."""

    def read_bars(
        self,
        symbol: str,
        timeframe: str,
        *,
        until_ms: int,
        start_ms: int | None = None,
        last: int | None = None,
    ) -> pl.DataFrame:
        """Return bars closed at ``until_ms``: ts, close and others, sorted by ts."""
        ...


def fill_outcomes(settings: Settings, ledger: PredictionBook, store: BarReader, now_ms: int) -> int:
    """Store the realised return of every logged prediction whose horizon has passed.

    The return is log(close[t+H] / close[t]) with H = ``training.horizon`` bars, taken at the
    bar that opens exactly H steps later, as labels are. Where one of the two bars is missing
    there is no outcome yet. Running it again adds only what is new.

    Returns
    -------
    int
        How many outcomes were stored.
    """
    waiting = _waiting(settings, ledger, now_ms)
    found: list[Outcome] = []
    for symbol, pairs in groupby(waiting, key=lambda pair: pair[0]):
        times = [ts for _, ts in pairs]
        found.extend(_realised(settings, store, symbol, times, now_ms))
    return ledger.record_outcomes(found)


def _waiting(settings: Settings, ledger: PredictionBook, now_ms: int) -> list[tuple[str, int]]:
    """Return (symbol, bar_ts) of predictions that are due and have no outcome, in order."""
    horizon, step = settings.training.horizon, settings.market.timeframe_ms
    known = and_(
        outcomes.c.symbol == predictions.c.symbol,
        outcomes.c.bar_ts == predictions.c.bar_ts,
        outcomes.c.horizon == horizon,
    )
    query = (
        select(predictions.c.symbol, predictions.c.bar_ts)
        .outerjoin(outcomes, known)
        .where(outcomes.c.symbol.is_(None))
        .where(predictions.c.bar_ts <= now_ms - (horizon + 1) * step)
        .group_by(predictions.c.symbol, predictions.c.bar_ts)
        .order_by(predictions.c.symbol, func.min(predictions.c.bar_ts))
    )
    with ledger.db.read() as connection:
        return [(row.symbol, row.bar_ts) for row in connection.execute(query)]


def _realised(
    settings: Settings, store: BarReader, symbol: str, times: Sequence[int], now_ms: int
) -> list[Outcome]:
    horizon, step = settings.training.horizon, settings.market.timeframe_ms
    ahead = horizon * step
    until = min(now_ms, max(times) + ahead + step)
    try:
        bars = store.read_bars(
            symbol, settings.market.timeframe, until_ms=until, start_ms=min(times)
        )
    except TradewindError as error:
        if error.code is not ErrorCode.NO_BARS:
            raise
        return []
    closes = dict(zip(bars["ts"].to_list(), bars["close"].to_list(), strict=True))
    found = []
    for ts in times:
        now, then = closes.get(ts), closes.get(ts + ahead)
        if now is None or then is None or not (now > 0 and then > 0):
            continue
        fwd_ret = math.log(then / now)
        found.append(
            Outcome(symbol=symbol, bar_ts=ts, horizon=horizon, fwd_ret=fwd_ret, y_up=fwd_ret > 0)
        )
    return found
