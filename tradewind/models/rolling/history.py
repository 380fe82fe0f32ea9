"""The whole history as labelled rows: computed once, kept on disk by fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tradewind.clock import Clock, WallClock
from tradewind.errors import ErrorCode, TradewindError
from tradewind.features.definitions import feature_version
from tradewind.market.ingest import run_ingest, store_for
from tradewind.market.store import BarStore
from tradewind.models.dataset import TrainingSet, build_training_set
from tradewind.settings import MS_PER_DAY, Settings

BarsFrom = Literal["auto", "store", "folder"]
FOLDER = "evaluation"


@dataclass(frozen=True, eq=False)
class History:
    """Every labelled row of the symbols, and where the bars came from.

    ``store`` has the bars themselves; ``cached`` tells whether the features were read back.
    """

    training_set: TrainingSet
    source: str
    settings: Settings
    store: BarStore
    until_ms: int
    cached: bool


def load_history(
    settings: Settings,
    clock: Clock,
    symbols: Sequence[str],
    *,
    bars: BarsFrom = "auto",
) -> History:
    """Return all labelled rows of ``symbols`` up to the clock.

    Parameters
    ----------
    bars
        ``store``: what was ingested. ``folder``: the files of ``settings.data``, read into a
        store of the evaluation's own. ``auto``: the store where it has every symbol, else the
        folder.

    Raises
    ------
    TradewindError
        ``no_bars``, ``bad_setting`` (a folder is wanted and none is set), ``not_enough_bars``.
    """
    settings, store, source, until_ms = _open(settings, clock, symbols, bars)
    timeframe, step = settings.market.timeframe, settings.market.timeframe_ms
    spans = {symbol: _span(store, symbol, timeframe) for symbol in symbols}
    until_ms = min(until_ms, max(last for _, last in spans.values()) + step)
    first = min(first for first, _ in spans.values())
    folder = settings.home / FOLDER / "history" / _token(settings, store, symbols, until_ms)
    found = _cached(folder)
    if found is not None:
        return History(found, source, settings, store, until_ms, cached=True)
    days = -(-(until_ms - first) // MS_PER_DAY)
    built = build_training_set(settings, store, until_ms, symbols=symbols, days_back=days)
    built.save(folder)
    return History(built, source, settings, store, until_ms, cached=False)


def shuffled_labels(training_set: TrainingSet, seed: int) -> TrainingSet:
    """Return the same rows with labels drawn from all of their symbol's: nothing to learn.

    Drawn with replacement: a mere permutation would let the past's share of rises foretell
    the future's, which has to make up for it.
    """
    samples = training_set.samples
    drawn = np.arange(len(samples))
    rng = np.random.default_rng(seed)
    for code in range(len(samples.symbols)):
        own = np.flatnonzero(samples.symbol == code)
        drawn[own] = rng.choice(own, size=len(own))
    return replace(
        training_set,
        samples=replace(samples, y_up=samples.y_up[drawn], fwd_ret=samples.fwd_ret[drawn]),
    )


def _open(
    settings: Settings, clock: Clock, symbols: Sequence[str], bars: BarsFrom
) -> tuple[Settings, BarStore, str, int]:
    store = store_for(settings)
    stored = set(store.symbols(settings.market.timeframe))
    if bars == "store" or (bars == "auto" and (stored >= set(symbols) or settings.data is None)):
        return settings, store, f"store of {store.set_id}", clock.now_ms()
    if settings.data is None:
        raise TradewindError(
            ErrorCode.BAD_SETTING,
            "bars = 'folder', and no folder of bars is set",
            "Set TRADEWIND_DATA to a folder of sets, or read from the store",
        )
    market = settings.market.model_copy(update={"source": "folder"})
    own = settings.model_copy(
        update={"store_url": str((settings.home / FOLDER / "store").absolute()), "market": market}
    )
    names = dict.fromkeys((*symbols, *settings.market.reference_symbols))
    report = run_ingest(own, WallClock(), symbols=tuple(names))
    for failed in report.failed:
        if failed.symbol in symbols:
            raise TradewindError(
                failed.error_code or ErrorCode.NO_BARS,
                f"bars of {failed.symbol}: {failed.error}",
                "Correct the folder TRADEWIND_DATA, or choose other symbols",
            )
    return own, store_for(own), report.source_name, clock.now_ms()


def _span(store: BarStore, symbol: str, timeframe: str) -> tuple[int, int]:
    first, last = store.first_ts(symbol, timeframe), store.last_ts(symbol, timeframe)
    if first is None or last is None:
        raise TradewindError(
            ErrorCode.NO_BARS,
            f"there is no {timeframe} bar of {symbol}",
            "Run `tradewind ingest`, or set TRADEWIND_DATA to a folder of bars",
        )
    return first, last


def _token(settings: Settings, store: BarStore, symbols: Sequence[str], until_ms: int) -> str:
    timeframe = settings.market.timeframe
    known = set(store.symbols(timeframe))
    used = dict.fromkeys((*symbols, *settings.market.reference_symbols))
    described = {
        "bars": store.fingerprint(
            [name for name in used if name in known], timeframe, until_ms=until_ms
        ),
        "features": feature_version(settings),
        "symbols": list(symbols),
        "horizon": settings.training.horizon,
        "reversion": [settings.gru.stop_atr, settings.gru.min_distance],
        "until": until_ms,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _cached(folder: Path) -> TrainingSet | None:
    """Return the rows kept in ``folder``; None where there are none, or they are damaged."""
    if not folder.is_dir():
        return None
    try:
        return TrainingSet.load(folder)
    except TradewindError as error:
        if error.code is not ErrorCode.CORRUPT_FILE:
            raise
        return None
