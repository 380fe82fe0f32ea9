"""The paper exchange."""

import sqlalchemy as sa
from alembic import op

revision = "paper_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "paper_account",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "paper_cursors",
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("next_ts", sa.BigInteger(), nullable=False, comment="first bar not yet met"),
        sa.PrimaryKeyConstraint("symbol"),
    )
    op.create_table(
        "paper_funding",
        sa.Column("payment_id", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("amount", sa.String(64), nullable=False),
        sa.Column("rate", sa.String(64), nullable=False),
        sa.Column("ts", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("payment_id"),
    )
    op.create_index(op.f("ix_paper_funding_ts"), "paper_funding", ["ts"], unique=False)
    op.create_table(
        "paper_orders",
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("type", sa.String(length=24), nullable=False),
        sa.Column("leg", sa.String(length=8), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column("trigger_price", sa.String(64), nullable=True),
        sa.Column("reduce_only", sa.Boolean(), nullable=False),
        sa.Column("parent_id", sa.String(length=64), nullable=True),
        sa.Column("leverage", sa.String(64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("filled_quantity", sa.String(64), nullable=False),
        sa.Column("average_price", sa.String(64), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("active_from", sa.BigInteger(), nullable=False, comment="first bar it can meet"),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False, comment="how often it was sent again"),
        sa.PrimaryKeyConstraint("client_id"),
        sa.UniqueConstraint("seq"),
    )
    op.create_index("ix_paper_orders_status", "paper_orders", ["status", "symbol"], unique=False)
    op.create_table(
        "paper_positions",
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column("cost", sa.String(64), nullable=False),
        sa.Column("leverage", sa.String(64), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("symbol"),
    )
    op.create_table(
        "paper_fills",
        sa.Column("fill_id", sa.String(length=96), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("leg", sa.String(length=8), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column("price", sa.String(64), nullable=False),
        sa.Column("fee", sa.String(64), nullable=False),
        sa.Column("ts", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["paper_orders.client_id"],
        ),
        sa.PrimaryKeyConstraint("fill_id"),
        sa.UniqueConstraint("seq"),
    )
    op.create_index(op.f("ix_paper_fills_ts"), "paper_fills", ["ts"], unique=False)


def downgrade() -> None:

    op.drop_index(op.f("ix_paper_fills_ts"), table_name="paper_fills")
    op.drop_table("paper_fills")
    op.drop_table("paper_positions")
    op.drop_index("ix_paper_orders_status", table_name="paper_orders")
    op.drop_table("paper_orders")
    op.drop_index(op.f("ix_paper_funding_ts"), table_name="paper_funding")
    op.drop_table("paper_funding")
    op.drop_table("paper_cursors")
    op.drop_table("paper_account")
