"""Features of one symbol from bars: the same code for training, checks and serving.

Everything lives on the regular grid of bar opens. A bar that does not exist is NaN there: a
return or a window that would span it is NaN too, instead of quietly covering more time.
Recursive indicators ride over a short hole (`features.max_gap_bars`); a longer one begins a
new history, with its own warm-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features._cross import companion_features, leader, reference_closes
from tradewind.features._grid import Grid
from tradewind.features._indicators import recursive_indicators
from tradewind.features._regime import symbol_regimes
from tradewind.features.definitions import BAND_WIDTH, REQUIRED_FEATURES, WIDE, window_periods
from tradewind.market.timeframes import slower_timeframes
from tradewind.regimes.detector import REGIMES, RegimeSeries
from tradewind.regimes.kinds import Regime
from tradewind.regimes.views import regime_view
from tradewind.settings import MS_PER_DAY, Settings

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
STATES = tuple(regime.value for regime in REGIMES)
PRICES = ("open", "high", "low", "close")


def compute_features(
    bars: Mapping[str, pl.DataFrame],
    symbol: str,
    settings: Settings,
    *,
    funding: pl.DataFrame | None = None,
    open_interest: pl.DataFrame | None = None,
    long_short: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Return one row of features for every bar of ``symbol``.

    A row uses only bars closed at or before its own close. It is the same to 1e-9 from any
    history of at least ``features.warmup_bars`` bars before it, and to the bit once
    ``definitions.ANCHOR_BARS`` more are given; its regimes from ``regime_rows`` bars.

    Parameters
    ----------
    bars
        Closed bars by symbol: ``symbol`` and every reference, sorted by ts, unique.
    funding
        ts (settlement, ms) and funding_rate; None where the market has none.
    open_interest, long_short
        ts (survey, ms) and open_interest, or long_short_ratio; None likewise.

    Returns
    -------
    DataFrame
        ts, high, low, close; the columns of `definitions.WIDE` (Float64, NaN where not available,
        never null); atr (ATR(14), price units); history (unbroken bars before this one); warm
        (history ≥ ``warmup_bars``, every required feature finite and vol_20 > 0); regime
        (trend, neutral or meanrev), regime_computed, regime_state (`Regime`) and
        regime_confidence of the trading timeframe; regime_{timeframe} (`Regime`) of each
        slower one.

    Raises
    ------
    TradewindError
        ``bad_input`` for missing, unsorted, off-grid or non-finite bars.
    """
    return features_and_regimes(
        bars,
        symbol,
        settings,
        funding=funding,
        open_interest=open_interest,
        long_short=long_short,
    )[0]


def features_and_regimes(
    bars: Mapping[str, pl.DataFrame],
    symbol: str,
    settings: Settings,
    *,
    long: pl.DataFrame | None = None,
    funding: pl.DataFrame | None = None,
    open_interest: pl.DataFrame | None = None,
    long_short: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, dict[str, RegimeSeries]]:
    """Return `compute_features`, and the regimes with their metrics by timeframe.

    ``long`` has the symbol's bars further back than ``bars`` has them, for the regimes of
    slower timeframes; None: ``bars`` alone.
    """
    found = features_alone(
        bars,
        symbol,
        settings,
        funding=funding,
        open_interest=open_interest,
        long_short=long_short,
    )
    if found.frame.is_empty():
        return found.frame.hstack(_no_regimes(settings)), {}
    slow = found.grid if long is None else Grid.of(long, settings.market.timeframe_ms)
    regimes = symbol_regimes(symbol, slow, found.grid, found.indicators, settings)
    return found.frame.hstack(_regime_columns(regimes, settings)), regimes


class Computed(NamedTuple):
    """Features, and what regimes are made of.

    ``frame`` is `compute_features` without the columns of regimes, ``grid`` the bars, and
    ``indicators`` has a row for each of `_kernel.INDICATORS` and a column for each bar.
    """

    frame: pl.DataFrame
    grid: Grid
    indicators: FloatArray


def features_alone(
    bars: Mapping[str, pl.DataFrame],
    symbol: str,
    settings: Settings,
    **companions: pl.DataFrame | None,
) -> Computed:
    """Return the features of `compute_features`, without regimes."""
    from tradewind.features import _kernel

    step, cfg = settings.market.timeframe_ms, settings.features
    grid = Grid.of(checked(bars, symbol, step), step)
    ts, run_start = grid.rows_ts, grid.run_starts(cfg.max_gap_bars)
    count = len(grid.ts)
    table = np.empty((len(WIDE), count))
    _kernel.window_features(
        grid.table,
        reference_closes(bars, grid.ts, settings),
        leader(symbol, settings),
        grid.place,
        window_periods(settings),
        BAND_WIDTH,
        0,
        0,
        count,
        0,
        table,
    )
    wide = grid.picked(table)
    raw = recursive_indicators(ts, grid.rows, run_start, step_ms=step, warmup=cfg.warmup_bars)
    _kernel.indicator_features(raw, grid.rows, 0, wide)
    beside = {**clock_features(ts, step), **companion_features(ts, step, **companions)}
    for name, values in beside.items():
        wide[WIDE.index(name)] = values
    history = np.arange(len(ts), dtype=np.int64) - run_start
    known = sum(wide[WIDE.index(name)] for name in REQUIRED_FEATURES)
    # A sum is finite if and only if every part is.
    warm = np.isfinite(known) & (history >= cfg.warmup_bars) & (wide[WIDE.index("vol_20")] > 0)
    columns: dict[str, NDArray[np.generic]] = {
        "ts": ts,
        "high": grid.rows[_kernel.HIGH],
        "low": grid.rows[_kernel.LOW],
        "close": grid.rows[_kernel.CLOSE],
        **dict(zip(WIDE, wide, strict=True)),
        "atr": raw[_kernel.ATR],
        "history": history,
        "warm": warm,
    }
    return Computed(pl.DataFrame(columns), grid, raw)


def _regime_columns(regimes: Mapping[str, RegimeSeries], settings: Settings) -> pl.DataFrame:
    own = regimes[settings.market.timeframe]
    columns: dict[str, NDArray[np.generic] | pl.Series] = {
        "regime": _names(own, [regime_view(regime).value for regime in REGIMES]),
        "regime_computed": own.codes != REGIMES.index(Regime.UNKNOWN),
        "regime_state": _names(own),
        "regime_confidence": own.confidence,
        **{f"regime_{name}": _names(regimes[name]) for name in slower_timeframes(settings)},
    }
    return pl.DataFrame(columns)


def _names(regimes: RegimeSeries, names: Sequence[str] = STATES) -> pl.Series:
    return pl.Series(names, dtype=pl.String).gather(regimes.codes.astype(np.uint32))


def clock_features(ts: IntArray, step_ms: int) -> dict[str, FloatArray]:
    """Return sine and cosine of the time of day."""
    # They repeat every day, and within it only every step.
    angle = 2 * np.pi * np.arange(0, MS_PER_DAY, step_ms) / MS_PER_DAY
    place = ts % MS_PER_DAY // step_ms
    return {"hour_sin": np.sin(angle)[place], "hour_cos": np.cos(angle)[place]}


def checked(bars: Mapping[str, pl.DataFrame], symbol: str, step: int) -> pl.DataFrame:
    """Return the symbol's bars; refuse bars that are unsorted, off the grid or no numbers."""
    if symbol not in bars:
        raise _bad(f"bars of {symbol} are missing; given: {', '.join(bars) or 'none'}")
    for name, frame in bars.items():
        ts = frame["ts"].to_numpy()
        if np.any(ts // step * step != ts) or np.any(ts[1:] <= ts[:-1]):
            raise _bad(f"bars of {name}: ts is not strictly rising on the {step} ms grid")
        if not _positive(frame, "close"):
            raise _bad(f"bars of {name}: a close is not a positive number")
    own = bars[symbol]
    finite = np.isfinite(own["volume"].to_numpy()).all()
    if not (finite and all(_positive(own, name) for name in PRICES)):
        raise _bad(f"bars of {symbol}: a price or volume is not finite, or a price is not positive")
    return own


def _positive(frame: pl.DataFrame, column: str) -> bool:
    values = frame[column].to_numpy()
    # A NaN among them is the least and the greatest.
    least, greatest = np.min(values, initial=1.0), np.max(values, initial=1.0)
    return bool(least > 0 and greatest < np.inf)


def _bad(detail: str) -> TradewindError:
    return TradewindError(
        ErrorCode.BAD_INPUT,
        detail,
        "Read them from the store: ingestion sorts bars and quarantines bad ones",
    )


def _no_regimes(settings: Settings) -> pl.DataFrame:
    types: dict[str, type[pl.DataType]] = {
        "regime": pl.String,
        "regime_computed": pl.Boolean,
        "regime_state": pl.String,
        "regime_confidence": pl.Float64,
        **{f"regime_{name}": pl.String for name in slower_timeframes(settings)},
    }
    return pl.DataFrame(schema=types)
