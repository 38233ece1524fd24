"""Images, recordings and made pictures."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for column in (
        sa.Column("images", sa.Text(), nullable=True),
        sa.Column("audio", sa.Text(), nullable=True),
        sa.Column("audio_seconds", sa.Integer(), nullable=True),
        sa.Column("transcription", sa.Text(), nullable=True),
    ):
        op.add_column("messages", column)
    op.drop_index("ix_turns_conversation", "turns")
    op.create_index("ix_turns_conversation", "turns", ["conversation_id", "kind", "seq"])
    op.create_table(
        "picture_requests",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("request_key", sa.Text(), nullable=True),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name=op.f("fk_picture_requests_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_picture_requests")),
        sa.UniqueConstraint(
            "conversation_id", "request_key", name=op.f("uq_picture_requests_conversation_id_request_key")
        ),
    )
    op.create_index("ix_picture_requests_newest", "picture_requests", ["conversation_id", sa.text("created_at DESC")])
    op.create_table(
        "media_objects",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("mime_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("duration_seconds", sa.Integer(), nullable=True),
        sa.Column("is_stored", sa.Boolean(), nullable=False),
        sa.Column("is_used", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_media_objects")),
    )
    op.create_index("ix_media_objects_owner", "media_objects", ["owner_id", "created_at"])
    op.create_index(
        "ix_media_objects_unused",
        "media_objects",
        ["created_at"],
        sqlite_where=sa.text("NOT is_used"),
        postgresql_where=sa.text("NOT is_used"),
    )
    op.create_table(
        "media_uses",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["key"], ["media_objects.key"], name=op.f("fk_media_uses_key")),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name=op.f("fk_media_uses_message_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", "message_id", name=op.f("pk_media_uses")),
    )
    op.create_index("ix_media_uses_message", "media_uses", ["message_id"])
    op.create_index("ix_media_uses_conversation", "media_uses", ["conversation_id"])
