"""Who intervened: the kill switch, and the moment the peak counts from."""

import sqlalchemy as sa
from alembic import op

revision = "books_0002"
down_revision = "books_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "interventions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("wall_ms", sa.BigInteger(), nullable=False),
        sa.Column(
            "market_ms",
            sa.BigInteger(),
            nullable=True,
            comment="market time it counts from, where that matters",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_interventions")),
    )
    op.create_index("ix_interventions_kind", "interventions", ["kind", "id"], unique=False)


def downgrade() -> None:

    op.drop_index("ix_interventions_kind", table_name="interventions")
    op.drop_table("interventions")
