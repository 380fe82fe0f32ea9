"""Features of one symbol from bars: the same code for training, checks and serving.

Everything lives on the regular grid of bar opens. A bar that does not exist is NaN there: a
return or a window that would span it is NaN too, instead of quietly covering more time.
Recursive indicators ride over a short hole (`features.max_gap_bars`); a longer one begins a
new history, with its own warm-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tradewind.errors import ErrorCode, TradewindError
from tradewind.features._cross import companion_features, cross_features
from tradewind.features._grid import Grid
from tradewind.features._indicators import recursive_indicators
from tradewind.features._regime import slower_timeframes, symbol_regimes
from tradewind.features._rolling import (
    divide,
    log_return,
    rolling_extremes,
    rolling_mean,
    rolling_moments,
)
from tradewind.features.definitions import (
    BAND_WIDTH,
    FAST,
    LONG,
    PERIOD,
    REQUIRED_FEATURES,
    WIDE,
)
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
    step = settings.market.timeframe_ms
    frame = _checked(bars, symbol, step)
    if frame.is_empty():
        return pl.DataFrame(_no_rows(settings)), {}
    grid = Grid.of(frame, step)
    ts, at = grid.rows_ts, grid.at
    own = {name: frame[name].to_numpy() for name in ("high", "low", "close")}
    run_start = grid.run_starts(settings.features.max_gap_bars)
    raw = recursive_indicators(
        ts, own, run_start, step_ms=step, warmup=settings.features.warmup_bars
    )
    columns = _indicator_features(own["close"], raw)
    for name, values in {
        **_window_features(grid.bars),
        **cross_features(bars, symbol, grid.ts, settings),
    }.items():
        columns[name] = values[at]
    columns |= _clock_features(ts)
    columns |= companion_features(
        ts, step, funding=funding, open_interest=open_interest, long_short=long_short
    )
    history = np.arange(len(ts), dtype=np.int64) - run_start
    finite = np.all([np.isfinite(columns[name]) for name in REQUIRED_FEATURES], axis=0)
    enough = history >= settings.features.warmup_bars
    regimes = symbol_regimes(symbol, ts, frame if long is None else long, grid, raw, settings)
    table: dict[str, NDArray[np.generic] | pl.Series] = {
        "ts": ts,
        **own,
        **{name: columns[name] for name in WIDE},
        "atr": columns["atr"],
        "history": history,
        "warm": finite & enough & (columns["vol_20"] > 0),
        **_regime_columns(regimes, settings),
    }
    return pl.DataFrame(table), regimes


def _regime_columns(
    regimes: Mapping[str, RegimeSeries], settings: Settings
) -> dict[str, NDArray[np.generic] | pl.Series]:
    own = regimes[settings.market.timeframe]
    return {
        "regime": _names(own, [regime_view(regime).value for regime in REGIMES]),
        "regime_computed": own.codes != REGIMES.index(Regime.UNKNOWN),
        "regime_state": _names(own),
        "regime_confidence": own.confidence,
        **{f"regime_{name}": _names(regimes[name]) for name in slower_timeframes(settings)},
    }


def _names(regimes: RegimeSeries, names: Sequence[str] = STATES) -> pl.Series:
    return pl.Series(names, dtype=pl.String).gather(regimes.codes.astype(np.uint32))


def _indicator_features(close: FloatArray, raw: dict[str, FloatArray]) -> dict[str, FloatArray]:
    return {
        "ema_20": np.log(close / raw["ema_fast"]),
        "ema_50": np.log(close / raw["ema_middle"]),
        "ema_200": np.log(close / raw["ema_slow"]),
        "rsi_14": raw["rsi"] / 100,
        "atr": raw["atr"],
        "atr_14": raw["atr"] / close,
        "adx_14": raw["adx"] / 100,
        "di_diff_14": raw["di_diff"] / 100,
        "macd_hist": raw["macd_hist"] / close,
    }


def _window_features(bar: dict[str, FloatArray]) -> dict[str, FloatArray]:
    close, high, low, volume = bar["close"], bar["high"], bar["low"], bar["volume"]
    ret_1 = log_return(close)
    log_close = np.log(close)
    log_mean, log_std = rolling_moments(log_close, FAST, ddof=1)
    vol_fast = rolling_moments(ret_1, FAST, ddof=1)[1]
    vol_long = rolling_moments(ret_1, LONG, ddof=1)[1]
    middle, spread = rolling_moments(close, FAST, ddof=0)
    least, greatest = rolling_extremes(low, high, PERIOD)
    band = 2 * BAND_WIDTH * spread
    return {
        "ret_1": ret_1,
        "ret_4": log_return(close, 4),
        "ret_16": log_return(close, 16),
        "ret_96": log_return(close, LONG),
        "z_20": divide(log_close - log_mean, log_std, if_zero=0.0),
        "range": (high - low) / close,
        "vol_20": vol_fast,
        "vol_ratio_20_96": divide(vol_fast, vol_long, if_zero=1.0),
        "bb_pctb_20": divide(close - middle + band / 2, band, if_zero=0.5),
        "bb_width_20": band / middle,
        "stoch_k_14": divide(close - least, greatest - least, if_zero=0.5),
        "volume_ratio_20": divide(volume, rolling_mean(volume, FAST), if_zero=0.0),
    }


def _clock_features(ts: IntArray) -> dict[str, FloatArray]:
    angle = 2 * np.pi * (ts % MS_PER_DAY) / MS_PER_DAY
    return {"hour_sin": np.sin(angle), "hour_cos": np.cos(angle)}


def _checked(bars: Mapping[str, pl.DataFrame], symbol: str, step: int) -> pl.DataFrame:
    if symbol not in bars:
        raise _bad(f"bars of {symbol} are missing; given: {', '.join(bars) or 'none'}")
    for name, frame in bars.items():
        ts = frame["ts"].to_numpy()
        if np.any(ts % step) or np.any(np.diff(ts) <= 0):
            raise _bad(f"bars of {name}: ts is not strictly rising on the {step} ms grid")
        if not np.all(frame["close"].to_numpy() > 0):
            raise _bad(f"bars of {name}: a close is not a positive number")
    values = bars[symbol].select(*PRICES, "volume").to_numpy()
    if not (np.all(np.isfinite(values)) and np.all(values[:, :4] > 0)):
        raise _bad(f"bars of {symbol}: a price or volume is not finite, or a price is not positive")
    return bars[symbol]


def _bad(detail: str) -> TradewindError:
    return TradewindError(
        ErrorCode.BAD_INPUT,
        detail,
        "Read them from the store: ingestion sorts bars and quarantines bad ones",
    )


def _no_rows(settings: Settings) -> dict[str, pl.Series]:
    types: dict[str, type[pl.DataType]] = {
        "ts": pl.Int64,
        **dict.fromkeys(("high", "low", "close", *WIDE, "atr"), pl.Float64),
        "history": pl.Int64,
        "warm": pl.Boolean,
        "regime": pl.String,
        "regime_computed": pl.Boolean,
        "regime_state": pl.String,
        "regime_confidence": pl.Float64,
        **{f"regime_{name}": pl.String for name in slower_timeframes(settings)},
    }
    return {name: pl.Series(name, [], dtype=dtype) for name, dtype in types.items()}
