"""The newest row as of the clock: right, never early, quick to refuse, safe to share."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support.features import SYMBOLS, close_of, market, small_settings, store_of
from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.clock import ManualClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features import view as view_module
from tradewind.features.compute import compute_features
from tradewind.features.definitions import DEEP, WIDE, feature_version
from tradewind.features.view import FeatureView
from tradewind.market.store import BarStore
from tradewind.settings import load_settings

STEP = 900_000
N = 3200


@pytest.fixture(scope="module")
def bars() -> dict[str, pl.DataFrame]:
    return market(N, seed=4)


@pytest.fixture(scope="module")
def full_store(bars: dict[str, pl.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> BarStore:
    return store_of(tmp_path_factory.mktemp("full"), bars)


def view_at(store: BarStore, row: int, **features: int) -> FeatureView:
    """Return a view whose clock stands at the close of bar ``row``."""
    return FeatureView(small_settings(**features), store, ManualClock(close_of(row)))


def test_a_row_is_the_batch_row(bars: dict[str, pl.DataFrame], full_store: BarStore) -> None:
    row = view_at(full_store, 3000).latest("SOLUSDT")
    batch = compute_features(bars, "SOLUSDT", small_settings())
    assert row.bar_ts == START_MS + 3000 * STEP
    wide = batch.select(WIDE).to_numpy()
    np.testing.assert_array_equal(row.wide, wide[3000])
    np.testing.assert_array_equal(row.deep, wide[2985:3001, : len(DEEP)].astype(np.float32))
    assert row.deep.dtype == np.float32
    assert row.deep.shape == (16, 10)
    assert (row.close, row.atr) == (batch["close"][3000], batch["atr"][3000])
    vol = batch["vol_20"][3000]
    assert row.volatility == pytest.approx(vol * math.sqrt(96))
    assert row.scale == pytest.approx(vol * 4)
    assert row.feature_version == feature_version(small_settings())
    assert (row.regime, row.regime_computed) == (batch["regime"][3000], True)
    assert [reading.timeframe for reading in row.regimes] == ["15m", "1h", "4h"]
    assert [reading.regime for reading in row.regimes] == [
        batch[name][3000] for name in ("regime_state", "regime_1h", "regime_4h")
    ]
    assert row.regimes[0].confidence == batch["regime_confidence"][3000]
    assert row.staleness_s == 0.0


@given(
    row=st.integers(330, N - 1), symbol=st.sampled_from(SYMBOLS), offset=st.integers(0, STEP - 1)
)
@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_bars_after_the_clock_change_nothing(
    bars: dict[str, pl.DataFrame],
    full_store: BarStore,
    tmp_path_factory: pytest.TempPathFactory,
    row: int,
    symbol: str,
    offset: int,
) -> None:
    """A store that already holds the future answers as one that ends at the clock, to the bit."""
    past = store_of(
        tmp_path_factory.mktemp("past"), {s: frame.head(row + 1) for s, frame in bars.items()}
    )
    rows = []
    for store in (full_store, past):
        view = view_at(store, row)
        view.clock.set(close_of(row) + offset)  # type: ignore[attr-defined]
        rows.append(view.latest(symbol))
    replay, live = rows
    assert replay.bar_ts == live.bar_ts == START_MS + row * STEP
    assert replay.fingerprint == live.fingerprint
    assert replay.risk_atr == live.risk_atr or (
        math.isnan(replay.risk_atr) and math.isnan(live.risk_atr)
    )


def test_at_a_past_bar_is_what_latest_was_then(full_store: BarStore) -> None:
    then = view_at(full_store, 2047).latest("ETHUSDT")
    later = view_at(full_store, N - 1)
    now = later.latest("ETHUSDT")
    again = later.at("ETHUSDT", then.bar_ts)
    assert again.fingerprint == then.fingerprint != now.fingerprint
    assert again.risk_atr == then.risk_atr
    assert again.staleness_s == (N - 1 - 2047 - 1) * 900


def test_a_bar_that_has_not_closed_or_does_not_exist_is_refused(
    bars: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    hole = START_MS + 700 * STEP
    bars = {**bars, "SOLUSDT": bars["SOLUSDT"].filter(pl.col("ts") != hole)}
    view = view_at(store_of(tmp_path, bars), 1500)
    with pytest.raises(TradewindError, match="has not closed"):
        view.at("SOLUSDT", START_MS + 1501 * STEP)
    with pytest.raises(TradewindError) as caught:
        view.at("SOLUSDT", hole)
    assert caught.value.code is ErrorCode.NO_BARS
    assert str(hole) in caught.value.detail


def test_a_new_bar_and_a_corrected_bar_are_seen(
    bars: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    store = store_of(tmp_path, {s: frame.head(1000) for s, frame in bars.items()})
    clock = ManualClock(close_of(999))
    view = FeatureView(small_settings(), store, clock)
    first = view.latest("SOLUSDT")
    clock.set(close_of(1000))
    assert view.latest("SOLUSDT").bar_ts == first.bar_ts
    for symbol, frame in bars.items():
        store.write_bars(symbol, "15m", frame[1000:1001])
    assert view.latest("SOLUSDT").bar_ts == first.bar_ts + STEP
    # A correction of the leader's last bar changes the ratio of every symbol.
    before = view.latest("SOLUSDT")
    corrected = bars["BTCUSDT"][1000:1001].with_columns(pl.col("close", "high") * 1.01)
    store.write_bars("BTCUSDT", "15m", corrected)
    assert view.latest("SOLUSDT").fingerprint != before.fingerprint


def test_a_new_funding_rate_is_seen(bars: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    store = store_of(tmp_path, {s: frame.head(1000) for s, frame in bars.items()})
    view = view_at(store, 999)
    place = WIDE.index("funding_rate")
    assert np.isnan(view.latest("SOLUSDT").wide[place])
    rate = pl.DataFrame({"ts": [close_of(990)], "funding_rate": [0.0003]})
    store.write_series("funding_8h", "SOLUSDT", rate)
    assert view.latest("SOLUSDT").wide[place] == 0.0003
    assert np.isnan(view.latest("ETHUSDT").wide[place])


def test_staleness_is_reported_not_judged(full_store: BarStore) -> None:
    view = view_at(full_store, N - 1)
    for seconds, expected in ((0, 0), (899, 0), (900, 0), (1201, 301), (86_400, 85_500)):
        view.clock.set(close_of(N - 1) + seconds * 1000)  # type: ignore[attr-defined]
        row = view.latest("BTCUSDT")
        assert row.bar_ts == START_MS + (N - 1) * STEP
        assert row.staleness_s == expected
    # Far later, in a stretch of time without a bar: the same row, the same window.
    view.clock.set(close_of(N - 1) + 90 * 86_400_000)  # type: ignore[attr-defined]
    assert view.latest("BTCUSDT").fingerprint == row.fingerprint


def test_unknown_symbols_are_refused_with_the_known(full_store: BarStore) -> None:
    with pytest.raises(TradewindError, match="DOGEUSDT") as caught:
        view_at(full_store, 3000).latest("DOGEUSDT")
    assert caught.value.code is ErrorCode.UNKNOWN_SYMBOL
    assert "BTCUSDT, ETHUSDT, SOLUSDT" in caught.value.detail


@pytest.mark.parametrize(("held", "missing"), [(0, 316), (1, 315), (300, 16), (315, 1)])
def test_too_few_bars_say_how_many_are_missing(
    bars: dict[str, pl.DataFrame], tmp_path: Path, held: int, missing: int
) -> None:
    others = {s: bars[s].head(400) for s in ("BTCUSDT", "ETHUSDT")}
    store = store_of(tmp_path, {**others, "SOLUSDT": bars["SOLUSDT"][400 - held : 400]})
    with pytest.raises(TradewindError, match=rf"\b{missing} more 15m bars are missing") as caught:
        view_at(store, 399).latest("SOLUSDT")
    assert caught.value.code is ErrorCode.NOT_ENOUGH_BARS
    assert "ingest" in caught.value.hint


def test_exactly_enough_bars_are_enough(bars: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    store = store_of(tmp_path, {s: frame.head(316) for s, frame in bars.items()})
    assert view_at(store, 315).latest("SOLUSDT").bar_ts == START_MS + 315 * STEP


def test_before_the_first_bar_nothing_is_served(full_store: BarStore) -> None:
    with pytest.raises(TradewindError, match="no closed bar"):
        view_at(full_store, -1).latest("SOLUSDT")


def test_a_missing_reference_bar_is_named(bars: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    store = store_of(tmp_path, {**bars, "BTCUSDT": bars["BTCUSDT"].head(990)})
    with pytest.raises(TradewindError, match="ratio_BTC_ETH, lead_ret_BTC") as caught:
        view_at(store, 999).latest("SOLUSDT")
    assert caught.value.code is ErrorCode.NOT_ENOUGH_BARS
    assert "0 of 16 bars are usable" in caught.value.detail


def test_a_reference_that_was_never_stored_is_named(
    bars: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    store = store_of(tmp_path, {"ETHUSDT": bars["ETHUSDT"], "SOLUSDT": bars["SOLUSDT"]})
    with pytest.raises(TradewindError, match="ratio_BTC_ETH"):
        view_at(store, 999).latest("SOLUSDT")


def test_a_hole_in_the_window_is_refused_until_it_has_passed(
    bars: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    holed = {**bars, "SOLUSDT": bars["SOLUSDT"].filter(pl.col("ts") != START_MS + 900 * STEP)}
    store = store_of(tmp_path, holed)
    with pytest.raises(
        TradewindError, match="lacks vol_ratio_20_96; 0 of 16 bars are usable: at least 16"
    ):
        view_at(store, 950).latest("SOLUSDT")
    with pytest.raises(TradewindError, match="1 more 15m bars are missing"):
        view_at(store, 900 + 97 + 14).latest("SOLUSDT")
    assert view_at(store, 900 + 97 + 15).latest("SOLUSDT").bar_ts == START_MS + 1012 * STEP


def test_risk_atr_is_wilder_over_closed_days(
    bars: dict[str, pl.DataFrame], full_store: BarStore
) -> None:
    row = 20 * 96 + 40  # in the middle of day 20
    days = (
        bars["SOLUSDT"]
        .head(20 * 96)
        .group_by(pl.col("ts") // 86_400_000, maintain_order=True)
        .agg(pl.max("high"), pl.min("low"), pl.last("close"))
    )
    high, low, close = (days[name].to_numpy() for name in ("high", "low", "close"))
    ranges = [max(high[i], close[i - 1]) - min(low[i], close[i - 1]) for i in range(1, days.height)]
    expected = sum(ranges[:14]) / 14
    for value in ranges[14:]:
        expected = (expected * 13 + value) / 14
    assert view_at(full_store, row).latest("SOLUSDT").risk_atr == pytest.approx(expected, rel=1e-9)
    # Through the whole of the day it is the same, and too few days give NaN.
    assert view_at(full_store, 20 * 96 - 1).latest("SOLUSDT").risk_atr == pytest.approx(expected)
    assert math.isnan(view_at(full_store, 14 * 96 + 95 - 1).latest("SOLUSDT").risk_atr)
    assert math.isfinite(view_at(full_store, 15 * 96 - 1).latest("SOLUSDT").risk_atr)


def test_risk_atr_of_a_finer_timeframe_is_refused(full_store: BarStore) -> None:
    settings = load_settings(
        features=small_settings().features.model_dump(), sizing={"risk_atr_timeframe": "5m"}
    )
    with pytest.raises(TradewindError, match="risk_atr_timeframe = 5m"):
        FeatureView(settings, full_store, ManualClock(close_of(900))).latest("SOLUSDT")


def test_frame_reads_its_own_warm_up_and_stops_at_the_clock(
    bars: dict[str, pl.DataFrame], full_store: BarStore
) -> None:
    view = view_at(full_store, 2500)
    frame = view.frame("SOLUSDT", start_ms=START_MS + 2400 * STEP, until_ms=close_of(N - 1))
    batch = compute_features(bars, "SOLUSDT", small_settings())[2400:2501]
    assert frame.drop("history").equals(batch.drop("history"))
    with pytest.raises(TradewindError, match="DOGEUSDT"):
        view.frame("DOGEUSDT", start_ms=0, until_ms=1)


def test_rows_become_a_batch_in_the_order_given(full_store: BarStore) -> None:
    view = view_at(full_store, 3000)
    rows = [
        view.latest("SOLUSDT"),
        view.latest("BTCUSDT"),
        view.at("SOLUSDT", START_MS + 2000 * STEP),
    ]
    samples = view.rows_to_samples(rows)
    assert len(samples) == 3
    assert [samples.symbols[code] for code in samples.symbol] == ["SOLUSDT", "BTCUSDT", "SOLUSDT"]
    assert samples.ts.tolist() == [row.bar_ts for row in rows]
    np.testing.assert_array_equal(samples.wide, np.stack([row.wide for row in rows]))
    windows = samples.deep.take(np.arange(3))
    np.testing.assert_array_equal(windows, np.stack([row.deep for row in rows]))
    picked = samples.subset(np.array([2]))
    np.testing.assert_array_equal(picked.deep.take(np.array([0]))[0], rows[2].deep)
    assert np.isnan(samples.y_up).all()
    assert np.isnan(samples.fwd_ret).all()
    assert samples.scale.tolist() == [row.scale for row in rows]
    with pytest.raises(TradewindError, match="rows"):
        view.rows_to_samples([])


def test_many_threads_get_the_same_answers(full_store: BarStore) -> None:
    expected = {s: view_at(full_store, 3000).latest(s).fingerprint for s in SYMBOLS}
    shared = view_at(full_store, 3000)
    wrong: list[str] = []

    def ask(symbol: str) -> None:
        answers = (shared.latest(symbol).fingerprint for _ in range(15))
        wrong.extend(answer for answer in answers if answer != expected[symbol])

    threads = [threading.Thread(target=ask, args=(symbol,)) for symbol in SYMBOLS * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_replay_over_a_full_store_computes_each_stretch_once(
    full_store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []

    def counted(*args: object) -> object:
        reads.append(1)
        return view_module_read(*args)  # type: ignore[arg-type]

    view_module_read = view_module.read_block
    monkeypatch.setattr(view_module, "read_block", counted)
    view = view_at(full_store, 400)
    for row in range(400, 2400):
        view.clock.set(close_of(row))  # type: ignore[attr-defined]
        assert view.latest("SOLUSDT").bar_ts == START_MS + row * STEP
    assert len(reads) <= 4


def test_memory_stays_bounded(full_store: BarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "KEPT_BLOCKS", 2)
    view = view_at(full_store, 3000)
    first = view.latest("SOLUSDT")
    for row in (400, 1500, 2600, 3000):
        view.at("SOLUSDT", START_MS + row * STEP)
    assert len(view._held["SOLUSDT"].blocks) == 2
    assert view.latest("SOLUSDT").fingerprint == first.fingerprint


def test_a_symbol_that_is_stored_needs_no_setting(
    bars: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    store = store_of(tmp_path, {**bars, "XRPUSDT": random_walk_bars(N, seed=77, price=0.5)})
    row = view_at(store, 3000).latest("XRPUSDT")
    assert row.symbol == "XRPUSDT"
    assert np.isfinite(row.deep).all()
