"""One cycle: repair, catch up, look after positions, decide each bar once, mark equity."""

from __future__ import annotations

from dataclasses import dataclass, replace

from policy.brokers.base import Broker
from policy.forecasts import Answer, PredictionSource, source_of, without_disabled
from policy.portfolio import (
    Account,
    AccountReader,
    Features,
    FeatureSource,
    bar_start,
    market_view,
    position_view,
)
from policy.sending import Hook, Sender, nothing
from policy.volatility import VolatilityLevels
from tradewind.clock import last_closed_bar
from tradewind.contracts import (
    Decision,
    Leg,
    OrderRequest,
    OrderType,
    Prediction,
    client_order_id,
    decision_id,
)
from tradewind.errors import TradewindError
from tradewind.ledger import KillState, Ledger, Position
from tradewind.settings import Settings
from tradewind.trading.decide import decide
from tradewind.trading.exits import manage_position
from tradewind.trading.risk import RiskMode, assess
from tradewind.trading.views import PortfolioView

NO_STOP = "no stop stands at the broker: close"


@dataclass(frozen=True)
class _Question:
    """One symbol's bar that has no decision yet."""

    symbol: str
    bar_ts: int
    decision_id: str
    row: Features | None
    problem: str | None


class Cycle:
    """The steps of one cycle, each safe to repeat after a kill anywhere in it."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        broker: Broker,
        predictions: PredictionSource,
        features: FeatureSource,
        policy_version: str,
        at: Hook = nothing,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._broker = broker
        self._predictions = predictions
        self._features = features
        self._policy_version = policy_version
        self._at = at
        self._levels = VolatilityLevels(settings, features)
        self._accounts = AccountReader(settings, ledger, broker)
        self._sender = Sender(settings, ledger, broker, self._accounts, at)

    def run(self, now_ms: int) -> int:
        """Run every step at market time ``now_ms``; return how many decisions were made."""
        self._accounts.begin(now_ms)
        self._sender.finish_intents(now_ms)
        self._broker.advance(now_ms)
        self._at("advance:after")
        self._sender.book_news()
        self._sender.sweep(now_ms)
        self._manage(now_ms, self._ledger.kill_switch.state())
        made = self._decide(now_ms, self._ledger.kill_switch.state())
        account = self._accounts.read()
        self._ledger.record_equity(account.mark(bar_start(self._settings, now_ms)))
        self._at("equity:after")
        return made

    # -- positions ----------------------------------------------------------------------

    def _manage(self, now_ms: int, switch: KillState) -> None:
        account = self._accounts.read()
        # A kill switch stops entries; it closes positions only where it was told to.
        flatten = switch.engaged and switch.flatten
        state = assess(self._settings.risk, account.view(kill_switch=flatten))
        if state.mode is RiskMode.EMERGENCY_SHUTDOWN and not flatten:
            # Only a person ends an emergency: the switch keeps it over days and restarts.
            self._ledger.kill_switch.engage(state.text, flatten=True)
        # A waiting halving stops no full close: both only reduce, so together they close.
        leaving = {order.symbol for order in account.working if order.leg is Leg.EXIT}
        added = 0
        for position in account.positions:
            if position.symbol in leaving:
                continue
            exits = manage_position(self._settings, position_view(position), state.mode, now_ms)
            orders = [(leave.order, leave.reason.text) for leave in exits]
            if not orders and position.stop_price is None:
                orders = [(self._close(position, now_ms), NO_STOP)]
            for order, reason in orders:
                # The position's own decision, whatever the strategy is called today.
                owned = order.model_copy(update={"decision_id": position.decision_id})
                added += self._ledger.add_intents([owned], reason)
                self._at("intent:exit")
        if added:
            self._sender.finish_intents(now_ms)

    def _close(self, position: Position, now_ms: int) -> OrderRequest:
        bar_ts = last_closed_bar(now_ms, self._settings.market.timeframe)
        side = position_view(position).side.opposite
        return OrderRequest(
            client_id=client_order_id(position.symbol, bar_ts, side, Leg.EXIT),
            decision_id=position.decision_id,
            symbol=position.symbol,
            side=side,
            type=OrderType.MARKET,
            leg=Leg.EXIT,
            quantity=abs(position.quantity),
            reduce_only=True,
            created_ms=now_ms,
        )

    # -- entries ------------------------------------------------------------------------

    def _decide(self, now_ms: int, switch: KillState) -> int:
        asked = [self._question(symbol, now_ms) for symbol in self._settings.market.symbols]
        known = self._ledger.decided([question.decision_id for question in asked])
        open_questions = [q for q in asked if q.decision_id not in known]
        if not open_questions:
            return 0
        self._at("decide:before")
        ids = {q.symbol: q.decision_id for q in open_questions if q.problem is None}
        asked_for = self._predictions.predict(list(ids), ids) if ids else {}
        answers = without_disabled(asked_for, self._ledger.member_state())
        account = self._accounts.read()
        for question in open_questions:
            answer = answers.get(question.symbol, question.problem)
            decision = self._make(question, answer, account, switch)
            self._at("decide:made")
            if not self._ledger.record_decision(decision):
                continue
            self._at("decide:after")
            if decision.orders:
                self._at("intent:before")
                self._ledger.add_intents(decision.orders)
                self._at("intent:after")
                self._sender.finish_intents(now_ms)
                account = self._accounts.read()
        return len(open_questions)

    def _question(self, symbol: str, now_ms: int) -> _Question:
        row: Features | None = None
        problem: str | None = None
        timeframe = self._settings.market.timeframe
        bar_ts = last_closed_bar(now_ms, timeframe)
        try:
            row = self._features.latest(symbol)
            bar_ts = row.bar_ts
        except TradewindError as error:
            problem = str(error)
        identity = decision_id(self._settings.engine.strategy, symbol, timeframe, bar_ts)
        return _Question(symbol, bar_ts, identity, row, problem)

    def _make(
        self, question: _Question, answer: Answer | None, account: Account, switch: KillState
    ) -> Decision:
        return decide(
            self._settings,
            decision_id=question.decision_id,
            policy_version=self._policy_version,
            prediction=answer if isinstance(answer, Prediction) else None,
            problem=answer if isinstance(answer, str) else None,
            market=market_view(question.row) if question.row is not None else None,
            portfolio=self._portfolio(question, account, switch),
            record=account.record(question.symbol),
            source=source_of(answer),
            symbol=question.symbol,
            bar_ts=question.bar_ts,
        )

    def _portfolio(self, question: _Question, account: Account, switch: KillState) -> PortfolioView:
        """Return the account with the level of the asked symbol's own volatility."""
        view = account.view(kill_switch=switch.engaged)
        if question.row is None:
            return view
        rank, level = self._levels.of(question.row)
        return replace(view, volatility_level=level, volatility_rank=rank)
