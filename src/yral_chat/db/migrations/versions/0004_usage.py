"""What is used and what it costs: by day, and what is held back for what runs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def _count(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), nullable=False)


def upgrade() -> None:
    op.add_column("usage_events", sa.Column("pictures", sa.Integer(), server_default="0", nullable=False))
    op.add_column(
        "usage_events", sa.Column("is_estimated", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column("usage_events", sa.Column("cost", sa.BigInteger(), nullable=True))
    op.create_table(
        "usage_days",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("turns", sa.Integer(), nullable=False),
        *(_count(f"{kind}_tokens") for kind in ("prompt", "cached", "output", "thinking")),
        _count("cost"),
        _count("reserved_tokens"),
        _count("reserved_cost"),
        sa.PrimaryKeyConstraint("kind", "subject", "day", name=op.f("pk_usage_days")),
    )
    op.create_table(
        "open_usage",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("influencer_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        _count("tokens"),
        _count("cost"),
        sa.Column("holds_influencer", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_open_usage")),
    )
    op.create_index("ix_open_usage_user", "open_usage", ["user_id"])
