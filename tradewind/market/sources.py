"""The one interface of everything bars come from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal, Protocol

import polars as pl

from tradewind.errors import ErrorCode, TradewindError

SourceKind = Literal["folder", "ccxt", "simulated"]


class BarSource(Protocol):
    """Gives bars as they are: possibly unsorted, repeated or bad; the caller judges them.

    Attributes
    ----------
    name
        Human text naming where the data comes from.
    kind
        What sort of source it is.
    set_id
        The set that its bars belong to, ``{exchange}_{market}``.
    """

    name: str
    kind: SourceKind
    set_id: str

    async def fetch_bars(
        self, symbol: str, timeframe: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame:
        """Return bars that open in ``[since_ms, until_ms)``.

        Returns
        -------
        DataFrame
            ts (Int64, open time in ms), open, high, low, close, volume (Float64); may be
            empty, and may hold the bar that has not closed yet.

        Raises
        ------
        TradewindError
            ``unknown_symbol``, ``exchange_unreachable``, ``corrupt_file``.
        """
        ...

    async def fetch_funding(self, symbol: str, since_ms: int, until_ms: int) -> pl.DataFrame | None:
        """Return funding (ts, funding_rate) with ``since_ms <= ts <= until_ms``; None: has none."""
        ...

    async def fetch_open_interest(
        self, symbol: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame | None:
        """Return open interest in contracts of the base currency; None: it has none.

        Returns
        -------
        DataFrame or None
            ts (Int64), open_interest (Float64), ``since_ms <= ts <= until_ms``. Exchanges keep
            about 30 days of it, so the answer may begin later than asked.
        """
        ...

    async def fetch_long_short_ratio(
        self, symbol: str, since_ms: int, until_ms: int
    ) -> pl.DataFrame | None:
        """Return long over short accounts (ts, long_short_ratio), as `fetch_open_interest`."""
        ...

    async def symbols(self) -> tuple[str, ...]:
        """Return the symbols it knows, as exchange ids, sorted."""
        ...

    async def close(self) -> None:
        """Release connections; calling it twice is fine."""
        ...


def unknown_symbol(symbol: str, known: Iterable[str], where: str) -> TradewindError:
    """Return the error for a symbol that a source does not have, naming ones it has."""
    names = sorted(known)
    near = difflib.get_close_matches(symbol, names, n=5) or names[:10]
    return TradewindError(
        ErrorCode.UNKNOWN_SYMBOL,
        f"symbol = {symbol!r} is unknown to {where}",
        f"Use one it knows, such as {', '.join(near)}" if near else "It knows no symbol at all",
    )
