"""Changes of regime are stored once, and corrected when bars are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.support.features import STEP, SYMBOLS, close_of, market, small_settings, store_of
from tests.support.synthetic import START_MS
from tradewind.features.compute import compute_features
from tradewind.features.regime_log import record_regimes
from tradewind.market.store import BarStore
from tradewind.regimes.detector import CODE, RegimeSeries
from tradewind.regimes.kinds import Regime
from tradewind.regimes.transitions import read_transitions, record_transitions, transitions

UP, DOWN, RANGE = Regime.TREND_UP, Regime.TREND_DOWN, Regime.RANGE_LOW_VOL


def series(*regimes: Regime) -> RegimeSeries:
    codes = np.array([CODE[regime] for regime in regimes], dtype=np.int8)
    return RegimeSeries("15m", codes, np.linspace(0.5, 1, len(codes)), {})


def times(count: int) -> np.ndarray:
    return START_MS + STEP * np.arange(count)


def files(store: BarStore) -> dict[str, bytes]:
    root = store.root
    return {str(p.relative_to(root)): p.read_bytes() for p in Path(root).rglob("*.parquet")}


def test_a_transition_is_the_first_bar_of_the_new_regime() -> None:
    found = transitions(times(5), series(UP, UP, DOWN, DOWN, UP))
    assert found.rows() == [
        (START_MS + 2 * STEP, "TREND_UP", "TREND_DOWN", 0.75),
        (START_MS + 4 * STEP, "TREND_DOWN", "TREND_UP", 1.0),
    ]
    assert transitions(times(0), series()).is_empty()


def test_they_are_stored_once_and_an_undone_one_is_not_read(tmp_path: Path) -> None:
    store = store_of(tmp_path, {})
    first = series(UP, UP, DOWN, RANGE)
    record_transitions(store, "BTCUSDT", times(4), first)
    before = files(store)
    record_transitions(store, "BTCUSDT", times(4), first)
    assert files(store) == before
    known = read_transitions(store, "BTCUSDT", "15m", until_ms=close_of(9))
    assert known["after"].to_list() == ["TREND_DOWN", "RANGE_LOW_VOL"]
    assert read_transitions(store, "BTCUSDT", "15m", until_ms=START_MS + 2 * STEP).height == 1
    # The third bar was corrected: it is a trend up now.
    record_transitions(store, "BTCUSDT", times(5), series(UP, UP, UP, RANGE, RANGE))
    known = read_transitions(store, "BTCUSDT", "15m", until_ms=close_of(9))
    assert known.select("ts", "before", "after").rows() == [
        (START_MS + 3 * STEP, "TREND_UP", "RANGE_LOW_VOL")
    ]
    assert read_transitions(store, "ETHUSDT", "15m", until_ms=close_of(9)).is_empty()


def test_recording_bar_by_bar_is_recording_at_once(tmp_path: Path) -> None:
    settings, bars = small_settings(), market(3600, seed=3)
    store = store_of(tmp_path, bars)
    for row in (2000, 2001, 2500, 3100, 3599):
        counts = record_regimes(settings, store, "SOLUSDT", until_ms=close_of(row))
    again = files(store)
    assert record_regimes(settings, store, "SOLUSDT", until_ms=close_of(3599)) == counts
    assert files(store) == again
    batch = compute_features(bars, "SOLUSDT", settings)
    for timeframe, column in (("15m", "regime_state"), ("1h", "regime_1h"), ("4h", "regime_4h")):
        changed = batch[column] != batch[column].shift()
        expected = batch.filter(changed)
        known = read_transitions(store, "SOLUSDT", timeframe, until_ms=close_of(3599))
        assert known["ts"].to_list() == expected["ts"].to_list()
        assert known["after"].to_list() == expected[column].to_list()
        assert counts[timeframe] == known.height
    assert counts["15m"] > 5
    assert set(SYMBOLS) == set(store.symbols("15m"))
