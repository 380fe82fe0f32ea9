"""Rows kept warm: computed ahead of requests, and never other than the store's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.live_view import LiveView
from tests.support.features import STEP, SYMBOLS, close_of
from tests.support.synthetic import START_MS, random_walk_market
from tradewind.clock import ManualClock
from tradewind.errors import TradewindError
from tradewind.features import view as view_module
from tradewind.features.compute import compute_features
from tradewind.features.definitions import DEEP, WIDE
from tradewind.market.active import store_for
from tradewind.settings import Settings, load_settings

N = 900
OWN = "XRPUSDT"
"""Nobody's reference: its bars are its own alone."""
TRADED = (*SYMBOLS, OWN)
WINDOW = 16
FIRST = 700
"""The bar up to which the store is filled before a test begins."""


def settings_in(home: Path) -> Settings:
    return load_settings(
        home=home,
        data=None,
        market={"symbols": TRADED, "reference_symbols": SYMBOLS},
        features={"warmup_bars": 300, "window": WINDOW, "ratio_window": 50},
    )


@pytest.fixture(scope="module")
def bars() -> dict[str, pl.DataFrame]:
    return random_walk_market(N, symbols=TRADED, seed=11)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the symbols whose features were computed, in order."""
    read, computed = view_module.read_block, []

    def counting(*args: object) -> object:
        computed.append(str(args[2]))
        return read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(view_module, "read_block", counting)
    return computed


def write(config: Settings, bars: dict[str, pl.DataFrame], start: int, end: int) -> None:
    for symbol, frame in bars.items():
        store_for(config).write_bars(symbol, "15m", frame[start:end])


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(st.sampled_from(["bar", "hole", "corrected", "late"]), min_size=4, max_size=10)
)
def test_warm_rows_are_the_store_s_whatever_is_written(
    bars: dict[str, pl.DataFrame],
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[str],
) -> None:
    config = settings_in(tmp_path_factory.mktemp("home"))
    write(config, bars, 0, FIRST)
    stored = {symbol: frame[:FIRST] for symbol, frame in bars.items()}
    clock = ManualClock(close_of(FIRST - 1))
    view = LiveView(config, clock)
    row = FIRST
    for change in changes:
        view.warm()
        new = {symbol: frame[row : row + 1] for symbol, frame in bars.items()}
        if change == "hole":  # one bar never comes
            new[OWN] = new[OWN].clear()
        elif change == "corrected":
            again = stored["ETHUSDT"][-3:-2].with_columns(pl.col("high") * 1.001)
            new["ETHUSDT"] = pl.concat([again, new["ETHUSDT"]])
        elif change == "late":  # the market's clock is ahead of what has come
            new = {}
        row += change != "late"
        clock.set(close_of(row))
        for symbol, frame in new.items():
            store_for(config).write_bars(symbol, "15m", frame)
            both = pl.concat([stored[symbol], frame])
            stored[symbol] = both.unique("ts", keep="last", maintain_order=True).sort("ts")
        for symbol in TRADED:
            check_row(view, config, stored, symbol)


def check_row(
    view: LiveView, config: Settings, stored: dict[str, pl.DataFrame], symbol: str
) -> None:
    """Compare the live row with the batch of all that is stored; a hole in it is refused."""
    newest = stored[symbol]["ts"].tail(WINDOW)
    if newest[-1] - newest[0] > (WINDOW - 1) * STEP:
        with pytest.raises(TradewindError, match="not_enough_bars"):
            view.latest(symbol)
        return
    found, batch = view.latest(symbol), compute_features(stored, symbol, config)
    assert found.bar_ts == batch["ts"][-1]
    wide = batch.select(WIDE).to_numpy()
    np.testing.assert_allclose(found.wide, wide[-1], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.deep, wide[-WINDOW:, : len(DEEP)].astype(np.float32))


def test_a_request_after_warming_computes_nothing(
    bars: dict[str, pl.DataFrame], tmp_path: Path, counted: list[str]
) -> None:
    config = settings_in(tmp_path)
    write(config, bars, 0, FIRST)
    clock = ManualClock(close_of(FIRST))
    view = LiveView(config, clock)
    view.warm()
    write(config, bars, FIRST, FIRST + 1)
    view.warm()
    counted.clear()
    for symbol in TRADED:
        assert view.latest(symbol).bar_ts == START_MS + FIRST * STEP
    view.warm()
    assert counted == []


def test_one_symbol_s_new_bar_does_not_make_the_others_wait(
    bars: dict[str, pl.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings_in(tmp_path)
    write(config, bars, 0, FIRST)
    read: Callable[..., object] = view_module.read_block
    started, go_on = threading.Event(), threading.Event()

    def held_up(*args: object) -> object:
        started.set()
        assert go_on.wait(30)
        return read(*args)

    view = LiveView(config, ManualClock(close_of(FIRST)))
    view.warm()
    monkeypatch.setattr(view_module, "read_block", held_up)
    corrected = bars[OWN][FIRST - 3 : FIRST - 2].with_columns(pl.col("high") * 1.001)
    store_for(config).write_bars(OWN, "15m", corrected)
    slow = threading.Thread(target=view.latest, args=(OWN,))
    slow.start()
    assert started.wait(30)
    assert view.latest("BTCUSDT").bar_ts == START_MS + (FIRST - 1) * STEP
    assert slow.is_alive()
    go_on.set()
    slow.join(30)


def test_many_symbols_stay_warm_together(
    bars: dict[str, pl.DataFrame], tmp_path: Path, counted: list[str]
) -> None:
    names = tuple(f"COIN{number}USDT" for number in range(40))
    config = settings_in(tmp_path)
    config = config.model_copy(
        update={"market": config.market.model_copy(update={"symbols": names})}
    )
    write(config, {**bars, **dict.fromkeys(names, bars["SOLUSDT"])}, 0, 400)
    view = LiveView(config, ManualClock(close_of(399)))
    view.warm()
    assert sorted(counted) == sorted(names)
    counted.clear()
    for name in names:
        view.latest(name)
    assert counted == []


def test_a_symbol_without_bars_does_not_end_the_round(
    bars: dict[str, pl.DataFrame], tmp_path: Path, counted: list[str]
) -> None:
    config = settings_in(tmp_path)
    write(config, {symbol: bars[symbol] for symbol in TRADED[1:]}, 0, FIRST)
    LiveView(config, ManualClock(close_of(FIRST))).warm()
    assert counted == list(TRADED)
