"""A small market with a scripted forecaster, to drive a real engine through many trades."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from policy.brokers.paper import PaperBroker
from policy.engine import Engine
from policy.sending import Hook, nothing
from tests.support.synthetic import START_MS, random_walk_market
from tradewind.clock import Clock, last_closed_bar
from tradewind.contracts import Prediction, Signal, confidence
from tradewind.errors import ErrorCode, TradewindError
from tradewind.ledger import Ledger, LedgerClock, open_ledger
from tradewind.market.store import BarStore
from tradewind.regimes.kinds import RegimeReading
from tradewind.settings import Settings, load_settings

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
STEP = 900_000
VERSION = "scripted-1"


def trading_settings(home: Path, **overrides: object) -> Settings:
    """Return settings under which the scripted forecaster trades often."""
    values: dict[str, object] = {
        "home": home,
        "profile": "quick",
        "clock": "replay",
        "market": {"symbols": SYMBOLS, "reference_symbols": SYMBOLS},
        "risk": {"daily_loss": 1.0, "peak_drawdown": 1.0, "record_disable_streak": 10_000},
        "sizing": {"kelly": False, "symbol_record": False, "record_min_trades": 10_000},
        "training": {"horizon": 2},
    }
    return load_settings(**(values | overrides))


def write_market(settings: Settings, bars: int, *, seed: int = 0) -> BarStore:
    """Store synthetic bars (with a quiet hour) and funding; return the store."""
    store = BarStore(settings.store_root, settings.market.set_id)
    for symbol, frame in random_walk_market(bars, symbols=SYMBOLS, seed=seed).items():
        quiet = frame["ts"].is_between(START_MS + 60 * STEP, START_MS + 63 * STEP)
        volume = pl.when(quiet).then(0.0).otherwise(pl.col("volume"))
        flat = frame.with_columns(volume=volume)
        store.write_bars(symbol, "15m", flat)
        ts = [t for t in frame["ts"] if t % (32 * STEP) == 0]
        rates = [0.0001 if index % 2 else -0.0002 for index in range(len(ts))]
        funding = pl.DataFrame({"ts": ts, "funding_rate": rates})
        store.write_series("funding_8h", symbol, funding)
    return store


def draw(*parts: object) -> float:
    """Return a number in [0, 1) that depends on nothing but ``parts``."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True)
class ScriptedRow:
    """The features a decision looks at."""

    symbol: str
    bar_ts: int
    close: float
    atr: float
    risk_atr: float
    volatility: float = 0.02
    regime: str = "neutral"
    feature_version: str = VERSION
    regimes: tuple[RegimeReading, ...] = ()


@dataclass(frozen=True)
class ScriptedFeatures:
    """Feature rows straight from the stored closes."""

    store: BarStore
    clock: Clock

    def latest(self, symbol: str) -> ScriptedRow:
        """Return the row of the newest closed bar."""
        bars = self.store.read_bars(symbol, "15m", until_ms=self.clock.now_ms(), last=1)
        if bars.is_empty():
            raise TradewindError(ErrorCode.NO_BARS, f"{symbol} has no bars", "Write some")
        close = float(bars["close"][-1])
        return ScriptedRow(symbol, int(bars["ts"][-1]), close, 0.002 * close, 0.004 * close)

    def frame(self, symbol: str, *, start_ms: int, until_ms: int) -> pl.DataFrame:
        """Return ts and vol_20 (of the closes) of the stored bars."""
        bars = self.store.read_bars(symbol, "15m", until_ms=until_ms, start_ms=start_ms)
        returns = pl.col("close").log().diff()
        return bars.select("ts", vol_20=returns.rolling_std(20))


def prediction(symbol: str, bar_ts: int, p_up: float, **changes: object) -> Prediction:
    """Return a confident prediction for a bar."""
    values: dict[str, object] = {
        "symbol": symbol,
        "model_type": "scripted",
        "p_up": p_up,
        "mu": 0.02 if p_up > 0.5 else -0.02,
        "uncertainty": 0.01,
        "epistemic": 0.001,
        "aleatoric": 0.009,
        "epistemic_p": 0.01,
        "confidence": confidence(p_up),
        "conviction": 0.9,
        "signal": Signal.HOLD,
        "model_version": VERSION,
        "bar_ts": bar_ts,
        "staleness_s": 0,
        "feature_version": VERSION,
    }
    return Prediction.model_validate(values | changes)


@dataclass(frozen=True)
class ScriptedForecaster:
    """Predictions that depend on symbol and bar alone."""

    clock: Clock

    def predict(
        self, symbols: Sequence[str], decision_ids: Mapping[str, str]
    ) -> dict[str, Prediction | str]:
        """Return one prediction a symbol for the newest closed bar."""
        bar_ts = last_closed_bar(self.clock.now_ms(), "15m")
        return {
            symbol: prediction(symbol, bar_ts, 0.2 + 0.6 * draw(symbol, bar_ts))
            for symbol in symbols
        }


def build_engine(settings: Settings, at: Hook = nothing) -> tuple[Engine, LedgerClock]:
    """Return an engine over a stored market, and the clock that moves it."""
    ledger: Ledger = open_ledger(settings)
    clock = LedgerClock(ledger)
    store = BarStore(settings.store_root, settings.market.set_id)
    broker = PaperBroker(settings, ledger, store, clock)
    forecaster, features = ScriptedForecaster(clock), ScriptedFeatures(store, clock)
    return Engine(settings, ledger, broker, clock, forecaster, features, at=at), clock
