"""The durable record. Open it with `open_ledger(settings)`, tell time with `open_clock`."""

from tradewind.ledger.clock import LedgerClock, open_clock, read_clock, set_replay_clock
from tradewind.ledger.explain import Story
from tradewind.ledger.lease import Lease, engine_alive
from tradewind.ledger.ledger import Ledger, open_ledger
from tradewind.ledger.members import MemberChange, MemberCode, MemberState, MemberStatus
from tradewind.ledger.outcomes import fill_outcomes
from tradewind.ledger.queries import EquityHistory, TradeResult
from tradewind.ledger.records import (
    BrokerBook,
    EquityPoint,
    FundingPayment,
    Intervention,
    KillState,
    LedgerCheck,
    Position,
    PredictionRecord,
    Snapshot,
    StoredIntent,
)
from tradewind.ledger.switch import KillSwitch

__all__ = [
    "BrokerBook",
    "EquityHistory",
    "EquityPoint",
    "FundingPayment",
    "Intervention",
    "KillState",
    "KillSwitch",
    "Lease",
    "Ledger",
    "LedgerCheck",
    "LedgerClock",
    "MemberChange",
    "MemberCode",
    "MemberState",
    "MemberStatus",
    "Position",
    "PredictionRecord",
    "Snapshot",
    "StoredIntent",
    "Story",
    "TradeResult",
    "engine_alive",
    "fill_outcomes",
    "open_clock",
    "open_ledger",
    "read_clock",
    "set_replay_clock",
]
