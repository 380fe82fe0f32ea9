"""Members of the ensemble: three states, who said so, why in a code and in figures; a history."""

import sqlalchemy as sa
from alembic import op

revision = "books_0003"
down_revision = "books_0002"
branch_labels = None
depends_on = None

ADDED = (
    ("state", sa.String(length=16), "enabled"),
    ("code", sa.String(length=32), "by_hand"),
    ("who", sa.String(length=128), "unknown"),
    ("held", sa.Boolean(), sa.false()),
    ("version", sa.String(length=128), ""),
    ("retrain", sa.Boolean(), sa.false()),
    ("figures", sa.Text(), "{}"),
    ("since_ms", sa.BigInteger(), "0"),
)


def upgrade() -> None:

    for name, kind, first in ADDED:
        op.add_column("member_state", sa.Column(name, kind, nullable=False, server_default=first))
    # Who disabled one before said it by hand: no supervisor wrote here yet.
    op.execute(
        sa.text(
            "UPDATE member_state SET since_ms = updated_ms, held = NOT enabled, "
            "state = CASE WHEN enabled THEN 'enabled' ELSE 'disabled' END"
        )
    )
    with op.batch_alter_table("member_state") as batch:
        batch.drop_column("enabled")
        for name, kind, _ in ADDED:
            batch.alter_column(
                name, server_default=None, existing_type=kind, existing_nullable=False
            )
    op.create_table(
        "member_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("family", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("before", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("code", sa.String(length=32), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=False),
        sa.Column("retrain", sa.Boolean(), nullable=False),
        sa.Column("figures", sa.Text(), nullable=False),
        sa.Column("market_ms", sa.BigInteger(), nullable=False),
        sa.Column("wall_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_member_changes")),
    )
    op.create_index("ix_member_changes_member", "member_changes", ["family", "key", "id"])


def downgrade() -> None:

    op.drop_index("ix_member_changes_member", table_name="member_changes")
    op.drop_table("member_changes")
    op.add_column(
        "member_state",
        sa.Column("enabled", sa.Boolean(), nullable=False, server_default=sa.true()),
    )
    op.execute(sa.text("UPDATE member_state SET enabled = (state <> 'disabled')"))
    with op.batch_alter_table("member_state") as batch:
        for name, _, _ in ADDED:
            batch.drop_column(name)
        batch.alter_column(
            "enabled", server_default=None, existing_type=sa.Boolean(), existing_nullable=False
        )
