"""The first books."""

import sqlalchemy as sa
from alembic import op

revision = "books_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "account",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("initial_cash", sa.String(64), nullable=False),
        sa.Column("cash", sa.String(64), nullable=False),
        sa.Column("fill_count", sa.Integer(), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
    )
    op.create_table(
        "clock",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("market_ms", sa.BigInteger(), nullable=False),
        sa.Column("wall_ms", sa.BigInteger(), nullable=False),
        sa.Column("speed", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock")),
    )
    op.create_table(
        "decisions",
        sa.Column("decision_id", sa.String(length=36), nullable=False),
        sa.Column("strategy", sa.String(length=64), nullable=False),
        sa.Column("policy_version", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("timeframe", sa.String(length=8), nullable=False),
        sa.Column("bar_ts", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.String(length=8), nullable=False),
        sa.Column("refusal", sa.String(length=32), nullable=True),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("order_count", sa.Integer(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_decisions")),
        sa.UniqueConstraint(
            "strategy", "symbol", "timeframe", "bar_ts", name=op.f("uq_decisions_strategy")
        ),
    )
    op.create_index("ix_decisions_orders", "decisions", ["order_count", "bar_ts"], unique=False)
    op.create_table(
        "equity",
        sa.Column("ts", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("equity", sa.String(64), nullable=False),
        sa.Column("cash", sa.String(64), nullable=False),
        sa.Column("unrealised", sa.String(64), nullable=False),
        sa.Column("open_positions", sa.Integer(), nullable=False),
        sa.Column("exposure", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("ts", name=op.f("pk_equity")),
    )
    op.create_table(
        "flows",
        sa.Column("flow_id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=True),
        sa.Column("amount", sa.String(64), nullable=False),
        sa.Column("ts", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("flow_id", name=op.f("pk_flows")),
    )
    op.create_table(
        "kill_switch",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("engaged", sa.Boolean(), nullable=False),
        sa.Column("flatten", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kill_switch")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=256), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("process", sa.String(length=128), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "member_state",
        sa.Column("family", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("family", "key", name=op.f("pk_member_state")),
    )
    op.create_table(
        "outcomes",
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("bar_ts", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("horizon", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("fwd_ret", sa.Float(), nullable=False),
        sa.Column("y_up", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("symbol", "bar_ts", "horizon", name=op.f("pk_outcomes")),
    )
    op.create_table(
        "predictions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("model_type", sa.String(length=32), nullable=False),
        sa.Column("decision_id", sa.String(length=36), nullable=False),
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.Column("served_by", sa.String(length=16), nullable=False),
        sa.Column("bar_ts", sa.BigInteger(), nullable=False),
        sa.Column("p_up", sa.Float(), nullable=False),
        sa.Column("mu", sa.Float(), nullable=False),
        sa.Column("uncertainty", sa.Float(), nullable=False),
        sa.Column("epistemic", sa.Float(), nullable=False),
        sa.Column("aleatoric", sa.Float(), nullable=False),
        sa.Column("epistemic_p", sa.Float(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("conviction", sa.Float(), nullable=False),
        sa.Column("signal", sa.String(length=16), nullable=False),
        sa.Column("staleness_s", sa.Float(), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_predictions")),
        sa.UniqueConstraint(
            "request_id", "symbol", "role", "model_type", name=op.f("uq_predictions_request_id")
        ),
    )
    op.create_index("ix_predictions_decision", "predictions", ["decision_id", "role"], unique=False)
    op.create_index("ix_predictions_symbol_bar", "predictions", ["symbol", "bar_ts"], unique=False)
    op.create_table(
        "settings_history",
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_settings_history")),
    )
    op.create_table(
        "intents",
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("decision_id", sa.String(length=36), nullable=False),
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
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, comment="place within its decision"),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["decision_id"], ["decisions.decision_id"], name=op.f("fk_intents_decision_id")
        ),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_intents")),
    )
    op.create_index(op.f("ix_intents_decision_id"), "intents", ["decision_id"], unique=False)
    op.create_index(op.f("ix_intents_status"), "intents", ["status"], unique=False)
    op.create_table(
        "positions",
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("trade_id", sa.String(length=96), nullable=False),
        sa.Column("decision_id", sa.String(length=36), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column(
            "cost", sa.String(64), nullable=False, comment="signed entry value of what is open"
        ),
        sa.Column("opened_quantity", sa.String(64), nullable=False),
        sa.Column("opened_value", sa.String(64), nullable=False),
        sa.Column("closed_quantity", sa.String(64), nullable=False),
        sa.Column("closed_value", sa.String(64), nullable=False),
        sa.Column("realised", sa.String(64), nullable=False),
        sa.Column("fees", sa.String(64), nullable=False),
        sa.Column("funding", sa.String(64), nullable=False),
        sa.Column("stop_distance", sa.String(64), nullable=False),
        sa.Column("leverage", sa.String(64), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["decision_id"], ["decisions.decision_id"], name=op.f("fk_positions_decision_id")
        ),
        sa.PrimaryKeyConstraint("symbol", name=op.f("pk_positions")),
    )
    op.create_table(
        "trades",
        sa.Column("trade_id", sa.String(length=96), nullable=False),
        sa.Column("decision_id", sa.String(length=36), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column("entry_price", sa.String(64), nullable=False),
        sa.Column("exit_price", sa.String(64), nullable=False),
        sa.Column("pnl", sa.String(64), nullable=False, comment="net of fees and funding"),
        sa.Column("fees", sa.String(64), nullable=False),
        sa.Column("funding", sa.String(64), nullable=False),
        sa.Column("realised_r", sa.Float(), nullable=False),
        sa.Column("stop_distance", sa.String(64), nullable=False),
        sa.Column("leverage", sa.String(64), nullable=False),
        sa.Column("exit_reason", sa.Text(), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("closed_ms", sa.BigInteger(), nullable=False),
        sa.Column("minutes_held", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["decision_id"], ["decisions.decision_id"], name=op.f("fk_trades_decision_id")
        ),
        sa.PrimaryKeyConstraint("trade_id", name=op.f("pk_trades")),
    )
    op.create_index(op.f("ix_trades_decision_id"), "trades", ["decision_id"], unique=False)
    op.create_index("ix_trades_symbol_closed", "trades", ["symbol", "closed_ms"], unique=False)
    op.create_table(
        "orders",
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("broker_id", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("type", sa.String(length=24), nullable=False),
        sa.Column("leg", sa.String(length=8), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("filled_quantity", sa.String(64), nullable=False),
        sa.Column("average_price", sa.String(64), nullable=True),
        sa.Column("reduce_only", sa.Boolean(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("updated_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["intents.client_id"], name=op.f("fk_orders_client_id")
        ),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_orders")),
    )
    op.create_index(op.f("ix_orders_status"), "orders", ["status"], unique=False)
    op.create_table(
        "fills",
        sa.Column("fill_id", sa.String(length=96), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("symbol", sa.String(length=32), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("leg", sa.String(length=8), nullable=False),
        sa.Column("quantity", sa.String(64), nullable=False),
        sa.Column("price", sa.String(64), nullable=False),
        sa.Column("fee", sa.String(64), nullable=False),
        sa.Column("ts", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False, comment="order of booking"),
        sa.ForeignKeyConstraint(
            ["client_id"], ["orders.client_id"], name=op.f("fk_fills_client_id")
        ),
        sa.PrimaryKeyConstraint("fill_id", name=op.f("pk_fills")),
        sa.UniqueConstraint("seq", name=op.f("uq_fills_seq")),
    )
    op.create_index(op.f("ix_fills_client_id"), "fills", ["client_id"], unique=False)


def downgrade() -> None:

    op.drop_index(op.f("ix_fills_client_id"), table_name="fills")
    op.drop_table("fills")
    op.drop_index(op.f("ix_orders_status"), table_name="orders")
    op.drop_table("orders")
    op.drop_index("ix_trades_symbol_closed", table_name="trades")
    op.drop_index(op.f("ix_trades_decision_id"), table_name="trades")
    op.drop_table("trades")
    op.drop_table("positions")
    op.drop_index(op.f("ix_intents_status"), table_name="intents")
    op.drop_index(op.f("ix_intents_decision_id"), table_name="intents")
    op.drop_table("intents")
    op.drop_table("settings_history")
    op.drop_index("ix_predictions_symbol_bar", table_name="predictions")
    op.drop_index("ix_predictions_decision", table_name="predictions")
    op.drop_table("predictions")
    op.drop_table("outcomes")
    op.drop_table("member_state")
    op.drop_table("leases")
    op.drop_table("kill_switch")
    op.drop_table("flows")
    op.drop_table("equity")
    op.drop_index("ix_decisions_orders", table_name="decisions")
    op.drop_table("decisions")
    op.drop_table("clock")
    op.drop_table("account")
