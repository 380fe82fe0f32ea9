"""The ledger's tables. Times are UTC epoch ms; unique keys make every replay harmless."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from tradewind.ledger.types import DecimalText

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# No foreign key from a prediction to a decision: serving logs before anyone decides, and
# many predictions never become one.
predictions = Table(
    "predictions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("request_id", String(64), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("role", String(16), nullable=False),
    Column("model_type", String(32), nullable=False),
    Column("decision_id", String(36), nullable=False),
    Column("model_version", String(128), nullable=False),
    Column("served_by", String(16), nullable=False),
    Column("bar_ts", BigInteger, nullable=False),
    Column("p_up", Float, nullable=False),
    Column("mu", Float, nullable=False),
    Column("uncertainty", Float, nullable=False),
    Column("epistemic", Float, nullable=False),
    Column("aleatoric", Float, nullable=False),
    Column("epistemic_p", Float, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("conviction", Float, nullable=False),
    Column("signal", String(16), nullable=False),
    Column("staleness_s", Float, nullable=False),
    Column("latency_ms", Float, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("request_id", "symbol", "role", "model_type"),
    Index("ix_predictions_decision", "decision_id", "role"),
    Index("ix_predictions_symbol_bar", "symbol", "bar_ts"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("decision_id", String(36), primary_key=True),
    Column("strategy", String(64), nullable=False),
    Column("policy_version", String(64), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("timeframe", String(8), nullable=False),
    Column("bar_ts", BigInteger, nullable=False),
    Column("action", String(8), nullable=False),
    Column("refusal", String(32)),
    Column("source", String(32), nullable=False),
    Column("order_count", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("strategy", "symbol", "timeframe", "bar_ts"),
    Index("ix_decisions_orders", "order_count", "bar_ts"),
)

intents = Table(
    "intents",
    metadata,
    Column("client_id", String(64), primary_key=True),
    Column("decision_id", ForeignKey("decisions.decision_id"), nullable=False, index=True),
    Column("symbol", String(32), nullable=False),
    Column("side", String(4), nullable=False),
    Column("type", String(24), nullable=False),
    Column("leg", String(8), nullable=False),
    Column("quantity", DecimalText, nullable=False),
    Column("trigger_price", DecimalText),
    Column("reduce_only", Boolean, nullable=False),
    Column("parent_id", String(64)),
    Column("leverage", DecimalText, nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("position", Integer, nullable=False, comment="place within its decision"),
    Column("created_ms", BigInteger, nullable=False),
)

orders = Table(
    "orders",
    metadata,
    Column("client_id", ForeignKey("intents.client_id"), primary_key=True),
    Column("broker_id", String(64), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("side", String(4), nullable=False),
    Column("type", String(24), nullable=False),
    Column("leg", String(8), nullable=False),
    Column("quantity", DecimalText, nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("filled_quantity", DecimalText, nullable=False),
    Column("average_price", DecimalText),
    Column("reduce_only", Boolean, nullable=False),
    Column("detail", Text, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)

fills = Table(
    "fills",
    metadata,
    Column("fill_id", String(96), primary_key=True),
    Column("client_id", ForeignKey("orders.client_id"), nullable=False, index=True),
    Column("symbol", String(32), nullable=False),
    Column("side", String(4), nullable=False),
    Column("leg", String(8), nullable=False),
    Column("quantity", DecimalText, nullable=False),
    Column("price", DecimalText, nullable=False),
    Column("fee", DecimalText, nullable=False),
    Column("ts", BigInteger, nullable=False),
    Column("seq", Integer, nullable=False, unique=True, comment="order of booking"),
)

positions = Table(
    "positions",
    metadata,
    Column("symbol", String(32), primary_key=True),
    Column("trade_id", String(96), nullable=False),
    Column("decision_id", ForeignKey("decisions.decision_id"), nullable=False),
    Column("quantity", DecimalText, nullable=False),
    Column("cost", DecimalText, nullable=False, comment="signed entry value of what is open"),
    Column("opened_quantity", DecimalText, nullable=False),
    Column("opened_value", DecimalText, nullable=False),
    Column("closed_quantity", DecimalText, nullable=False),
    Column("closed_value", DecimalText, nullable=False),
    Column("realised", DecimalText, nullable=False),
    Column("fees", DecimalText, nullable=False),
    Column("funding", DecimalText, nullable=False),
    Column("stop_distance", DecimalText, nullable=False),
    Column("leverage", DecimalText, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
)

flows = Table(
    "flows",
    metadata,
    Column("flow_id", String(128), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("symbol", String(32)),
    Column("amount", DecimalText, nullable=False),
    Column("ts", BigInteger, nullable=False),
)

account = Table(
    "account",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("initial_cash", DecimalText, nullable=False),
    Column("cash", DecimalText, nullable=False),
    Column("fill_count", Integer, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
)

trades = Table(
    "trades",
    metadata,
    Column("trade_id", String(96), primary_key=True),
    Column("decision_id", ForeignKey("decisions.decision_id"), nullable=False, index=True),
    Column("symbol", String(32), nullable=False),
    Column("side", String(4), nullable=False),
    Column("quantity", DecimalText, nullable=False),
    Column("entry_price", DecimalText, nullable=False),
    Column("exit_price", DecimalText, nullable=False),
    Column("pnl", DecimalText, nullable=False, comment="net of fees and funding"),
    Column("fees", DecimalText, nullable=False),
    Column("funding", DecimalText, nullable=False),
    Column("realised_r", Float, nullable=False),
    Column("stop_distance", DecimalText, nullable=False),
    Column("leverage", DecimalText, nullable=False),
    Column("exit_reason", Text, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("closed_ms", BigInteger, nullable=False),
    Column("minutes_held", Float, nullable=False),
    Index("ix_trades_symbol_closed", "symbol", "closed_ms"),
)

equity = Table(
    "equity",
    metadata,
    Column("ts", BigInteger, primary_key=True, autoincrement=False),
    Column("equity", DecimalText, nullable=False),
    Column("cash", DecimalText, nullable=False),
    Column("unrealised", DecimalText, nullable=False),
    Column("open_positions", Integer, nullable=False),
    Column("exposure", DecimalText, nullable=False),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("symbol", String(32), primary_key=True),
    Column("bar_ts", BigInteger, primary_key=True, autoincrement=False),
    Column("horizon", Integer, primary_key=True, autoincrement=False),
    Column("fwd_ret", Float, nullable=False),
    Column("y_up", Boolean, nullable=False),
)

member_state = Table(
    "member_state",
    metadata,
    Column("family", String(32), primary_key=True),
    Column("key", String(32), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("code", String(32), nullable=False),
    Column("why", Text, nullable=False),
    Column("who", String(128), nullable=False),
    Column("held", Boolean, nullable=False),
    Column("version", String(128), nullable=False),
    Column("retrain", Boolean, nullable=False),
    Column("figures", Text, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)

member_changes = Table(
    "member_changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("family", String(32), nullable=False),
    Column("key", String(32), nullable=False),
    Column("before", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("code", String(32), nullable=False),
    Column("why", Text, nullable=False),
    Column("who", String(128), nullable=False),
    Column("held", Boolean, nullable=False),
    Column("version", String(128), nullable=False),
    Column("retrain", Boolean, nullable=False),
    Column("figures", Text, nullable=False),
    Column("market_ms", BigInteger, nullable=False),
    Column("wall_ms", BigInteger, nullable=False),
    Index("ix_member_changes_member", "family", "key", "id"),
)

clock = Table(
    "clock",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("market_ms", BigInteger, nullable=False),
    Column("wall_ms", BigInteger, nullable=False),
    Column("speed", Float, nullable=False),
)

settings_history = Table(
    "settings_history",
    metadata,
    Column("version", String(64), primary_key=True),
    Column("body", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("host", String(256), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process", String(128), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
)

interventions = Table(
    "interventions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("who", String(128), nullable=False),
    Column("why", Text, nullable=False),
    Column("wall_ms", BigInteger, nullable=False),
    Column("market_ms", BigInteger, comment="market time it counts from, where that matters"),
    Index("ix_interventions_kind", "kind", "id"),
)

kill_switch = Table(
    "kill_switch",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("engaged", Boolean, nullable=False),
    Column("flatten", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
)
