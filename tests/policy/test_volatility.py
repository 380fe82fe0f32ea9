"""Where a symbol's volatility stands among its last 90 days, as decisions know it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from policy.volatility import VolatilityLevels
from tests.policy.test_engine import FIRST, build
from tests.support.synthetic import START_MS
from tests.support.trading_day import ScriptedRow, write_market
from tradewind.errors import ErrorCode, TradewindError
from tradewind.settings import MS_PER_DAY, Settings, load_settings

STEP = 900_000
A_DAY = math.sqrt(96)


@dataclass
class Archive:
    """A feature source that counts how often its history is read."""

    values: list[float | None]
    problem: ErrorCode | None = None
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    def latest(self, symbol: str) -> ScriptedRow:
        raise AssertionError("the newest row is given")

    def frame(self, symbol: str, *, start_ms: int, until_ms: int) -> pl.DataFrame:
        self.asked.append((symbol, start_ms, until_ms))
        if self.problem is not None:
            raise TradewindError(self.problem, "as told", "none")
        return pl.DataFrame({"vol_20": self.values}, schema={"vol_20": pl.Float64})


def row(volatility: float, bar_ts: int = START_MS, symbol: str = "BTCUSDT") -> ScriptedRow:
    return ScriptedRow(symbol, bar_ts, 100.0, 0.2, 0.4, volatility)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path, profile="quick")


def test_its_place_among_the_daily_volatilities(settings: Settings) -> None:
    values = [float("nan"), None, *(i / 100 / A_DAY for i in range(100, 0, -1))]
    levels = VolatilityLevels(settings, Archive(values))
    assert levels.of(row(0.005)) == (0.0, "low")
    assert levels.of(row(0.505)) == (0.5, "normal")
    assert levels.of(row(0.925)) == (0.92, "high")
    assert levels.of(row(float("nan"))) == (None, "normal")


def test_history_is_read_once_a_day_and_symbol(settings: Settings) -> None:
    archive = Archive([0.1, 0.2])
    levels = VolatilityLevels(settings, archive)
    for bar in range(97):
        levels.of(row(0.1, START_MS + bar * STEP))
    levels.of(row(0.1, START_MS + 97 * STEP, "ETHUSDT"))
    day, second, span = START_MS, START_MS + MS_PER_DAY, 90 * MS_PER_DAY
    assert archive.asked == [
        ("BTCUSDT", day - span, day),
        ("BTCUSDT", second - span, second),
        ("ETHUSDT", second - span, second),
    ]


@pytest.mark.parametrize("code", [ErrorCode.NO_BARS, ErrorCode.NOT_ENOUGH_BARS])
def test_without_history_it_is_normal(settings: Settings, code: ErrorCode) -> None:
    assert VolatilityLevels(settings, Archive([], code)).of(row(9.0)) == (None, "normal")
    assert VolatilityLevels(settings, Archive([])).of(row(9.0)) == (None, "normal")


def test_another_error_is_not_swallowed(settings: Settings) -> None:
    with pytest.raises(TradewindError, match="as told"):
        VolatilityLevels(settings, Archive([], ErrorCode.INTERNAL)).of(row(9.0))


def test_a_decision_records_it_and_the_risk_gate_looks_at_it(tmp_path: Path) -> None:
    house = build(tmp_path, risk={"daily_loss": 1.0, "volatility_high_share": 1.0})
    write_market(house.settings, 130)
    house.cycle(75)
    now = FIRST + 75 * STEP
    bars = house.store.read_bars("BTCUSDT", "15m", until_ms=now // MS_PER_DAY * MS_PER_DAY)
    returns = np.diff(np.log(bars["close"].to_numpy()))
    history = [returns[i - 20 : i].std(ddof=1) * A_DAY for i in range(20, len(returns) + 1)]
    (identity,) = house.ledger.decisions(symbol="BTCUSDT")["decision_id"]
    found = house.ledger.decision(identity)
    assert found is not None
    assert found.inputs["volatility_rank"] == pytest.approx(np.mean(np.array(history) < 0.02))
    assert found.inputs["volatility_level"] == "high"
    assert found.inputs["mode"] == "DEFENSIVE"
    assert "volatility is in its top band" in house.ledger.explain(identity).text()
