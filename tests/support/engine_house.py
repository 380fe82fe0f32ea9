"""An engine with everything around it, for tests that move its clock by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from policy.brokers.paper import PaperBroker
from policy.engine import Engine
from policy.sending import Hook, nothing
from tests.support.booking import answer
from tests.support.synthetic import START_MS
from tests.support.trading_day import (
    STEP,
    ScriptedFeatures,
    prediction,
    trading_settings,
    write_market,
)
from tradewind.clock import ManualClock, last_closed_bar
from tradewind.contracts import (
    BrokerOrder,
    Leg,
    OrderRequest,
    OrderStatus,
    Prediction,
)
from tradewind.ledger import Ledger, Position, open_ledger
from tradewind.market.store import BarStore
from tradewind.settings import Settings

FIRST = START_MS + 30 * STEP


@dataclass
class Script:
    """Says what a test wants to hear; by default BTC goes up and nothing else moves."""

    clock: ManualClock
    p_up: dict[str, float] = field(default_factory=lambda: {"BTCUSDT": 0.8})
    problem: str | None = None
    lag: int = 0
    changes: dict[str, object] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def predict(
        self, symbols: Sequence[str], decision_ids: Mapping[str, str]
    ) -> dict[str, Prediction | str]:
        self.asked.append(tuple(symbols))
        if self.problem is not None:
            return dict.fromkeys(symbols, self.problem)
        bar_ts = last_closed_bar(self.clock.now_ms(), "15m") - self.lag * STEP
        return {s: prediction(s, bar_ts, self.p_up.get(s, 0.5), **self.changes) for s in symbols}


class Refusing(PaperBroker):
    """A paper broker that refuses stops, as an exchange may."""

    def submit(self, request: OrderRequest) -> BrokerOrder:
        if request.leg is Leg.STOP:
            return answer(request, OrderStatus.REJECTED, detail="would trigger at once")
        return super().submit(request)


@dataclass
class House:
    """An engine with everything around it, on a clock that a test moves."""

    settings: Settings
    ledger: Ledger
    store: BarStore
    clock: ManualClock
    script: Script
    broker: PaperBroker
    at: Hook = nothing

    def engine(self) -> Engine:
        features = ScriptedFeatures(self.store, self.clock)
        return Engine(
            self.settings,
            self.ledger,
            self.broker,
            self.clock,
            self.script,
            features,
            at=self.at,
        )

    def cycle(self, bar: int = 0, later_ms: int = 0) -> None:
        """Run one cycle at the close of bar 29 + ``bar``."""
        self.clock.set(FIRST + bar * STEP + later_ms)
        engine = self.engine()
        with engine.running() as steps:
            engine.cycle(steps)

    def refusals(self) -> dict[str, str | None]:
        rows = self.ledger.decisions().sort("bar_ts").to_dicts()
        return {row["symbol"]: row["refusal"] for row in rows}

    def legs(self) -> list[Leg]:
        return [fill.leg for fill in self.ledger.fills()]

    def position(self) -> Position:
        (found,) = self.ledger.positions()
        return found


def build(folder: Path, **overrides: object) -> House:
    settings = trading_settings(folder / "home", **overrides)
    store = write_market(settings, 80)
    ledger = open_ledger(settings)
    clock = ManualClock(FIRST)
    broker = PaperBroker(settings, ledger, store, clock)
    return House(settings, ledger, store, clock, Script(clock), broker)


def entry_decision(house: House) -> str:
    rows = house.ledger.decisions(symbol="BTCUSDT")
    return str(rows["decision_id"][0])
