"""One conformance class that every source of bars passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import pytest

from tests.support.exchange import Exchange
from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.errors import ErrorCode, TradewindError
from tradewind.market.ccxt_source import CcxtSource
from tradewind.market.folder import FolderSource
from tradewind.market.quality import split_bad
from tradewind.market.schema import BARS, FUNDING, LONG_SHORT_RATIO, OPEN_INTEREST
from tradewind.market.simulated import SimulatedSource
from tradewind.market.sources import BarSource
from tradewind.settings import Settings

T = TypeVar("T")
STEP = 900_000
N = 1300  # more than one page of any exchange
END_MS = START_MS + N * STEP
SYMBOLS = ("BTCUSDT", "ETHUSDT")
MarketSource = Callable[[], BarSource]


def funding(n: int) -> pl.DataFrame:
    """Return ``n`` settlements, eight hours apart."""
    return pl.DataFrame(
        {
            "ts": [START_MS + i * 28_800_000 for i in range(n)],
            "funding_rate": [i * 1e-6 for i in range(n)],
        }
    )


def positions(n: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return open interest and account ratios at the opening of ``n`` bars."""
    stamps = [START_MS + i * STEP for i in range(n)]
    return (
        pl.DataFrame({"ts": stamps, "open_interest": [1000.0 + i for i in range(n)]}),
        # Bybit tells shares of four digits: these are ratios of such shares.
        pl.DataFrame({"ts": stamps, "long_short_ratio": [1.5] * n}),
    )


@pytest.fixture(params=["folder", "simulated", "binanceusdm", "bybit"])
def make_source(
    request: pytest.FixtureRequest, tmp_path: Path, make_settings: Callable[..., Settings]
) -> Iterator[MarketSource]:
    """Return a maker of one kind of source that has bars from START_MS to END_MS."""
    bars = {name: random_walk_bars(N, seed=i) for i, name in enumerate(SYMBOLS)}
    interest, ratio = positions(N)
    if request.param == "simulated":
        yield lambda: SimulatedSource(SYMBOLS, seed=3)
    elif request.param == "folder":
        for kind in ("perp_15m", "funding_8h", "oi_15m", "long_short_15m"):
            (tmp_path / f"x_{kind}").mkdir()
        for name, frame in bars.items():
            frame.write_parquet(tmp_path / "x_perp_15m" / f"{name}_15m.parquet")
            interest.write_parquet(tmp_path / "x_oi_15m" / f"{name}_15m.parquet")
            ratio.write_parquet(tmp_path / "x_long_short_15m" / f"{name}_15m.parquet")
            funding(40).write_parquet(tmp_path / "x_funding_8h" / f"{name}_8h.parquet")
        yield lambda: FolderSource(tmp_path, "x_perp")
    else:
        rates = {name: funding(40) for name in SYMBOLS}
        with Exchange(
            bars,
            "15m",
            lambda: END_MS,
            tmp_path,
            exchange_id=request.param,
            funding=rates,
            open_interest=dict.fromkeys(SYMBOLS, interest),
            long_short_ratio=dict.fromkeys(SYMBOLS, ratio),
        ) as exchange:
            settings = make_settings(market=exchange.market)
            yield lambda: CcxtSource(settings)


@asynccontextmanager
async def opened(make: MarketSource) -> AsyncIterator[BarSource]:
    """Close the source whatever happens."""
    source = make()
    try:
        yield source
    finally:
        await source.close()


def ask(make: MarketSource, question: Callable[[BarSource], Coroutine[Any, Any, T]]) -> T:
    """Ask one question of a fresh source, in a loop of its own."""

    async def run() -> T:
        async with opened(make) as source:
            return await question(source)

    return asyncio.run(run())


def bars_of(make: MarketSource, since: int, until: int, symbol: str = "BTCUSDT") -> pl.DataFrame:
    return ask(make, lambda source: source.fetch_bars(symbol, "15m", since, until))


class TestSourceConformance:
    """What the ingestion relies on."""

    def test_names_itself_and_its_set(self, make_source: MarketSource) -> None:
        source = make_source()
        assert source.name
        assert source.kind in {"folder", "ccxt", "simulated"}
        assert source.set_id.replace("_", "").isalnum()
        assert ("simulated" in source.name) == (source.kind == "simulated")
        asyncio.run(source.close())

    def test_knows_its_symbols(self, make_source: MarketSource) -> None:
        assert ask(make_source, lambda source: source.symbols()) == SYMBOLS

    def test_bars_are_typed_and_inside_the_half_open_range(self, make_source: MarketSource) -> None:
        since, until = START_MS + 10 * STEP, START_MS + 700 * STEP
        bars = bars_of(make_source, since, until)
        assert dict(bars.schema) == dict(BARS)
        assert bars["ts"].sort().to_list() == list(range(since, until, STEP))

    def test_bars_are_believable(self, make_source: MarketSource) -> None:
        bars = bars_of(make_source, START_MS, END_MS)
        good, bad = split_bad(bars, "15m", END_MS)
        assert bad.is_empty()
        assert good.height == N

    def test_a_bar_is_the_same_in_any_range(self, make_source: MarketSource) -> None:
        whole = bars_of(make_source, START_MS, END_MS).sort("ts")
        since, until = START_MS + 333 * STEP, START_MS + 1111 * STEP
        part = bars_of(make_source, since, until).sort("ts")
        assert part.equals(whole.filter(pl.col("ts").is_between(since, until - 1)))

    def test_symbols_differ(self, make_source: MarketSource) -> None:
        one = bars_of(make_source, START_MS, START_MS + 50 * STEP)
        other = bars_of(make_source, START_MS, START_MS + 50 * STEP, "ETHUSDT")
        assert not one["close"].equals(other["close"])

    def test_an_empty_range_gives_a_typed_empty_frame(self, make_source: MarketSource) -> None:
        for since, until in ((START_MS, START_MS), (0, STEP)):
            bars = bars_of(make_source, since, until)
            assert bars.is_empty()
            assert dict(bars.schema) == dict(BARS)

    def test_funding_is_typed_and_inside_the_closed_range(self, make_source: MarketSource) -> None:
        eight_hours = 28_800_000
        until = START_MS + 20 * eight_hours
        rates = ask(make_source, lambda source: source.fetch_funding("BTCUSDT", START_MS, until))
        assert rates is not None
        assert dict(rates.schema) == dict(FUNDING)
        assert rates["ts"].to_list() == list(range(START_MS, until + 1, eight_hours))
        assert rates["funding_rate"].is_finite().all()

    def test_open_interest_is_typed_and_inside_the_closed_range_or_none(
        self, make_source: MarketSource
    ) -> None:
        since, until = START_MS + 3 * STEP, START_MS + 700 * STEP
        found = ask(make_source, lambda source: source.fetch_open_interest("BTCUSDT", since, until))
        assert (found is None) == (make_source().kind == "simulated")
        if found is not None:
            expected = positions(N)[0].filter(pl.col("ts").is_between(since, until))
            assert dict(found.schema) == dict(OPEN_INTEREST)
            assert found.equals(expected)

    def test_long_short_ratio_is_typed_and_inside_the_closed_range_or_none(
        self, make_source: MarketSource
    ) -> None:
        since, until = START_MS + 3 * STEP, START_MS + 700 * STEP
        found = ask(
            make_source, lambda source: source.fetch_long_short_ratio("BTCUSDT", since, until)
        )
        assert (found is None) == (make_source().kind == "simulated")
        if found is not None:
            assert dict(found.schema) == dict(LONG_SHORT_RATIO)
            assert found["ts"].to_list() == list(range(since, until + 1, STEP))
            assert found["long_short_ratio"].to_list() == pytest.approx([1.5] * found.height)

    def test_companions_of_an_unknown_symbol_are_none_or_an_error(
        self, make_source: MarketSource
    ) -> None:
        async def every(source: BarSource) -> list[object]:
            calls = (
                source.fetch_funding,
                source.fetch_open_interest,
                source.fetch_long_short_ratio,
            )
            return await asyncio.gather(
                *(call("BTCUSDX", START_MS, END_MS) for call in calls), return_exceptions=True
            )

        for found in ask(make_source, every):
            unknown = isinstance(found, TradewindError) and found.code is ErrorCode.UNKNOWN_SYMBOL
            assert found is None or unknown

    def test_an_unknown_symbol_is_named_with_known_ones(self, make_source: MarketSource) -> None:
        with pytest.raises(TradewindError) as caught:
            bars_of(make_source, START_MS, END_MS, "BTCUSDX")
        assert caught.value.code is ErrorCode.UNKNOWN_SYMBOL
        assert "BTCUSDX" in caught.value.detail
        assert "BTCUSDT" in caught.value.hint

    def test_symbols_may_be_fetched_at_once(self, make_source: MarketSource) -> None:
        async def both(source: BarSource) -> list[pl.DataFrame]:
            calls = (source.fetch_bars(name, "15m", START_MS, END_MS) for name in SYMBOLS)
            return await asyncio.gather(*calls)

        for name, frame in zip(SYMBOLS, ask(make_source, both), strict=True):
            assert frame.equals(bars_of(make_source, START_MS, END_MS, name))

    def test_closing_twice_is_fine(self, make_source: MarketSource) -> None:
        async def close(source: BarSource) -> None:
            await source.close()

        ask(make_source, close)
