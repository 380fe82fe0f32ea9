"""The paper exchange's own tables; the engine's books know nothing of them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

from tradewind.ledger.types import DecimalText

metadata = MetaData()

account = Table(
    "paper_account",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("cash", DecimalText, nullable=False),
)

orders = Table(
    "paper_orders",
    metadata,
    Column("client_id", String(64), primary_key=True),
    Column("seq", Integer, nullable=False, unique=True),
    Column("symbol", String(32), nullable=False),
    Column("side", String(4), nullable=False),
    Column("type", String(24), nullable=False),
    Column("leg", String(8), nullable=False),
    Column("quantity", DecimalText, nullable=False),
    Column("trigger_price", DecimalText),
    Column("reduce_only", Boolean, nullable=False),
    Column("parent_id", String(64)),
    Column("leverage", DecimalText, nullable=False),
    Column("status", String(16), nullable=False),
    Column("filled_quantity", DecimalText, nullable=False),
    Column("average_price", DecimalText),
    Column("detail", Text, nullable=False),
    Column("active_from", BigInteger, nullable=False, comment="first bar it can meet"),
    Column("updated_ms", BigInteger, nullable=False),
    Column("repeats", Integer, nullable=False, comment="how often it was sent again"),
    Index("ix_paper_orders_status", "status", "symbol"),
)

fills = Table(
    "paper_fills",
    metadata,
    Column("fill_id", String(96), primary_key=True),
    Column("seq", Integer, nullable=False, unique=True),
    Column("client_id", ForeignKey("paper_orders.client_id"), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("side", String(4), nullable=False),
    Column("leg", String(8), nullable=False),
    Column("quantity", DecimalText, nullable=False),
    Column("price", DecimalText, nullable=False),
    Column("fee", DecimalText, nullable=False),
    Column("ts", BigInteger, nullable=False, index=True),
)

positions = Table(
    "paper_positions",
    metadata,
    Column("symbol", String(32), primary_key=True),
    Column("quantity", DecimalText, nullable=False),
    Column("cost", DecimalText, nullable=False),
    Column("leverage", DecimalText, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
)

funding = Table(
    "paper_funding",
    metadata,
    Column("payment_id", String(64), primary_key=True),
    Column("symbol", String(32), nullable=False),
    Column("amount", DecimalText, nullable=False),
    Column("rate", DecimalText, nullable=False),
    Column("ts", BigInteger, nullable=False, index=True),
)

cursors = Table(
    "paper_cursors",
    metadata,
    Column("symbol", String(32), primary_key=True),
    Column("next_ts", BigInteger, nullable=False, comment="first bar not yet met"),
)
