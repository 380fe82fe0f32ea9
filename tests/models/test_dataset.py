"""Training sets: the right rows, with whole windows and honest labels; safe on disk."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.features import STEP, close_of, market, small_settings, store_of
from tests.support.synthetic import START_MS
from tradewind.clock import ManualClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.compute import compute_features
from tradewind.features.definitions import DEEP, NULLABLE_FEATURES, REQUIRED_FEATURES, WIDE
from tradewind.features.reversion import add_reversion
from tradewind.features.view import FeatureView
from tradewind.market.store import BarStore
from tradewind.models.dataset import TrainingSet, build_training_set, samples_from_frames
from tradewind.settings import MS_PER_DAY

N = 2600
UNTIL = close_of(N - 1)
SYMBOLS = ("SOLUSDT", "BTCUSDT")


@pytest.fixture(scope="module")
def bars() -> dict[str, pl.DataFrame]:
    return market(N, seed=6)


@pytest.fixture(scope="module")
def store(bars: dict[str, pl.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> BarStore:
    return store_of(tmp_path_factory.mktemp("bars"), bars)


@pytest.fixture(scope="module")
def built(store: BarStore) -> TrainingSet:
    return build_training_set(small_settings(), store, UNTIL, symbols=SYMBOLS, days_back=5)


def test_the_rows_are_the_labelled_ones_of_the_last_days(built: TrainingSet) -> None:
    samples = built.samples
    assert len(samples) == 2 * (5 * 96 - 16)
    assert samples.symbols == SYMBOLS
    assert samples.ts.min() == UNTIL - 5 * MS_PER_DAY == built.start_ms
    assert samples.ts.max() == UNTIL - 17 * STEP
    assert built.end_ms == UNTIL
    assert (built.timeframe, built.horizon) == ("15m", 16)
    keys = list(zip(samples.ts.tolist(), samples.symbol.tolist(), strict=True))
    assert keys == sorted(keys)
    assert samples.wide_names == WIDE
    required = samples.wide[:, : len(REQUIRED_FEATURES)]
    assert np.isfinite(required).all()
    nullable = samples.wide[:, len(REQUIRED_FEATURES) :]
    assert nullable.shape[1] == len(NULLABLE_FEATURES)
    assert np.isnan(nullable).all()
    assert np.isfinite(samples.scale).all()
    # torch.from_numpy warns of arrays that cannot be written.
    for array in (samples.ts, samples.wide, samples.y_up, samples.fwd_ret, samples.scale):
        assert array.flags.writeable


def test_labels_windows_and_features_are_those_of_the_bars(
    built: TrainingSet, bars: dict[str, pl.DataFrame], store: BarStore
) -> None:
    samples, settings = built.samples, small_settings()
    view = FeatureView(settings, store, ManualClock(UNTIL))
    for place in (0, 1, 7, 500, len(samples) - 1):
        symbol, ts = samples.symbols[samples.symbol[place]], int(samples.ts[place])
        close = bars[symbol]["close"].to_numpy()
        bar = (ts - START_MS) // STEP
        expected = math.log(close[bar + 16] / close[bar])
        assert samples.fwd_ret[place] == pytest.approx(expected, rel=1e-9)
        assert samples.y_up[place] == float(expected > 0)
        served = view.at(symbol, ts)
        np.testing.assert_array_equal(samples.wide[place], served.wide)
        np.testing.assert_array_equal(samples.deep.take(np.array([place]))[0], served.deep)
        assert samples.scale[place] == served.scale


def test_reversion_labels_stand_at_their_own_rows(
    built: TrainingSet, bars: dict[str, pl.DataFrame]
) -> None:
    samples, settings = built.samples, small_settings()
    assert samples.reverted is not None
    for code, symbol in enumerate(samples.symbols):
        frame = compute_features(bars, symbol, settings)
        expected = add_reversion(
            frame,
            settings.training.horizon,
            "15m",
            stop_atr=settings.gru.stop_atr,
            min_distance=settings.gru.min_distance,
        )
        place = np.searchsorted(frame["ts"].to_numpy(), samples.ts[samples.symbol == code])
        ours, theirs = samples.reverted[samples.symbol == code], expected["reverted"][place]
        # The first windows of the set have too few bars behind them for the mean of 20.
        np.testing.assert_array_equal(ours[20:], theirs.to_numpy()[20:])
        known = ours[np.isfinite(ours)]
        assert 0.2 < len(known) / len(ours) < 0.9
        assert 0 < known.mean() < 1


def test_a_set_from_before_the_reversion_label_still_loads(
    built: TrainingSet, tmp_path: Path
) -> None:
    old = replace(built, samples=replace(built.samples, reverted=None))
    old.save(tmp_path / "set")
    assert TrainingSet.load(tmp_path / "set").samples.reverted is None


def test_windows_share_one_array_per_symbol(built: TrainingSet) -> None:
    deep = built.samples.deep
    assert len(deep.rows) == 2
    assert deep.rows[0].dtype == np.float32
    assert deep.rows[0].shape == (5 * 96 + 15, len(DEEP))
    assert np.isfinite(deep.take(np.arange(len(deep)))).all()


def test_bars_after_until_change_nothing(
    built: TrainingSet, bars: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    later = {s: f.with_columns(pl.col("ts") + N * STEP) for s, f in market(400, seed=8).items()}
    longer = store_of(tmp_path, {s: pl.concat([bars[s], later[s]]) for s in bars})
    again = build_training_set(small_settings(), longer, UNTIL, symbols=SYMBOLS, days_back=5)
    assert again.samples.wide.tobytes() == built.samples.wide.tobytes()
    assert again.data_fingerprint == built.data_fingerprint
    moved = build_training_set(small_settings(), longer, UNTIL + STEP, symbols=SYMBOLS, days_back=5)
    assert moved.data_fingerprint != built.data_fingerprint


def test_a_gap_costs_the_windows_and_labels_over_it(bars: dict[str, pl.DataFrame]) -> None:
    settings = small_settings()
    gap = START_MS + 1000 * STEP
    holed = {**bars, "SOLUSDT": bars["SOLUSDT"].filter(pl.col("ts") != gap)}
    frame = compute_features(holed, "SOLUSDT", settings)
    samples = samples_from_frames(settings, {"SOLUSDT": frame})
    kept = set(((samples.ts - START_MS) // STEP).tolist())
    assert 983 in kept
    assert 984 not in kept  # its label would end at the missing bar
    assert 985 in kept
    # 97 bars until every window has passed the gap, then a deep window of 16.
    assert not kept & set(range(1000, 1000 + 97 + 15 + 1 - 1))
    assert 1000 + 97 + 15 in kept
    windows = samples.deep.take(np.arange(len(samples)))
    assert np.isfinite(windows).all()


def test_too_few_bars_say_how_many(tmp_path: Path) -> None:
    settings = small_settings()
    short = store_of(tmp_path, market(330))
    with pytest.raises(TradewindError, match=r"330 bars .* needs 332") as caught:
        build_training_set(settings, short, close_of(329), symbols=("SOLUSDT",), days_back=20)
    assert caught.value.code is ErrorCode.NOT_ENOUGH_BARS
    assert "SOLUSDT" in caught.value.detail
    enough = store_of(tmp_path / "enough", market(332))
    built = build_training_set(settings, enough, close_of(331), symbols=("SOLUSDT",), days_back=20)
    assert len(built.samples) == 1


def test_a_missing_reference_is_named(bars: dict[str, pl.DataFrame], tmp_path: Path) -> None:
    store = store_of(tmp_path, {s: bars[s] for s in ("ETHUSDT", "SOLUSDT")})
    with pytest.raises(TradewindError, match="ratio_BTC_ETH, lead_ret_BTC"):
        build_training_set(small_settings(), store, UNTIL, symbols=("SOLUSDT",), days_back=5)


def test_a_saved_set_comes_back_the_same(built: TrainingSet, tmp_path: Path) -> None:
    built.save(tmp_path / "set")
    again = TrainingSet.load(tmp_path / "set")
    for name in ("feature_version", "data_fingerprint", "start_ms", "end_ms", "timeframe"):
        assert getattr(again, name) == getattr(built, name)
    assert again.horizon == built.horizon
    for field in fields(built.samples):
        old, new = getattr(built.samples, field.name), getattr(again.samples, field.name)
        if isinstance(old, np.ndarray):
            np.testing.assert_array_equal(new, old)
            assert new.dtype == old.dtype
        elif field.name != "deep":
            assert new == old
    everything = np.arange(len(built.samples))
    np.testing.assert_array_equal(
        again.samples.deep.take(everything), built.samples.deep.take(everything)
    )
    first = {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()}
    built.save(tmp_path / "set")
    assert {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()} == first


def test_a_damaged_set_is_refused(built: TrainingSet, tmp_path: Path) -> None:
    folder = tmp_path / "set"

    def refused() -> str:
        with pytest.raises(TradewindError) as caught:
            TrainingSet.load(folder)
        assert caught.value.code is ErrorCode.CORRUPT_FILE
        assert str(folder) in caught.value.detail
        return caught.value.detail

    refused()
    built.save(folder)
    arrays = folder / "samples.npz"
    whole = arrays.read_bytes()
    arrays.write_bytes(whole[: len(whole) // 2])
    refused()
    arrays.write_bytes(b"")
    refused()
    arrays.write_bytes(whole)
    described = folder / "training_set.json"
    meta = json.loads(described.read_text())
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    arrays.write_bytes(changed)
    assert "samples.npz" in refused()
    arrays.write_bytes(whole)
    described.write_text(json.dumps({**meta, "format": 99}))
    refused()
    described.write_text("{")
    refused()
    described.write_text("[]")
    refused()
    described.write_text(json.dumps(meta))
    assert len(TrainingSet.load(folder).samples) == meta["rows"]
