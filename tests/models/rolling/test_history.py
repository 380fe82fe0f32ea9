"""The history: from the store or a folder, computed once, and free of the future."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.history import BARS, CLOCK, REFERENCES, SYMBOLS, history_home
from tests.support.synthetic import START_MS, random_walk_bars
from tradewind.clock import ManualClock
from tradewind.errors import TradewindError
from tradewind.features import lookahead as features_lookahead
from tradewind.models.rolling.canaries import lookahead
from tradewind.models.rolling.history import load_history
from tradewind.settings import Settings


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return history_home(make_settings)


def test_features_are_computed_once(settings: Settings) -> None:
    first = load_history(settings, CLOCK, SYMBOLS)
    again = load_history(settings, CLOCK, SYMBOLS)
    assert (first.cached, again.cached) == (False, True)
    for name in ("ts", "symbol", "wide", "fwd_ret", "scale"):
        a, b = (getattr(h.training_set.samples, name) for h in (first, again))
        assert np.array_equal(a, b, equal_nan=True)
    other = settings.model_copy(
        update={"training": settings.training.model_copy(update={"horizon": 8})}
    )
    assert not load_history(other, CLOCK, SYMBOLS).cached


def test_rows_that_are_kept_have_the_labels_that_the_settings_ask_for(settings: Settings) -> None:
    """What a reversion is belongs to the rows: a changed stop must not find the old labels."""
    near = load_history(settings, CLOCK, SYMBOLS)
    gru = settings.gru.model_copy(update={"stop_atr": 0.2, "min_distance": 0.1})
    far = load_history(settings.model_copy(update={"gru": gru}), CLOCK, SYMBOLS)
    assert not far.cached
    a, b = near.training_set.samples.reverted, far.training_set.samples.reverted
    assert a is not None
    assert b is not None
    assert not np.array_equal(a, b, equal_nan=True)


def test_a_damaged_cache_is_made_again(settings: Settings) -> None:
    first = load_history(settings, CLOCK, SYMBOLS)
    (file,) = (settings.home / "evaluation" / "history").rglob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    again = load_history(settings, CLOCK, SYMBOLS)
    assert not again.cached
    assert np.array_equal(again.training_set.samples.ts, first.training_set.samples.ts)


def test_nothing_is_read_that_closes_after_the_clock(settings: Settings) -> None:
    early = ManualClock(START_MS + 2000 * 900_000)
    found = load_history(settings, early, SYMBOLS).training_set
    assert found.end_ms <= early.now_ms()
    assert len(found.samples) < len(load_history(settings, CLOCK, SYMBOLS).training_set.samples)


def test_a_folder_gives_the_rows_that_its_store_gives(
    settings: Settings, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    folder = tmp_path / "bars" / "binance_usdm_perp_15m"
    folder.mkdir(parents=True)
    for seed, symbol in enumerate(REFERENCES):
        bars = random_walk_bars(BARS, seed=seed)
        bars.with_columns(pl.col("ts").cast(pl.Int64)).write_parquet(
            folder / f"{symbol}_15m.parquet"
        )
    with_folder = settings.model_copy(
        update={"data": tmp_path / "bars", "home": tmp_path / "other"}
    )
    from_folder = load_history(with_folder, CLOCK, SYMBOLS)
    assert from_folder.source.startswith("folder ")
    ours = load_history(settings, CLOCK, SYMBOLS)
    assert ours.source.startswith("store ")
    assert np.array_equal(
        from_folder.training_set.samples.wide, ours.training_set.samples.wide, equal_nan=True
    )
    assert not (tmp_path / "other" / "store").exists()  # what is ingested stays as it was
    early = ManualClock(START_MS + 2000 * 900_000)
    assert load_history(with_folder, early, SYMBOLS).training_set.end_ms <= early.now_ms()


def test_no_bars_anywhere_is_said(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    with pytest.raises(TradewindError, match=r"no_bars.*BTCUSDT.*tradewind ingest"):
        load_history(settings, CLOCK, SYMBOLS)
    with pytest.raises(TradewindError, match=r"bad_setting.*TRADEWIND_DATA"):
        load_history(settings, CLOCK, SYMBOLS, bars="folder")


def test_a_planted_leak_is_caught(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    history = load_history(settings, CLOCK, SYMBOLS)
    sound = lookahead(settings, history.store, SYMBOLS, history.until_ms, rows=60, cuts=3)
    assert sound["ok"]
    compute = features_lookahead.compute_features

    def leaking(*given: object, **named: object) -> pl.DataFrame:
        frame = compute(*given, **named)  # type: ignore[arg-type]
        return frame.with_columns(pl.col("ret_1").shift(-1).fill_null(0.0))

    monkeypatch.setattr(features_lookahead, "compute_features", leaking)
    seen = lookahead(settings, history.store, SYMBOLS, history.until_ms, rows=60, cuts=3)
    assert not seen["ok"]
    assert seen["symbols"]["BTCUSDT"]["offending"] == ["ret_1"]
