"""Ingestion through an unmodified ccxt, from a loopback exchange behind a TLS proxy."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from policy.replay_exchange import Fault, FaultKind
from tests.support.exchange import KLINES, Exchange
from tests.support.synthetic import START_MS, random_walk_market
from tradewind.clock import ManualClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.files import sha256_tree
from tradewind.market.active import active_set
from tradewind.market.ccxt_source import CcxtSource, resolve_symbol, set_of
from tradewind.market.ingest import run_ingest, store_for
from tradewind.market.open_source import open_source
from tradewind.settings import Settings

STEP = 900_000
N = 700
END = START_MS + N * STEP
FUNDING = pl.DataFrame(
    {"ts": [START_MS + i * 32 * STEP for i in range(22)], "funding_rate": [1e-4] * 22}
)


class Market:
    """A loopback exchange with a settable clock, and settings that lead to it."""

    def __init__(self, folder: Path, make_settings: Callable[..., Settings]) -> None:
        self.clock = ManualClock(END)
        self.bars = random_walk_market(N + 50)
        funding = dict.fromkeys(self.bars, FUNDING)
        self.exchange = Exchange(self.bars, "15m", self.clock.now_ms, folder, funding=funding)
        self._make = make_settings

    def settings(self, **market: Any) -> Settings:
        return self._make(market={**self.exchange.market, "history_days": 5, **market})

    def stored(self, symbol: str) -> pl.DataFrame:
        return store_for(self.settings()).read_bars(symbol, "15m", until_ms=END + 10**12)


@pytest.fixture
def market(tmp_path: Path, make_settings: Callable[..., Settings]) -> Iterator[Market]:
    market = Market(tmp_path, make_settings)
    with market.exchange:
        yield market


def closed_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_closed_bars_and_funding_arrive_and_twice_changes_no_byte(market: Market) -> None:
    market.clock.set(END + STEP // 2)  # the exchange gives out the open bar too
    settings = market.settings()
    report = run_ingest(settings, market.clock)
    assert (report.source_kind, report.set_id) == ("ccxt", "binance_usdm_perp")
    assert "binanceusdm" in report.source_name
    assert not report.failed
    since = -(-(market.clock.ms - 5 * 96 * STEP) // STEP) * STEP
    expected = {
        name: frame.filter(pl.col("ts").is_between(since, END - STEP))
        for name, frame in market.bars.items()
    }
    for name, frame in expected.items():
        assert market.stored(name).equals(frame)
    rates = store_for(settings).read_series("funding_8h", "BTCUSDT", until_ms=END)
    assert rates.equals(FUNDING.filter(pl.col("ts") >= since))
    before = sha256_tree(settings.home)
    run_ingest(settings, market.clock)
    assert sha256_tree(settings.home) == before


def test_the_next_run_asks_only_from_the_overlap_on(market: Market) -> None:
    run_ingest(market.settings(), market.clock, symbols=["BTCUSDT"])
    market.exchange.requests.clear()
    market.clock.set(END + 3 * STEP)
    report = run_ingest(market.settings(), market.clock, symbols=["BTCUSDT"])
    assert report.symbols[0].added == 3
    (asked,) = market.exchange.asked(KLINES)
    assert int(asked["startTime"]) == END - STEP - 10 * STEP


def test_only_public_addresses_of_the_exchange_are_asked(market: Market) -> None:
    run_ingest(market.settings(), market.clock)
    paths = {path for path, _ in market.exchange.requests}
    own = {"/fapi/v1/exchangeInfo", "/fapi/v1/time", KLINES, "/fapi/v1/fundingRate"}
    assert paths - own <= {
        "/futures/data/openInterestHist",
        "/futures/data/globalLongShortAccountRatio",
    }
    assert own <= paths
    assert not market.exchange.refused_hosts


def test_a_lasting_failure_is_one_clear_error_per_symbol(market: Market) -> None:
    run_ingest(market.settings(), market.clock)
    before = sha256_tree(market.settings().store_root)
    market.clock.set(END + STEP)
    market.exchange.add_fault(Fault(FaultKind.SERVER_ERROR, path=KLINES, times=6))
    settings = market.settings(network_attempts=2)
    report = run_ingest(settings, market.clock, symbols=tuple(market.bars))
    for result in report.symbols:
        assert (result.error or "").startswith("exchange_unreachable: exchange binanceusdm")
    assert sha256_tree(market.settings().store_root) == before


def test_a_refusal_is_not_retried(market: Market) -> None:
    source = CcxtSource(market.settings())

    async def run() -> None:
        try:
            await source.fetch_bars("BTCUSDT", "1h", START_MS, END)  # there are 15m bars only
        finally:
            await source.close()

    with pytest.raises(TradewindError, match=r"exchange_unreachable.*Invalid interval"):
        asyncio.run(run())
    assert len(market.exchange.asked(KLINES)) == 1


@pytest.mark.parametrize("body", ["", "null", "[]", "<html>busy</html>", '{"symbols": [{"s', "[1]"])
def test_a_success_without_markets_is_unreachable(market: Market, body: str) -> None:
    market.exchange.add_fault(Fault(FaultKind.BODY, body=body, times=99))
    with pytest.raises(TradewindError) as caught:
        run_ingest(market.settings(network_attempts=2), market.clock)
    assert caught.value.code is ErrorCode.EXCHANGE_UNREACHABLE


def test_one_bad_answer_to_the_first_question_is_forgiven(market: Market) -> None:
    for kind in (FaultKind.DROP_BEFORE, FaultKind.EMPTY, FaultKind.TOO_MANY_REQUESTS):
        market.exchange.add_fault(Fault(kind, path="exchangeInfo", retry_after_s=0.1))
    report = run_ingest(market.settings(), market.clock, symbols=["BTCUSDT"])
    assert not report.failed


def test_bad_bars_of_an_exchange_are_quarantined(market: Market) -> None:
    bad = market.bars["ETHUSDT"].with_columns(
        pl.when(pl.int_range(pl.len()) == N - 20)
        .then(math.inf)
        .otherwise(pl.col("high"))
        .alias("high")
    )
    market.bars["ETHUSDT"] = bad
    report = run_ingest(market.settings(), market.clock)
    assert [result.quarantined for result in report.symbols] == [0, 1, 0]
    assert store_for(market.settings()).quarantined()["reason"].to_list() == ["infinite"]


def test_the_next_exchange_serves_where_the_first_refuses(market: Market) -> None:
    settings = market.settings(exchanges=("bybit", "binanceusdm"), set_id="bybit_linear")
    report = run_ingest(settings, market.clock)
    assert report.set_id == "binance_usdm_perp"
    assert "binanceusdm" in report.source_name
    assert store_for(settings).set_id == "binance_usdm_perp"
    assert any("bybit" in host for host in market.exchange.refused_hosts)


def test_auto_without_network_is_simulated_and_says_so_and_stays(
    make_settings: Callable[..., Settings], market: Market
) -> None:
    dead = {"proxy": f"http://127.0.0.1:{closed_port()}", "history_days": 5}
    offline = make_settings(market={**dead})
    started = time.monotonic()
    report = run_ingest(offline, market.clock)
    assert time.monotonic() - started < 10
    assert report.simulated
    assert "simulated" in report.source_name
    assert store_for(offline).set_id == "simulated_usdm_perp"
    assert run_ingest(market.settings(source="auto"), market.clock).simulated
    assert not run_ingest(market.settings(source="ccxt"), market.clock).simulated


def test_auto_never_falls_from_real_prices_to_simulated_ones(
    make_settings: Callable[..., Settings], market: Market
) -> None:
    run_ingest(market.settings(source="auto"), market.clock)
    port = closed_port()
    offline = make_settings(market={"proxy": f"http://me:secret@127.0.0.1:{port}"})
    with pytest.raises(TradewindError) as caught:
        run_ingest(offline, market.clock)
    assert caught.value.code is ErrorCode.EXCHANGE_UNREACHABLE
    assert f"127.0.0.1:{port} (setting market.proxy) runs" in caught.value.hint
    assert "secret" not in str(caught.value)
    active = active_set(offline)
    assert active is not None
    assert active.set_id == "binance_usdm_perp"


def test_an_exchange_that_hangs_is_given_up_in_time(make_settings: Callable[..., Settings]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = make_settings(
            market={"source": "ccxt", "proxy": proxy, "connect_timeout_s": 0.5}
        )
        started = time.monotonic()
        with pytest.raises(TradewindError, match="did not answer in time"):
            asyncio.run(open_source(settings, ManualClock(END)))
        assert time.monotonic() - started < 5


def test_settings_that_cannot_work_are_named(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    for setting, market in (
        ("market.exchanges", {"source": "ccxt", "exchanges": ("nosuch",)}),
        ("market.ca_file", {"source": "ccxt", "ca_file": tmp_path / "none.pem"}),
        ("market.source", {"source": "folder"}),
    ):
        with pytest.raises(TradewindError, match=f"bad_setting: setting {setting}"):
            asyncio.run(open_source(make_settings(market=market), ManualClock(END)))
    early = make_settings(market={"source": "simulated"})
    with pytest.raises(TradewindError, match="clock"):
        asyncio.run(open_source(early, ManualClock(0)))


def test_symbols_resolve_by_id_or_by_pair() -> None:
    markets = {
        "BTC/USDT:USDT": {"id": "BTC-USDT-SWAP", "base": "BTC", "quote": "USDT"},
        "ETH/USDT:USDT": {"id": "ETHUSDT", "base": "ETH", "quote": "USDT"},
    }
    assert resolve_symbol(markets, "BTCUSDT", "x") == "BTC/USDT:USDT"
    assert resolve_symbol(markets, "ETHUSDT", "x") == "ETH/USDT:USDT"
    with pytest.raises(TradewindError, match=r"unknown_symbol.*DOGEUSDT"):
        resolve_symbol(markets, "DOGEUSDT", "x")


def test_every_exchange_has_a_set_of_its_own() -> None:
    assert [set_of(name) for name in ("binanceusdm", "bybit", "okx", "kraken")] == [
        "binance_usdm_perp",
        "bybit_linear",
        "okx_swap",
        "kraken_swap",
    ]
