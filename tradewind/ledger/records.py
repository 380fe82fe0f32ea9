"""Frozen values that go into the ledger or come out of it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from tradewind.contracts import Intent, OrderRequest, Prediction

Role = Literal["champion", "shadow"]
InterventionKind = Literal["kill_on", "kill_lift", "peak_reset"]


@dataclass(frozen=True)
class PredictionRecord:
    """A prediction as served; (request_id, symbol, role, model_type) is logged once."""

    prediction: Prediction
    role: Role
    latency_ms: float
    request_id: str


@dataclass(frozen=True)
class StoredIntent:
    """An intent with the bar and timeframe of its decision, and why it was made."""

    intent: Intent
    bar_ts: int
    timeframe: str
    reason: str = ""


@dataclass(frozen=True)
class Position:
    """An open position in the books; ``quantity`` is signed, prices are per unit.

    ``entry_bar_ts`` is the bar of the entry decision, ``stop_distance`` the distance of the
    first stop from the first fill, frozen. Stop and target are the working orders' triggers.
    """

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    decision_id: str
    entry_bar_ts: int
    opened_ms: int
    stop_distance: Decimal
    leverage: Decimal
    realised: Decimal
    fees: Decimal
    funding: Decimal
    stop_price: Decimal | None = None
    target_price: Decimal | None = None


@dataclass(frozen=True)
class Snapshot:
    """The account at one moment: cash, positions, orders at the broker, intents to come."""

    cash: Decimal
    positions: tuple[Position, ...]
    working: tuple[OrderRequest, ...]
    unsent: tuple[OrderRequest, ...]


@dataclass(frozen=True)
class FundingPayment:
    """Funding paid (negative) or received by an open position; ``payment_id`` is unique."""

    payment_id: str
    symbol: str
    amount: Decimal
    rate: Decimal
    ts: int


@dataclass(frozen=True)
class EquityPoint:
    """The account at one moment, in quote currency."""

    ts: int
    equity: Decimal
    cash: Decimal
    unrealised: Decimal
    open_positions: int
    exposure: Decimal


@dataclass(frozen=True)
class BrokerBook:
    """What the broker says it holds, for comparison with the ledger."""

    cash: Decimal
    positions: dict[str, Decimal]
    client_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class LedgerCheck:
    """Whether the books balance; one line for everything that was compared."""

    ok: bool
    lines: tuple[str, ...]


@dataclass(frozen=True)
class KillState:
    """The kill switch as stored."""

    engaged: bool
    flatten: bool = False
    reason: str = ""
    changed_ms: int = 0
    who: str = ""


@dataclass(frozen=True)
class Intervention:
    """Something done by hand: who, why, at which wall time, and from which market time on."""

    kind: InterventionKind
    who: str
    why: str
    wall_ms: int
    market_ms: int | None = None
