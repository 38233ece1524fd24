"""Versions of personas, memories, people, and what operators look up."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def _time(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _conversation(table: str) -> "tuple[sa.Column[str], sa.ForeignKeyConstraint]":
    return (
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f(f"fk_{table}_conversation_id"), ondelete="CASCADE"
        ),
    )


def upgrade() -> None:
    _change_what_there_is()
    op.create_table(
        "influencer_versions",
        sa.Column("influencer_id", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("system_instructions", sa.Text(), nullable=False),
        _time("created_at"),
        sa.ForeignKeyConstraint(
            ["influencer_id"],
            ["influencers.id"],
            name=op.f("fk_influencer_versions_influencer_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("influencer_id", "n", name=op.f("pk_influencer_versions")),
    )
    op.create_table(
        "memories",
        *_conversation("memories"),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("source_message_id", sa.Text(), nullable=True),
        sa.Column("source_seq", sa.BigInteger(), nullable=False),
        sa.Column("confidence", sa.Integer(), nullable=False),
        _time("created_at"),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("conversation_id", "key", name=op.f("pk_memories")),
    )
    op.create_table(
        "forgotten_memories",
        *_conversation("forgotten_memories"),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("through_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", "key", name=op.f("pk_forgotten_memories")),
    )
    op.create_table(
        "summaries",
        *_conversation("summaries"),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("through_seq", sa.BigInteger(), nullable=False),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("conversation_id", name=op.f("pk_summaries")),
    )
    op.create_table(
        "user_settings",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("memories_enabled", sa.Boolean(), nullable=False),
        sa.Column("locale", sa.Text(), nullable=True),
        sa.Column("time_zone", sa.Text(), nullable=True),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_settings")),
    )
    op.create_table(
        "audit_events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index("ix_audit_events_subject", "audit_events", ["subject", "created_at"])


def _change_what_there_is() -> None:
    op.add_column("influencers", sa.Column("version", sa.Integer(), server_default="1", nullable=False))
    op.add_column("influencers", sa.Column("card", sa.Text(), nullable=True))
    op.add_column("influencers", sa.Column("status_before_ban", sa.Text(), nullable=True))
    op.add_column("conversations", sa.Column("other_user_id", sa.Text(), nullable=True))
    op.add_column("conversations", sa.Column("pair", sa.Text(), nullable=True))
    # A unique index and not a constraint: SQLite could add that only by copying the table.
    op.create_index("ix_conversations_pair", "conversations", ["pair"], unique=True)
    op.create_index("ix_conversations_other_user", "conversations", ["other_user_id"])
    _change_participants()
    op.add_column("jobs", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.drop_index("ix_media_objects_owner", "media_objects")
    op.create_index("ix_media_objects_owner", "media_objects", ["owner_id", "created_at", "key"])
    op.drop_index("ix_jobs_due", "jobs")
    op.create_index("ix_jobs_due", "jobs", ["is_dead", "name", sa.text("priority DESC"), "run_at", "id"])


def _change_participants() -> None:
    for column in (
        sa.Column("cleared_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("read_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("is_hidden", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_persona", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    ):
        op.add_column("participants", column)
    op.execute(
        "UPDATE participants SET is_persona = true WHERE EXISTS (SELECT 1 FROM conversations"
        " WHERE conversations.id = participants.conversation_id"
        " AND conversations.influencer_id = participants.principal_id)"
    )
    op.drop_index("ix_participants_inbox", "participants")
    op.drop_index("ix_participants_inbox_all", "participants")
    newest_first = (sa.text("updated_at DESC"), "conversation_id")
    for name, columns, condition in (
        ("ix_participants_inbox", ("principal_id", "type", *newest_first), "NOT is_hidden"),
        ("ix_participants_inbox_all", ("principal_id", *newest_first), "NOT is_hidden"),
        ("ix_participants_unread", ("principal_id", *newest_first), "unread_count > 0 AND NOT is_persona"),
    ):
        where = sa.text(condition)
        op.create_index(name, "participants", columns, sqlite_where=where, postgresql_where=where)
