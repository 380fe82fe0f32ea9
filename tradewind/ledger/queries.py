"""Reading the books: frames for reports, exact rows for the policy, Parquet for everyone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path

import polars as pl
from sqlalchemy import Float, cast, desc, func, select

from tradewind.contracts import Fill, Leg, Side
from tradewind.files import atomic_path
from tradewind.ledger.database import Database
from tradewind.ledger.frames import frame, window
from tradewind.ledger.records import EquityPoint
from tradewind.ledger.schema import (
    equity,
    fills,
    flows,
    intents,
    metadata,
    orders,
    trades,
)


@dataclass(frozen=True)
class TradeResult:
    """What the sizing rules need of a closed trade."""

    symbol: str
    closed_ms: int
    pnl: Decimal
    realised_r: float


@dataclass(frozen=True)
class EquityHistory:
    """Equity before a moment: at the UTC day's opening, its lowest since, and its peak.

    ``peak`` is None where there is no mark since the peak was last reset.
    """

    day_open: Decimal
    day_low: Decimal
    peak: Decimal | None


class QueryBook:
    """Equity, and everything that only reads."""

    db: Database

    def record_equity(self, point: EquityPoint) -> None:
        """Store the account's value at a moment; the last word for that moment stays."""
        with self.db.write() as connection:
            self.db.upsert(connection, equity, asdict(point))

    def equity_curve(
        self, *, since_ms: int | None = None, until_ms: int | None = None
    ) -> pl.DataFrame:
        """Return ts, equity, cash, unrealised, open_positions, exposure, oldest first."""
        query = window(
            select(equity).order_by(equity.c.ts), equity, "ts", since_ms=since_ms, until_ms=until_ms
        )
        with self.db.read() as connection:
            return frame(connection, query)

    def equity_at(self, ts: int) -> Decimal | None:
        """Return the last mark at or before ``ts``, None without one."""
        query = select(equity.c.equity).where(equity.c.ts <= ts).order_by(desc(equity.c.ts))
        with self.db.read() as connection:
            return connection.execute(query.limit(1)).scalar()

    def equity_history(
        self, day_start_ms: int, before_ms: int, peak_since: int | None = None
    ) -> EquityHistory | None:
        """Return the marks before ``before_ms``; None when there are none.

        The day opens at its last mark up to the day's start, else at its first one. The peak
        is the highest mark at or after ``peak_since``, of all of them where that is None.
        """
        past = select(equity.c.equity).where(equity.c.ts < before_ms)
        today = past.where(equity.c.ts >= day_start_ms)
        value = cast(equity.c.equity, Float)
        with self.db.read() as connection:
            if connection.execute(past.limit(1)).scalar() is None:
                return None
            counted = past if peak_since is None else past.where(equity.c.ts >= peak_since)
            peak = connection.execute(counted.order_by(desc(value)).limit(1)).scalar()
            opening = connection.execute(
                past.where(equity.c.ts <= day_start_ms).order_by(desc(equity.c.ts)).limit(1)
            ).scalar()
            if opening is None:
                opening = connection.execute(today.order_by(equity.c.ts).limit(1)).scalar_one()
            low = connection.execute(today.order_by(value).limit(1)).scalar()
        return EquityHistory(opening, opening if low is None else min(low, opening), peak)

    def trades(
        self,
        *,
        symbol: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> pl.DataFrame:
        """Return closed trades, oldest first, by closing time; pnl is net of all costs."""
        query = select(trades).order_by(trades.c.closed_ms, trades.c.trade_id)
        query = window(
            query, trades, "closed_ms", symbol=symbol, since_ms=since_ms, until_ms=until_ms
        )
        with self.db.read() as connection:
            return frame(connection, query)

    def trade_results(self, *, since_ms: int = 0) -> list[TradeResult]:
        """Return the results of trades closed at or after ``since_ms``, oldest first."""
        query = (
            select(trades.c.symbol, trades.c.closed_ms, trades.c.pnl, trades.c.realised_r)
            .where(trades.c.closed_ms >= since_ms)
            .order_by(trades.c.closed_ms, trades.c.trade_id)
        )
        with self.db.read() as connection:
            rows = connection.execute(query).all()
        return [TradeResult(*row) for row in rows]

    def orders(self) -> pl.DataFrame:
        """Return every order the broker knows, by time of its last change."""
        query = select(orders).order_by(orders.c.updated_ms, orders.c.client_id)
        with self.db.read() as connection:
            return frame(connection, query)

    def fills(self, *, since_ms: int | None = None) -> list[Fill]:
        """Return the booked fills, in the order of booking."""
        query = window(select(fills).order_by(fills.c.seq), fills, "ts", since_ms=since_ms)
        with self.db.read() as connection:
            rows = connection.execute(query).all()
        return [
            Fill(
                fill_id=row.fill_id,
                client_id=row.client_id,
                symbol=row.symbol,
                side=Side(row.side),
                leg=Leg(row.leg),
                quantity=row.quantity,
                price=row.price,
                fee=row.fee,
                ts=row.ts,
            )
            for row in rows
        ]

    def booked_fills(self, fill_ids: Sequence[str]) -> set[str]:
        """Return which of these fills are booked already."""
        query = select(fills.c.fill_id).where(fills.c.fill_id.in_(fill_ids))
        with self.db.read() as connection:
            return set(connection.execute(query).scalars())

    def orders_since(self, since_ms: int) -> int:
        """Return how many orders were sent for intents made after ``since_ms``."""
        query = (
            select(func.count())
            .select_from(orders)
            .join(intents, intents.c.client_id == orders.c.client_id)
            .where(intents.c.created_ms > since_ms)
        )
        with self.db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def last_fill_ms(self) -> int | None:
        """Return the time of the newest booked fill, None without any."""
        query = select(fills.c.ts).order_by(desc(fills.c.ts)).limit(1)
        with self.db.read() as connection:
            return connection.execute(query).scalar()

    def last_funding_ms(self) -> int | None:
        """Return the time of the newest booked funding payment, None without any."""
        query = (
            select(flows.c.ts).where(flows.c.kind == "funding").order_by(desc(flows.c.ts)).limit(1)
        )
        with self.db.read() as connection:
            return connection.execute(query).scalar()

    def export_parquet(self, folder: Path) -> list[Path]:
        """Write every table as ``{table}.parquet`` of one moment; money stays exact.

        Returns
        -------
        list of Path
            The files written, by table name.
        """
        written = []
        with self.db.read() as connection:
            for name in sorted(metadata.tables):
                table = metadata.tables[name]
                content = frame(connection, select(table).order_by(*table.primary_key), exact=True)
                target = folder / f"{name}.parquet"
                with atomic_path(target) as temporary:
                    content.write_parquet(temporary)
                written.append(target)
        return written
