"""Every table on one page. Times are microseconds since the epoch; ids are text.

Named as the migration names them, so that `checks/migrations_in_step.py` finds any difference.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


influencers = Table(
    "influencers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("name_key", Text, nullable=False, unique=True),  # lower case: names are unique without regard to case
    Column("display_name", Text, nullable=False),
    Column("avatar_url", Text, nullable=False, server_default=""),  # absolute, or a path on this service
    Column("description", Text, nullable=False, server_default=""),
    Column("category", Text, nullable=False, server_default=""),
    Column("status", Text, nullable=False),
    Column("status_rank", Integer, nullable=False),  # 0 active, 1 coming_soon, 2 discontinued: the order of the list
    Column("is_nsfw", Boolean, nullable=False),
    Column("owner_id", Text),
    Column("source", Text),
    Column("system_instructions", Text, nullable=False),
    Column("initial_greeting", Text, nullable=False, server_default=""),
    Column("suggested_messages", Text, nullable=False, server_default="[]"),  # JSON array
    Column("personality_traits", Text, nullable=False, server_default="{}"),  # JSON object
    Column("voice", Text),
    Column("seed_hash", Text),  # of the shipped file; null once an owner has edited the row
    Column("version", Integer, nullable=False, server_default="1"),  # the newest of influencer_versions
    Column("card", Text),  # JSON of an imported card: what this service does not use is kept for export
    Column("status_before_ban", Text),  # null: not banned
    Column("conversation_count", BigInteger, nullable=False, server_default="0"),  # folded from counter_deltas
    Column("message_count", BigInteger, nullable=False, server_default="0"),  # folded from counter_deltas
    _time("created_at"),
    _time("updated_at"),
    Index("ix_influencers_listed", "status_rank", text("created_at DESC"), "id"),
    Index("ix_influencers_trending", "status_rank", text("message_count DESC"), text("created_at DESC"), "id"),
    Index("ix_influencers_owner", "owner_id", "created_at", "id"),
)

influencer_versions = Table(
    "influencer_versions",
    metadata,
    # Every text that an owner has given to a persona. The newest is the one in `influencers`.
    Column("influencer_id", Text, ForeignKey("influencers.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("system_instructions", Text, nullable=False),
    _time("created_at"),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("influencer_id", Text, ForeignKey("influencers.id")),
    # Human chats: the person who did not open it, and a hash of both without order, so that a pair has one.
    Column("other_user_id", Text),
    Column("pair", Text),
    Column("last_seq", BigInteger, nullable=False),
    _time("last_message_time"),  # created_at of the newest message row: the next one is at least 1 ms later
    Column("message_count", Integer, nullable=False),  # user and assistant messages without unfinished ones
    Column("banner_count", Integer, nullable=False, server_default="0"),
    # What the inbox shows of the newest message, so that an inbox page never touches `messages`.
    Column("last_id", Text),
    Column("last_seq_shown", BigInteger),
    Column("last_content", Text),
    Column("last_role", Text),
    Column("last_type", Text),
    _time("last_created_at", nullable=True),
    Column("last_status", Text),
    Column("last_sender_id", Text),
    _time("created_at"),
    _time("updated_at"),
    UniqueConstraint("user_id", "influencer_id"),
    Index("ix_conversations_influencer", "influencer_id"),
    Index("ix_conversations_other_user", "other_user_id"),
    Index("ix_conversations_pair", "pair", unique=True),
)

participants = Table(
    "participants",
    metadata,
    Column("conversation_id", Text, ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True),
    # The person, or the persona: its owner reads the persona's side.
    Column("principal_id", Text, primary_key=True),
    Column("type", Text, nullable=False),  # of the conversation, so that one index serves a filtered inbox
    Column("unread_count", Integer, nullable=False),
    # What this side of a human chat has deleted: messages up to this one, and how many they were.
    Column("cleared_seq", BigInteger, nullable=False, server_default="0"),
    Column("cleared_count", Integer, nullable=False, server_default="0"),
    _time("read_at", nullable=True),
    Column("read_seq", BigInteger, nullable=False, server_default="0"),  # how far this side of a human chat has read
    # Of a human chat: deleted by this side, or opened by the other and still empty. Then nothing is unread.
    Column("is_hidden", Boolean, nullable=False, server_default=text("false")),
    Column("is_persona", Boolean, nullable=False, server_default=text("false")),  # the side of the persona
    _time("updated_at"),  # of the conversation
    Index(
        "ix_participants_inbox",
        "principal_id",
        "type",
        text("updated_at DESC"),
        "conversation_id",
        sqlite_where=text("NOT is_hidden"),
        postgresql_where=text("NOT is_hidden"),
    ),
    Index(
        "ix_participants_inbox_all",
        "principal_id",
        text("updated_at DESC"),
        "conversation_id",
        sqlite_where=text("NOT is_hidden"),
        postgresql_where=text("NOT is_hidden"),
    ),
    # What people have not read is little; what the owners of personas have not read is most of everything.
    Index(
        "ix_participants_unread",
        "principal_id",
        text("updated_at DESC"),
        "conversation_id",
        sqlite_where=text("unread_count > 0 AND NOT is_persona"),
        postgresql_where=text("unread_count > 0 AND NOT is_persona"),
    ),
)

messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("conversation_id", Text, ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("role", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("message_type", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("is_listed", Boolean, nullable=False),  # false for the unfinished rows of contract section 5.2
    Column("sender_id", Text),
    Column("client_message_id", Text),
    Column("body_hash", Text),  # of what the sender sent: same key or same body is recognised by it
    Column("reply_to", Text, unique=True),  # at most one reply row per user message
    Column("attempt", Integer, nullable=False),  # that produced the shown state
    Column("last_attempt", Integer, nullable=False),  # that was ever begun: event ids are never used twice
    Column("error_code", Text),
    Column("provider", Text),
    Column("model", Text),
    Column("token_count", Integer),
    # References as clients give them, reduced: a storage key, or the address of a file on an allowed host.
    Column("images", Text),  # JSON array
    Column("audio", Text),
    Column("audio_seconds", Integer),
    Column("transcription", Text),
    Column("is_handed_over", Boolean, nullable=False),  # somebody received the answer to this turn
    _time("created_at"),
    _time("completed_at", nullable=True),
    UniqueConstraint("conversation_id", "seq"),
    UniqueConstraint("conversation_id", "sender_id", "client_message_id"),
    Index("ix_messages_history", "conversation_id", "is_listed", "seq"),
    # Read messages leave it, so marking a long conversation as read costs what is unread.
    Index(
        "ix_messages_unread",
        "conversation_id",
        "role",
        sqlite_where=text("status = 'delivered'"),
        postgresql_where=text("status = 'delivered'"),
    ),
)

turns = Table(
    "turns",
    metadata,
    # A row is work that somebody must finish. Its id is the id of the assistant message.
    Column("id", Text, primary_key=True),
    Column("conversation_id", Text, ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("user_message_id", Text, nullable=False),
    Column("kind", Text, nullable=False),  # reply, picture
    Column("seq", BigInteger, nullable=False),  # of the assistant message: turns of a conversation run in this order
    Column("attempt", Integer, nullable=False),
    Column("takeovers", Integer, nullable=False),
    Column("is_regeneration", Boolean, nullable=False),  # asked for by the regenerate route
    Column("is_replacement", Boolean, nullable=False),  # a delivered text stays until the new one is complete
    Column("owner", Text),  # the process that runs it; null: handed back
    _time("lease_until"),
    _time("created_at"),
    Index("ix_turns_conversation", "conversation_id", "kind", "seq"),
    Index("ix_turns_user", "user_id"),
    Index("ix_turns_lease", "lease_until", "seq"),
)

picture_requests = Table(
    "picture_requests",
    metadata,
    # What was asked for and how it ended. The message of the same id exists only when the picture does.
    Column("id", Text, primary_key=True),
    Column("conversation_id", Text, ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("request_key", Text),
    Column("prompt", Text, nullable=False),  # as it was sent; empty: derived from the conversation
    Column("status", Text, nullable=False),  # running, done, failed
    Column("error_code", Text),
    Column("attempt", Integer, nullable=False),
    _time("created_at"),
    _time("completed_at", nullable=True),
    UniqueConstraint("conversation_id", "request_key"),
    Index("ix_picture_requests_newest", "conversation_id", text("created_at DESC")),
)

media_objects = Table(
    "media_objects",
    metadata,
    Column("key", Text, primary_key=True),
    Column("owner_id", Text, nullable=False),
    Column("kind", Text, nullable=False),  # image, audio
    Column("mime_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("duration_seconds", Integer),
    Column("is_stored", Boolean, nullable=False),  # false while the file is on its way: a crash leaves the row to find
    Column("is_used", Boolean, nullable=False),  # by a message
    _time("created_at"),
    Index("ix_media_objects_owner", "owner_id", "created_at", "key"),
    Index(
        "ix_media_objects_unused",
        "created_at",
        sqlite_where=text("NOT is_used"),
        postgresql_where=text("NOT is_used"),
    ),
)

media_uses = Table(
    "media_uses",
    metadata,
    Column("key", Text, ForeignKey("media_objects.key"), primary_key=True),
    Column("message_id", Text, ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
    Column("conversation_id", Text, nullable=False),
    Index("ix_media_uses_message", "message_id"),
    Index("ix_media_uses_conversation", "conversation_id"),
)

memories = Table(
    "memories",
    metadata,
    Column("conversation_id", Text, ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("source_message_id", Text),
    Column("source_seq", BigInteger, nullable=False),  # of that message: what was said later wins
    Column("confidence", Integer, nullable=False),  # percent
    _time("created_at"),
    _time("updated_at"),
)

forgotten_memories = Table(
    "forgotten_memories",
    metadata,
    # A memory that the user has deleted is not drawn again from what was said until then.
    Column("conversation_id", Text, ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),  # "*": all of them
    Column("through_seq", BigInteger, nullable=False),
)

summaries = Table(
    "summaries",
    metadata,
    # What was said before the context window of a long conversation.
    Column("conversation_id", Text, ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True),
    Column("text", Text, nullable=False),
    Column("through_seq", BigInteger, nullable=False),
    _time("updated_at"),
)

user_settings = Table(
    "user_settings",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("memories_enabled", Boolean, nullable=False),
    Column("locale", Text),
    Column("time_zone", Text),
    _time("updated_at"),
)

audit_events = Table(
    "audit_events",
    metadata,
    # What an operator has to be able to look up: bans, crises, erasures. No message texts.
    Column("id", Text, primary_key=True),
    # influencer.banned, influencer.unbanned, crisis.marked, account.erased, conversation.restored
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),  # the influencer, conversation or user
    Column("reason", Text, nullable=False),
    Column("details", Text, nullable=False),  # JSON
    _time("created_at"),
    Index("ix_audit_events_subject", "subject", "created_at"),
)

usage_events = Table(
    "usage_events",
    metadata,
    Column("id", Text, primary_key=True),  # derived from the turn, attempt and call: recording twice is harmless
    Column("turn_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("influencer_id", Text),
    Column("conversation_id", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("thinking_tokens", Integer, nullable=False),
    Column("pictures", Integer, nullable=False, server_default="0"),  # that were made
    Column("is_estimated", Boolean, nullable=False, server_default=text("false")),  # the vendor did not get to say it
    Column("cost", BigInteger),  # in millionths of a millionth of a US dollar; null: the model has no known price
    Column("first_token_ms", Integer),
    Column("duration_ms", Integer),
    _time("started_at"),
    Index("ix_usage_events_user", "user_id", "started_at"),
)

usage_days = Table(
    "usage_days",
    metadata,
    # What usage_events come to, by whom and by the UTC day on which it was asked for; with every record of usage.
    Column("kind", Text, primary_key=True),  # user, influencer
    Column("subject", Text, primary_key=True),  # of people a hash: what holds a quota outlives an erased account
    Column("day", Integer, primary_key=True),  # since the epoch
    Column("turns", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("thinking_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),  # as in usage_events
    # Held back for what runs: no more than the sum of open_usage, plus what an erased account had used.
    Column("reserved_tokens", BigInteger, nullable=False),
    Column("reserved_cost", BigInteger, nullable=False),
)

open_usage = Table(
    "open_usage",
    metadata,
    # A row is usage that is still to be recorded. Turns have one where there are quotas; what is no turn always.
    Column("key", Text, primary_key=True),  # what the ids in usage_events will begin with
    Column("user_id", Text, nullable=False),
    Column("influencer_id", Text, nullable=False),
    Column("day", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),  # held back in usage_days
    Column("cost", BigInteger, nullable=False),
    Column("holds_influencer", Boolean, nullable=False),  # also in the row of the influencer
    Index("ix_open_usage_user", "user_id"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("payload", Text, nullable=False),  # JSON
    Column("attempts", Integer, nullable=False),
    Column("priority", Integer, nullable=False, server_default="0"),  # higher ones first
    _time("run_at"),  # not before; while leased: when the lease ends
    Column("last_error", Text),
    Column("is_dead", Boolean, nullable=False),  # tried too often: kept for the operator
    _time("created_at"),
    Index("ix_jobs_due", "is_dead", "name", text("priority DESC"), "run_at", "id"),
)

events = Table(
    "events",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("conversation_id", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("data", Text, nullable=False),  # JSON
    _time("created_at"),
    Index("ix_events_conversation", "conversation_id"),
    Index("ix_events_created", "created_at"),
)

principals = Table(
    "principals",
    metadata,
    # What is counted per person. Personas count through counter_deltas, because many people write there at once.
    Column("id", Text, primary_key=True),
    Column("ai_conversations", Integer, nullable=False),
    Column("human_conversations", Integer, nullable=False),
    Column("last_event_seq", BigInteger, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),  # conversations, messages: of the whole service
    Column("value", BigInteger, nullable=False),
)

counter_deltas = Table(
    "counter_deltas",
    metadata,
    # Appended by every turn, folded into `influencers` and `counters` by a job, so that nobody waits for a popular row.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("influencer_id", Text, nullable=False),
    Column("conversations", Integer, nullable=False),
    Column("user_messages", Integer, nullable=False),
    Column("all_messages", Integer, nullable=False),
    Index("ix_counter_deltas_influencer", "influencer_id"),
)

# One row, made by the migration: the name under which backups know this database (docs/decisions/0018).
installation = Table(
    "installation",
    metadata,
    Column("id", Text, primary_key=True),
    _time("created_at"),
)
