"""How fast features are: ours, the same in pandas and DuckDB, and bare TA-Lib + numpy.

    export OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1
    python benchmarks/features.py --data FOLDER          3 symbols of real bars
    python benchmarks/features.py --many                 50 symbols × 100,000 made-up bars
    python benchmarks/features.py --start                fresh processes: compile, load compiled

Every way computes all 25 features that come from bars, over the same bars, in turn in one
process on one thread; DuckDB, which has no recursive averages, leaves out the eight that are
(EMA, RSI, ATR, ADX, DI, MACD). `tradewind` is our features alone, all 28 with checks of the bars
and holes: compare that. `tradewind_with_regimes` has the regimes of three timeframes besides,
which no other way computes. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import talib

from tradewind.features.compute import compute_features, features_alone
from tradewind.features.definitions import REQUIRED_FEATURES, WIDE
from tradewind.features.stream import FeatureStream, StreamBar
from tradewind.settings import Settings, load_settings

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
STEP = 900_000
RECURSIVE = {"ema_20", "ema_50", "ema_200", "rsi_14", "atr_14", "adx_14", "di_diff_14", "macd_hist"}
Bars = dict[str, pl.DataFrame]


def made_up(count: int, symbols: tuple[str, ...]) -> Bars:
    """Return random-walk bars."""
    bars = {}
    for seed, symbol in enumerate(symbols):
        rng = np.random.default_rng(seed)
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, count)))
        spread = np.abs(rng.normal(0, 0.001, count)) * close
        bars[symbol] = pl.DataFrame(
            {
                "ts": 1_735_689_600_000 + STEP * np.arange(count),
                "open": close,
                "high": close + spread,
                "low": close - spread,
                "close": close,
                "volume": rng.lognormal(3, 1, count),
            }
        )
    return bars


def with_talib(bars: Bars, symbol: str) -> dict[str, Any]:
    """Compute with TA-Lib and numpy alone: no holes, no restarts, no checks. The floor."""
    own = bars[symbol]
    high, low, close, volume = (own[n].to_numpy() for n in ("high", "low", "close", "volume"))
    logs = np.log(close)
    ret = np.diff(logs, prepend=np.nan)

    def back(x: np.ndarray, count: int) -> np.ndarray:
        return np.concatenate([np.full(count, np.nan), x[:-count]])

    def z(x: np.ndarray, window: int) -> np.ndarray:
        unbiased = np.sqrt(window / (window - 1))
        return (x - talib.SMA(x, window)) / (talib.STDDEV(x, window) * unbiased)

    def std(x: np.ndarray, window: int) -> np.ndarray:
        spread = talib.STDDEV(x[1:], window) * np.sqrt(window / (window - 1))
        return np.concatenate([[np.nan], spread])

    of = [np.log(bars[name]["close"].to_numpy()) for name in SYMBOLS]
    lead = np.diff(of[1 if symbol == SYMBOLS[0] else 0], prepend=np.nan)
    vol, upper_lower = std(ret, 20), talib.BBANDS(close, 20, 2, 2)
    least, greatest = talib.MIN(low, 14), talib.MAX(high, 14)
    angle = 2 * np.pi * (own["ts"].to_numpy() % 86_400_000) / 86_400_000
    band = upper_lower[0] - upper_lower[2]
    return {
        "ret_1": ret,
        **{f"ema_{n}": np.log(close / talib.EMA(close, n)) for n in (20, 50, 200)},
        "z_20": z(logs, 20),
        "range": (high - low) / close,
        "vol_20": vol,
        "ratio_BTC_ETH": z(of[0] - of[1], 200),
        "ratio_ETH_SOL": z(of[1] - of[2], 200),
        "lead_ret_BTC": back(lead, 1),
        "rsi_14": talib.RSI(close, 14) / 100,
        "atr_14": talib.ATR(high, low, close, 14) / close,
        "adx_14": talib.ADX(high, low, close, 14) / 100,
        "di_diff_14": (talib.PLUS_DI(high, low, close, 14) - talib.MINUS_DI(high, low, close, 14))
        / 100,
        "macd_hist": talib.MACD(close, 12, 26, 9)[2] / close,
        "bb_pctb_20": (close - upper_lower[2]) / band,
        "bb_width_20": band / upper_lower[1],
        "stoch_k_14": (close - least) / (greatest - least),
        "volume_ratio_20": volume / talib.SMA(volume, 20),
        **{f"ret_{n}": logs - back(logs, n) for n in (4, 16, 96)},
        "vol_ratio_20_96": vol / std(ret, 96),
        "hour_sin": np.sin(angle),
        "hour_cos": np.cos(angle),
    }


def with_pandas(bars: Bars, symbol: str) -> pd.DataFrame:
    """Compute the way a notebook would: rolling and ewm."""
    frame = pd.DataFrame(bars[symbol].to_dict(as_series=False))
    high, low, close, volume = frame["high"], frame["low"], frame["close"], frame["volume"]
    logs = np.log(close)
    ret = logs.diff()
    of = [np.log(pd.Series(bars[name]["close"].to_numpy())) for name in SYMBOLS]

    def z(x: pd.Series, window: int) -> pd.Series:
        return (x - x.rolling(window).mean()) / x.rolling(window).std()

    def wilder(x: pd.Series) -> pd.Series:
        return x.ewm(alpha=1 / 14, adjust=False).mean()

    gain, loss = wilder(close.diff().clip(lower=0)), wilder(-close.diff().clip(upper=0))
    true_range = np.maximum(high, close.shift()) - np.minimum(low, close.shift())
    atr, up, down = wilder(true_range), high.diff(), -low.diff()
    plus = 100 * wilder(up.where((up > down) & (up > 0), 0.0)) / atr
    minus = 100 * wilder(down.where((down > up) & (down > 0), 0.0)) / atr
    adx = wilder(100 * (plus - minus).abs() / (plus + minus))
    line = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
    middle, spread = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    least, greatest = low.rolling(14).min(), high.rolling(14).max()
    vol = ret.rolling(20).std()
    angle = 2 * np.pi * (frame["ts"] % 86_400_000) / 86_400_000
    return pd.DataFrame(
        {
            "ret_1": ret,
            **{f"ema_{n}": np.log(close / close.ewm(span=n, adjust=False).mean())
               for n in (20, 50, 200)},
            "z_20": z(logs, 20),
            "range": (high - low) / close,
            "vol_20": vol,
            "ratio_BTC_ETH": z(of[0] - of[1], 200),
            "ratio_ETH_SOL": z(of[1] - of[2], 200),
            "lead_ret_BTC": of[1 if symbol == SYMBOLS[0] else 0].diff().shift(),
            "rsi_14": gain / (gain + loss),
            "atr_14": atr / close,
            "adx_14": adx / 100,
            "di_diff_14": (plus - minus) / 100,
            "macd_hist": (line - line.ewm(span=9, adjust=False).mean()) / close,
            "bb_pctb_20": (close - middle + 2 * spread) / (4 * spread),
            "bb_width_20": 4 * spread / middle,
            "stoch_k_14": (close - least) / (greatest - least),
            "volume_ratio_20": volume / volume.rolling(20).mean(),
            **{f"ret_{n}": logs - logs.shift(n) for n in (4, 16, 96)},
            "vol_ratio_20_96": vol / ret.rolling(96).std(),
            "hour_sin": np.sin(angle),
            "hour_cos": np.cos(angle),
        }
    )  # fmt: skip


SQL = """
WITH base AS (
  SELECT b.*, ln(b.close) AS l, ln(b.close) - ln(lag(b.close) OVER w) AS ret_1,
         ln(r1.close) - ln(r2.close) AS q1, ln(r2.close) - ln(r3.close) AS q2, ln(lead.close) AS ll
  FROM bars b JOIN ref1 r1 USING (ts) JOIN ref2 r2 USING (ts) JOIN ref3 r3 USING (ts)
  JOIN lead USING (ts) WINDOW w AS (ORDER BY b.ts))
SELECT ts, ret_1,
  (l - avg(l) OVER w20) / stddev_samp(l) OVER w20 AS z_20, (high - low) / close AS range,
  stddev_samp(ret_1) OVER w20 AS vol_20,
  (q1 - avg(q1) OVER w200) / stddev_samp(q1) OVER w200 AS ratio_BTC_ETH,
  (q2 - avg(q2) OVER w200) / stddev_samp(q2) OVER w200 AS ratio_ETH_SOL,
  lag(ll, 1) OVER w - lag(ll, 2) OVER w AS lead_ret_BTC,
  (close - avg(close) OVER w20 + 2 * stddev_pop(close) OVER w20)
    / (4 * stddev_pop(close) OVER w20) AS bb_pctb_20,
  4 * stddev_pop(close) OVER w20 / avg(close) OVER w20 AS bb_width_20,
  (close - min(low) OVER w14) / (max(high) OVER w14 - min(low) OVER w14) AS stoch_k_14,
  volume / avg(volume) OVER w20 AS volume_ratio_20,
  l - lag(l, 4) OVER w AS ret_4, l - lag(l, 16) OVER w AS ret_16, l - lag(l, 96) OVER w AS ret_96,
  stddev_samp(ret_1) OVER w20 / stddev_samp(ret_1) OVER w96 AS vol_ratio_20_96,
  sin(2 * pi() * (ts % 86400000) / 86400000) AS hour_sin,
  cos(2 * pi() * (ts % 86400000) / 86400000) AS hour_cos
FROM base WINDOW w AS (ORDER BY ts),
  w14 AS (ORDER BY ts ROWS 13 PRECEDING), w20 AS (ORDER BY ts ROWS 19 PRECEDING),
  w96 AS (ORDER BY ts ROWS 95 PRECEDING), w200 AS (ORDER BY ts ROWS 199 PRECEDING)
ORDER BY ts
"""


def with_duckdb(bars: Bars, symbol: str) -> pl.DataFrame:
    """Compute what SQL windows can: everything but the recursive indicators."""
    with duckdb.connect(config={"threads": 1}) as connection:
        lead = SYMBOLS[1 if symbol == SYMBOLS[0] else 0]
        tables = {"bars": symbol, "lead": lead, **{f"ref{i + 1}": s for i, s in enumerate(SYMBOLS)}}
        for table, name in tables.items():
            connection.register(table, bars[name].to_arrow())
        return connection.sql(SQL).pl()


def agree(bars: Bars, settings: Settings) -> None:
    """Refuse to compare ways that do not compute the same numbers."""
    part = {name: frame.head(8000) for name, frame in bars.items()}
    ours = compute_features(part, "SOLUSDT", settings)[4000:]
    for way in (with_talib, with_pandas, with_duckdb):
        other = way(part, "SOLUSDT")
        names = [name for name in REQUIRED_FEATURES if name in other]
        for name in names:
            left, right = ours[name].to_numpy(), np.asarray(other[name])[4000:]
            size = np.median(np.abs(left)) or 1.0
            worst = np.max(np.abs(left - right)) / size
            assert worst < 1e-5, f"{way.__name__} {name} differs by {worst}"
        print(f"{way.__name__}: {len(names)} features agree")


def timed(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Return the best CPU milliseconds of each way, taken in turn.

    Thrice each turn: what the way before it gave back to the system costs page faults again.
    """
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            for _ in range(3):
                start = time.process_time()
                way()
                best[name] = min(best[name], (time.process_time() - start) * 1e3)
    return best


def one_bar(bars: Bars, settings: Settings, updates: int) -> dict[str, float]:
    """Return p50 and p99 microseconds of one incremental update."""
    part = {name: frame.tail(4000 + updates) for name, frame in bars.items()}
    own = list(map(StreamBar._make, part["SOLUSDT"].select(StreamBar._fields).iter_rows()))
    lists = {name: part[name]["close"].to_list() for name in SYMBOLS}
    stream = FeatureStream.primed(settings, "SOLUSDT", {n: f.head(4000) for n, f in part.items()})
    spent = []
    for row in range(4000, len(own)):
        closes = {name: values[row] for name, values in lists.items()}
        start = time.perf_counter_ns()
        stream.update(own[row], closes)
        spent.append((time.perf_counter_ns() - start) / 1e3)
    p50, p99 = np.percentile(spent, [50, 99])
    return {"one_bar_p50_us": round(float(p50), 2), "one_bar_p99_us": round(float(p99), 2)}


def compare(bars: Bars, settings: Settings, rounds: int) -> dict[str, Any]:
    """Return milliseconds and ratios over all three symbols."""
    agree(bars, settings)

    def over_all(way: Callable[[Bars, str], object]) -> Callable[[], None]:
        def run() -> None:
            for symbol in SYMBOLS:
                way(bars, symbol)

        return run

    ms = timed(
        {
            "tradewind": over_all(lambda b, s: features_alone(b, s, settings)),
            "tradewind_with_regimes": over_all(lambda b, s: compute_features(b, s, settings)),
            "talib_numpy": over_all(with_talib),
            "pandas": over_all(with_pandas),
            "duckdb": over_all(with_duckdb),
        },
        rounds,
    )
    return {
        "rows": sum(bars[name].height for name in SYMBOLS),
        "features": {"tradewind": len(WIDE), "talib_numpy": 25, "pandas": 25,
                     "duckdb": 25 - len(RECURSIVE)},
        "ms": {name: round(value, 1) for name, value in ms.items()},
        **{
            f"{ours}_over": {
                name: round(ms[ours] / ms[name], 2) for name in ("talib_numpy", "pandas", "duckdb")
            }
            for ours in ("tradewind", "tradewind_with_regimes")
        },
        **one_bar(bars, settings, 5000),
    }  # fmt: skip


def many(settings: Settings, symbols: int, count: int) -> dict[str, Any]:
    """Return seconds and memory for many symbols; each costs as much as the one before."""
    names = (*SYMBOLS, *(f"COIN{i}USDT" for i in range(symbols - 3)))
    start_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bars = made_up(count, names)
    with_bars = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    references = {name: bars[name] for name in SYMBOLS}
    spent = []
    for name in names:
        start = time.process_time()
        compute_features({name: bars[name], **references}, name, settings)
        spent.append(time.process_time() - start)
    tenth = max(symbols // 10, 1)
    return {
        "symbols": symbols,
        "bars_each": count,
        "cpu_s": round(sum(spent), 2),
        "ms_per_symbol": round(float(np.median(spent)) * 1e3, 1),
        "last_tenth_over_first": round(sum(spent[-tenth:]) / sum(spent[:tenth]), 2),
        "mib_imports": start_memory // 1024,
        "mib_bars": (with_bars - start_memory) // 1024,
        "mib_features": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - with_bars) // 1024,
    }


START = """
import json, time, numpy, polars, structlog
start = time.process_time()
import numba
numba_s = time.process_time() - start
from tradewind.features import _kernel
from tradewind.regimes import _kernel
kernel_s = time.process_time() - start - numba_s
import talib
talib_s = time.process_time() - start - numba_s - kernel_s
print(json.dumps({"numba_s": numba_s, "kernels_s": kernel_s, "talib_s": talib_s}))
"""


def start_up() -> dict[str, Any]:
    """Return CPU seconds of a first process, which compiles, and of later ones, which load.

    ``talib_s`` is what importing TA-Lib costs, which features would need otherwise.
    """
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        found = [
            json.loads(
                subprocess.run(
                    [sys.executable, "-c", START], env=environment, check=True, capture_output=True
                ).stdout
            )
            for _ in range(6)
        ]
    first, later = found[0], found[1:]
    return {
        "compile_s": round(first["kernels_s"], 2),
        **{name: round(min(one[name] for one in later), 2) for name in first},
    }


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of sets; without it bars are made up")
    parser.add_argument("--bars", type=int, default=80_000, help="bars of each symbol")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", action="store_true", help="many symbols instead of three")
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--start", action="store_true", help="what a fresh process pays")
    given = parser.parse_args()
    settings = load_settings()
    if given.start:
        print(json.dumps(start_up()))
        return
    if given.many:
        print(json.dumps(many(settings, given.symbols, max(given.bars, 100_000))))
        return
    if given.data is None:
        bars = made_up(given.bars, SYMBOLS)
    else:
        folder = given.data / "binance_usdm_perp_15m"
        bars = {s: pl.read_parquet(folder / f"{s}_15m.parquet").tail(given.bars) for s in SYMBOLS}
    print(json.dumps(compare(bars, settings, given.rounds)))


if __name__ == "__main__":
    main()
