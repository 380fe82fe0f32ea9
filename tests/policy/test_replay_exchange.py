"""The replay exchange itself: its clock, its gate, its answers and its faults."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.replay_exchange import (
    Fault,
    FaultKind,
    Faults,
    ReplayClock,
    ReplayExchange,
    parse_fault,
)
from tests.support.exchange import KLINES, FrameSource
from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.clock import ManualClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import load_settings

STEP = 900_000
N = 200
DAY_MS = 86_400_000
BARS = random_walk_bars(N)
BINANCE = "https://fapi.binance.com"
BYBIT = "https://api.bybit.com"
HALF_PAST = START_MS + 100 * STEP + STEP // 2


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock(HALF_PAST)


@pytest.fixture(scope="module")
def exchange(
    clock: ManualClock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ReplayExchange]:
    interest = pl.DataFrame(
        {"ts": BARS["ts"], "open_interest": pl.Series([float(i) for i in range(N)])}
    )
    source = FrameSource({"BTCUSDT": BARS}, "15m", open_interest={"BTCUSDT": interest})
    sources: dict[str, Any] = {"binanceusdm": source, "bybit": source}
    folder = tmp_path_factory.mktemp("replay")
    with ReplayExchange(sources, "15m", clock.now_ms, folder) as served:
        yield served


@pytest.fixture
def client(exchange: ReplayExchange) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(exchange.ca_file))
    with httpx.Client(proxy=exchange.proxy, verify=context, trust_env=False) as client:
        yield client
    exchange.faults.clear()


def klines(client: httpx.Client, **query: object) -> Any:
    texts = {name: str(value) for name, value in query.items()}
    answer = client.get(BINANCE + KLINES, params={"symbol": "BTCUSDT", "interval": "15m", **texts})
    return answer.json()


def test_a_candle_has_the_twelve_fields_of_the_exchange(client: httpx.Client) -> None:
    (row,) = klines(client, startTime=START_MS, limit=1)
    bar = BARS.row(0, named=True)
    assert len(row) == 12
    assert row[0] == START_MS
    assert row[6] == START_MS + STEP - 1
    assert [float(text) for text in row[1:6]] == [
        bar[name] for name in ("open", "high", "low", "close", "volume")
    ]
    assert all(isinstance(text, str) for text in row[1:6])


def test_the_open_candle_is_given_and_is_not_the_final_one(client: httpx.Client) -> None:
    *_, last = klines(client)
    bar = BARS.row(100, named=True)
    assert last[0] == bar["ts"]
    assert float(last[5]) == pytest.approx(bar["volume"] / 2)
    assert bar["low"] <= float(last[3]) <= float(last[4]) <= float(last[2]) <= bar["high"]


def test_pages_begin_at_the_start_or_end_at_the_newest(client: httpx.Client) -> None:
    stamps = BARS["ts"].to_list()
    assert [row[0] for row in klines(client, startTime=stamps[5], limit=3)] == stamps[5:8]
    assert [row[0] for row in klines(client, endTime=stamps[20], limit=3)] == stamps[18:21]
    assert [row[0] for row in klines(client, limit=2)] == stamps[99:101]


def test_bybit_gives_the_newest_first(client: httpx.Client) -> None:
    query = {"category": "linear", "symbol": "BTCUSDT", "interval": "15", "limit": "2"}
    query |= {"start": str(START_MS), "end": str(START_MS + 10 * STEP)}
    body = client.get(f"{BYBIT}/v5/market/kline", params=query).json()
    assert body["retCode"] == 0
    rows = body["result"]["list"]
    assert [int(row[0]) for row in rows] == [START_MS + 10 * STEP, START_MS + 9 * STEP]


def test_refusals_are_the_exchange_s_own(client: httpx.Client, clock: ManualClock) -> None:
    assert klines(client, symbol="NOPE")["code"] == -1121
    assert klines(client, interval="7m")["code"] == -1120
    assert klines(client, interval="1h")["code"] == -1120
    early = {"symbol": "BTCUSDT", "period": "15m", "startTime": str(clock.ms - 31 * DAY_MS)}
    answer = client.get(f"{BINANCE}/futures/data/openInterestHist", params=early)
    assert (answer.status_code, answer.json()["code"]) == (400, -1130)
    assert client.get(f"{BINANCE}/fapi/v1/nothing").status_code == 404
    wrong = {"category": "linear", "symbol": "BTCUSDT", "interval": "7"}
    body = client.get(f"{BYBIT}/v5/market/kline", params=wrong).json()
    assert body["retCode"] == 10001


def test_time_and_symbols(client: httpx.Client, clock: ManualClock) -> None:
    assert client.get(f"{BINANCE}/fapi/v1/ping").json() == {}
    assert client.get(f"{BINANCE}/fapi/v1/time").json() == {"serverTime": clock.ms}
    (symbol,) = client.get(f"{BINANCE}/fapi/v1/exchangeInfo").json()["symbols"]
    assert (symbol["symbol"], symbol["onboardDate"]) == ("BTCUSDT", START_MS)
    body = client.get(f"{BYBIT}/v5/market/time").json()
    assert int(body["result"]["timeNano"]) == clock.ms * 1_000_000


def test_no_other_host_is_reached(client: httpx.Client, exchange: ReplayExchange) -> None:
    with pytest.raises(httpx.ProxyError):
        client.get("https://example.com/")
    with httpx.Client(proxy=exchange.proxy, trust_env=False) as plain:
        assert plain.get("http://example.com/").status_code == 403
    assert "example.com" in exchange.refused_hosts


@pytest.mark.parametrize("head", [b"", b"GET", b"CONNECT", b"CONNECT fapi.binance.com.evil:443"])
def test_a_malformed_head_is_refused(exchange: ReplayExchange, head: bytes) -> None:
    place = ("127.0.0.1", int(exchange.proxy.rpartition(":")[2]))
    with socket.create_connection(place, timeout=10) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 403")


def test_a_rate_limit_says_when_to_come_back(
    client: httpx.Client, exchange: ReplayExchange
) -> None:
    exchange.add_fault(Fault(FaultKind.BANNED, path=KLINES, after=1, retry_after_s=7))
    assert len(klines(client, startTime=START_MS, limit=1)) == 1
    answer = client.get(BINANCE + KLINES, params={"symbol": "BTCUSDT", "interval": "15m"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (418, "7")
    assert len(klines(client, startTime=START_MS, limit=1)) == 1


@pytest.mark.parametrize("kind", [FaultKind.DROP_BEFORE, FaultKind.DROP_AFTER, FaultKind.CUT])
def test_broken_connections_break(
    client: httpx.Client, exchange: ReplayExchange, kind: FaultKind
) -> None:
    exchange.add_fault(Fault(kind, path=KLINES))
    with pytest.raises(httpx.TransportError):
        klines(client, limit=5)
    assert len(klines(client, limit=5)) == 5


def test_spoilt_rows_are_spoilt_in_one_answer_only(
    client: httpx.Client, exchange: ReplayExchange
) -> None:
    good = klines(client, startTime=START_MS, limit=30)
    expected = {
        FaultKind.DUPLICATED: [row for row in good for _ in range(2)][:30],
        FaultKind.OUT_OF_ORDER: [*good[1::2], *good[::2]],
        FaultKind.MISSING_ROWS: [*good[:10], *good[13:]],
        FaultKind.MISSING_PAGE: [],
    }
    for kind, rows in expected.items():
        exchange.add_fault(Fault(kind, path=KLINES))
        assert klines(client, startTime=START_MS, limit=30) == rows
        assert klines(client, startTime=START_MS, limit=30) == good
    exchange.add_fault(Fault(FaultKind.REPEATED_PAGE, path=KLINES))
    assert klines(client, startTime=START_MS + 50 * STEP, limit=30) == good


def test_the_clock_runs_fast_stands_still_and_jumps() -> None:
    clock = ReplayClock(START_MS, speed=1000)
    time.sleep(0.02)
    ran = clock.now_ms()
    assert ran >= START_MS + 20_000
    clock.pause()
    held = clock.now_ms()
    time.sleep(0.01)
    assert clock.now_ms() == held
    clock.set(START_MS)
    assert clock.now_ms() == START_MS
    clock.set_speed(0)
    clock.resume()
    assert clock.now_ms() == START_MS


@given(st.integers(0, 2**32), st.floats(0, 0.5), st.floats(0, 0.5))
def test_random_faults_follow_from_the_seed(seed: int, first: float, second: float) -> None:
    rates = {FaultKind.EMPTY: first, FaultKind.NULL: second}
    one, other = Faults(rates, seed), Faults(rates, seed)
    drawn = [one.take("/x") for _ in range(50)]
    assert drawn == [other.take("/x") for _ in range(50)]
    assert sum(one.done.values()) == sum(fault is not None for fault in drawn)


def test_random_faults_come_as_often_as_asked() -> None:
    faults = Faults({FaultKind.EMPTY: 0.2}, seed=1)
    for _ in range(2000):
        faults.take("/x")
    assert 320 < faults.done[FaultKind.EMPTY] < 480


def test_faults_that_cannot_be_are_refused(tmp_path: Path) -> None:
    assert parse_fault("429:0.05") == (FaultKind.TOO_MANY_REQUESTS, 0.05)
    for text in ("429", "nonsense:0.1", "429:much"):
        with pytest.raises(TradewindError, match="missing-rows"):
            parse_fault(text)
    for rates in ({FaultKind.EMPTY: -0.1}, {FaultKind.EMPTY: 0.7, FaultKind.NULL: 0.7}):
        with pytest.raises(TradewindError, match="probabilities"):
            Faults(rates)
    with pytest.raises(TradewindError) as caught:
        ReplayExchange({"kraken": FrameSource({}, "15m")}, "15m", lambda: 0, tmp_path)
    assert caught.value.code is ErrorCode.BAD_INPUT


def test_its_environment_leads_the_settings_here(
    exchange: ReplayExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in exchange.environment().items():
        monkeypatch.setenv(name, text)
    market = load_settings().market
    assert (market.source, market.exchanges) == ("ccxt", ("binanceusdm", "bybit"))
    assert (market.proxy, market.ca_file) == (exchange.proxy, exchange.ca_file)


def test_a_port_that_is_taken_is_named(exchange: ReplayExchange, tmp_path: Path) -> None:
    port = int(exchange.proxy.rpartition(":")[2])
    source: dict[str, Any] = {"binanceusdm": FrameSource({}, "15m")}
    with (
        pytest.raises(TradewindError, match=str(port)),
        ReplayExchange(source, "15m", lambda: 0, tmp_path, proxy_port=port),
    ):
        pass


def test_numbers_read_back_exactly(client: httpx.Client) -> None:
    rows = klines(client, startTime=START_MS, limit=100)
    assert [float(row[4]) for row in rows] == BARS["close"].head(100).to_list()
