"""Frozen values that pass between rooms. A new fact is a new object.

Times are UTC epoch milliseconds (``*_ts``, ``*_ms``); a bar's ``ts`` is its OPEN time.
Money and quantities are `Decimal` from the intent onwards; model outputs are floats.
"""

from __future__ import annotations

import uuid
from decimal import Decimal
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

DECISION_NAMESPACE = uuid.UUID("6f1c2f0e-7c53-5d0e-9d7b-0a4f3b1d8c11")
POOLED = "POOLED"
REGIME_NOT_COMPUTED = "neutral"


class Value(BaseModel):
    """Base of every contract: immutable, unknown fields refused, NaN and Inf refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Signal(StrEnum):
    """What a prediction suggests at the fixed base threshold; informs, never decides."""

    ENTRY_LONG = "ENTRY_LONG"
    ENTRY_SHORT = "ENTRY_SHORT"
    HOLD = "HOLD"


class Action(StrEnum):
    """What a decision says to do."""

    BUY = "BUY"
    SELL = "SELL"
    HOLD = "HOLD"


class Side(StrEnum):
    """Direction of an order."""

    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        """Return +1 for a buy, -1 for a sell."""
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> Side:
        """Return the side that closes this one."""
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderType(StrEnum):
    """Order kinds every broker understands."""

    MARKET = "market"
    STOP_MARKET = "stop_market"
    TAKE_PROFIT_MARKET = "take_profit_market"


class Leg(StrEnum):
    """The part an order plays for its position; part of its client order id."""

    ENTRY = "entry"
    STOP = "stop"
    TARGET = "target"
    EXIT = "exit"
    REDUCE = "reduce"


class OrderStatus(StrEnum):
    """Life of an order as the broker reports it."""

    ACCEPTED = "accepted"
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"


class IntentStatus(StrEnum):
    """Life of an intent; every intent reaches one of the last three."""

    NEW = "new"
    SENDING = "sending"
    BOOKED = "booked"
    REJECTED = "rejected"
    EXPIRED = "expired"


class RefusalCode(StrEnum):
    """Why a decision is HOLD, or an order is refused. The docs table is generated from it."""

    BELOW_THRESHOLD = "below_threshold"
    TOO_UNCERTAIN = "too_uncertain"
    OUT_OF_RANGE = "out_of_range"
    NO_CONSENSUS = "no_consensus"
    LOW_CONVICTION = "low_conviction"
    NO_EDGE = "no_edge_after_costs"
    POSITION_OPEN = "position_open"
    MAX_POSITIONS = "max_open_positions"
    DAILY_LOSS = "daily_loss_limit"
    DRAWDOWN = "drawdown_limit"
    EXPOSURE = "exposure_limit"
    ORDER_NOTIONAL = "max_order_notional"
    LEVERAGE = "leverage_cap"
    SIZE_ZERO = "size_zero"
    BELOW_MIN_NOTIONAL = "below_min_notional"
    KELLY_NEGATIVE = "kelly_negative"
    NO_EXIT_PLAN = "no_exit_plan"
    STALE_DATA = "stale_data"
    MISSING_PREDICTION = "missing_prediction"
    BAD_PREDICTION = "bad_prediction"
    FEATURE_MISMATCH = "feature_mismatch"
    BAD_FEATURES = "bad_features"
    SERVING_DOWN = "serving_down"
    MODEL_EXPIRED = "model_expired"
    SYMBOL_DISABLED = "symbol_disabled"
    KILL_SWITCH = "kill_switch"
    NO_MARGIN = "insufficient_margin"
    UNKNOWN_SYMBOL = "unknown_symbol"
    LATE = "late"


class Vote(Value):
    """One ensemble member's part in an ensemble prediction."""

    family: str
    model_version: str
    action: Action
    p_up: float = Field(ge=0, le=1)
    mu: float
    confidence: float = Field(ge=0, le=1)
    weight: float = Field(ge=0)
    latency_ms: float | None = Field(None, ge=0, description="of its forward, where measured")


class DisabledMember(Value):
    """A member of the ensemble without a vote, and why: a code, a text, who said so."""

    family: str
    key: str
    code: str
    why: str
    who: str


CANARY = "canary"
"""Alias of the version on trial, which answers a share of the decisions under a cap of its own."""


class Prediction(Value):
    """The answer of serving for one symbol and bar.

    ``mu``, ``epistemic``, ``aleatoric`` and ``uncertainty`` (total) are in log-return
    units over the horizon; ``epistemic_p`` is the std of the calibrated ``p_up`` over
    passes, or between members for the ensemble. ``mu_low`` … ``mu_high`` is the conformal
    interval of the return, None where a version keeps none; ``out_of_range`` names the
    inputs that lie outside the model's training range. ``missing_members`` names every family
    without a vote, ``disabled_members`` those of them that were disabled, ``failed_members``
    those that failed at this answer (an input refused for its range is no failure).
    """

    symbol: str
    model_type: str
    p_up: float = Field(ge=0, le=1)
    mu: float
    uncertainty: float = Field(ge=0)
    epistemic: float = Field(ge=0)
    aleatoric: float = Field(ge=0)
    epistemic_p: float = Field(ge=0)
    confidence: float = Field(ge=0, le=1)
    conviction: float = Field(ge=0, le=1)
    signal: Signal
    model_version: str
    bar_ts: int
    staleness_s: float = Field(ge=0)
    stale: bool = False
    mc_samples: int | None = None
    regime: str = REGIME_NOT_COMPUTED
    regime_computed: bool = False
    regime_state: str = "UNKNOWN"
    regime_confidence: float = Field(0.0, ge=0, le=1)
    feature_version: str = ""
    features_fingerprint: str = ""
    decision_id: str = ""
    served_by: str = "champion"
    gates: str = "passed"
    consensus: str | None = None
    votes: tuple[Vote, ...] = ()
    missing_members: tuple[str, ...] = ()
    disabled_members: tuple[DisabledMember, ...] = ()
    failed_members: tuple[str, ...] = ()
    mu_low: float | None = None
    mu_high: float | None = None
    out_of_range: tuple[str, ...] = ()


class Reason(Value):
    """One step of a decision: what was looked at, with its figures, and what it did."""

    step: str
    text: str
    code: RefusalCode | None = None
    figures: dict[str, float | str] = Field(default_factory=dict)


class Decision(Value):
    """The combined action for one (strategy, symbol, bar), with its story."""

    decision_id: str
    strategy: str
    policy_version: str
    symbol: str
    timeframe: str
    bar_ts: int
    action: Action
    refusal: RefusalCode | None = None
    source: str = "ensemble"
    prediction: Prediction | None = None
    reasons: tuple[Reason, ...] = ()
    inputs: dict[str, float | str] = Field(default_factory=dict)
    orders: tuple[OrderRequest, ...] = ()
    created_ms: int


class OrderRequest(Value):
    """An order as the policy wants it, before any broker saw it.

    ``client_id`` is derived from symbol, bar, side and leg, so that a repeat is refused by
    the exchange rather than doubled. A reduce-only order with ``parent_id`` becomes active
    when its parent fills; when one of a parent's children fills, the others are cancelled.
    """

    client_id: str
    decision_id: str
    symbol: str
    side: Side
    type: OrderType
    leg: Leg
    quantity: Decimal = Field(gt=0)
    trigger_price: Decimal | None = None
    reduce_only: bool = False
    parent_id: str | None = None
    leverage: Decimal = Decimal(1)
    created_ms: int


class Intent(Value):
    """An order to be: durable before it is sent."""

    order: OrderRequest
    status: IntentStatus = IntentStatus.NEW
    detail: str = ""


class Fill(Value):
    """One execution, as the broker reports it; ``fill_id`` is unique per broker."""

    fill_id: str
    client_id: str
    symbol: str
    side: Side
    leg: Leg
    quantity: Decimal = Field(gt=0)
    price: Decimal = Field(gt=0)
    fee: Decimal
    ts: int


class BrokerOrder(Value):
    """An order as the broker knows it."""

    client_id: str
    broker_id: str
    symbol: str
    side: Side
    type: OrderType
    leg: Leg
    quantity: Decimal
    status: OrderStatus
    filled_quantity: Decimal = Decimal(0)
    average_price: Decimal | None = None
    reduce_only: bool = False
    detail: str = ""
    updated_ms: int


class BrokerPosition(Value):
    """A net position at the broker; ``quantity`` is signed."""

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    opened_ms: int


class Outcome(Value):
    """The realised H-bar log return of a prediction."""

    symbol: str
    bar_ts: int
    horizon: int
    fwd_ret: float
    y_up: bool


Decision.model_rebuild()


def confidence(p_up: float) -> float:
    """Return ``2·|p_up − 0.5|``, the distance of a probability from a coin flip."""
    return 2.0 * abs(p_up - 0.5)


def decision_id(strategy: str, symbol: str, timeframe: str, bar_ts: int) -> str:
    """Return the deterministic id of the one entry decision for a symbol and bar."""
    return str(uuid.uuid5(DECISION_NAMESPACE, f"{strategy}|{symbol}|{timeframe}|{bar_ts}"))


def client_order_id(symbol: str, bar_ts: int, side: Side, leg: Leg) -> str:
    """Return the deterministic client order id (at most 36 characters, ``[A-Za-z0-9_-]``)."""
    return f"tw-{symbol}-{bar_ts // 1000:x}-{side.value[0]}-{leg.value}"


def registered_name(family: str, key: str) -> str:
    """Return the registered model's name, ``tradewind.{family}.{SYMBOL or POOLED}``."""
    return f"tradewind.{family}.{key}"
