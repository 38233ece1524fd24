"""A healthy database of a given size, as a year of many conversations leaves it: for what reads all of a database."""

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yral_chat.core.clock import MILLISECOND, now
from yral_chat.db.files import load_driver
from yral_chat.db.migrations import migrate

PERSONAS = 50
MESSAGES = 200  # in each conversation; half of them are replies
BYTES_PER_MESSAGE = 1000  # of the file, with everything around it
WORDS = ("I", "you", "we", "always", "maybe", "because", "today", "garden", "letter", "music", "river", "quiet")

_MESSAGES = """INSERT INTO messages (id, conversation_id, seq, role, origin, message_type, content, status, is_listed,
  sender_id, client_message_id, body_hash, reply_to, attempt, last_attempt, provider, model, token_count,
  is_handed_over, created_at, completed_at)
  VALUES (?, ?, ?, ?, ?, 'text', ?, 'read', 1, ?, ?, ?, ?, 1, 1, ?, ?, ?, 1, ?, ?)"""
_CONVERSATIONS = """INSERT INTO conversations (id, type, user_id, influencer_id, last_seq, last_message_time,
  message_count, last_id, last_seq_shown, last_content, last_role, last_type, last_created_at, last_status,
  last_sender_id, created_at, updated_at)
  SELECT conversation_id, 'ai_chat', ?1, sender_id, seq, created_at, seq, id, seq, substr(content, 1, 1000), role,
    message_type, created_at, status, sender_id, ?2, created_at
  FROM messages WHERE conversation_id = ?3 ORDER BY seq DESC LIMIT 1"""
_PARTICIPANTS = """INSERT INTO participants (conversation_id, principal_id, type, is_persona, unread_count, updated_at)
  SELECT id, CASE s.is_persona WHEN 1 THEN influencer_id ELSE user_id END, type, s.is_persona, 0, updated_at
  FROM conversations, (SELECT 0 AS is_persona UNION ALL SELECT 1) AS s"""
_TOTALS = (
    "INSERT INTO principals SELECT user_id, count(*), 0, 0 FROM conversations GROUP BY user_id",
    "INSERT INTO counters SELECT 'conversations', count(*) FROM conversations",
    "INSERT INTO counters SELECT 'messages', count(*) FROM messages",
    """UPDATE influencers SET
      conversation_count = (SELECT count(*) FROM conversations WHERE influencer_id = influencers.id),
      message_count = (SELECT coalesce(sum(c.message_count), 0) / 2 FROM conversations AS c
                       WHERE c.influencer_id = influencers.id)""",
)


def fill(path: Path, size: int) -> None:
    """Makes a database of about `size` bytes at `path`."""
    migrate(f"sqlite:///{path}")
    connection: sqlite3.Connection = load_driver().connect(str(path), isolation_level=None)
    try:
        # Fast instead of safe: what is lost by a power cut here is made again.
        for pragma in ("journal_mode=WAL", "synchronous=OFF", "cache_size=-262144", "foreign_keys=OFF"):
            connection.execute(f"PRAGMA {pragma}")
        conversations = max(1, size // BYTES_PER_MESSAGE // MESSAGES)
        connection.execute("BEGIN")
        _add_personas(connection)
        connection.executemany(_MESSAGES, _messages(conversations))
        start = now()
        rows = [(_user(number), start, _conversation(number)) for number in range(conversations)]
        connection.executemany(_CONVERSATIONS, rows)
        connection.execute(_PARTICIPANTS)
        for statement in _TOTALS:
            connection.execute(statement)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _add_personas(connection: sqlite3.Connection) -> None:
    connection.executemany(
        """INSERT INTO influencers (id, name, name_key, display_name, status, status_rank, is_nsfw, system_instructions,
             created_at, updated_at) VALUES (?1, ?1, ?1, ?1, 'active', 0, 0, 'Listen first.', ?2, ?2)""",
        [(_persona(number), now()) for number in range(PERSONAS)],
    )


def _messages(conversations: int) -> Iterator[tuple[Any, ...]]:
    """In the order of time: everybody says one thing, then everybody the next."""
    chance = random.Random(6)
    start = now() - conversations * MESSAGES * MILLISECOND
    for seq in range(1, MESSAGES + 1):
        is_user = bool(seq % 2)
        for number in range(conversations):
            time = start + (seq * conversations + number) * MILLISECOND
            text = " ".join(chance.choices(WORDS, k=chance.randrange(10, 90)))
            said = (_user(number), f"key-{seq}", f"{chance.getrandbits(256):064x}", None, None, None, None)
            answered = (_persona(number), None, None, _message(number, seq - 1), "gemini", "gemini-2.5-flash", 90)
            yield (
                _message(number, seq),
                _conversation(number),
                seq,
                *(("user", "user") if is_user else ("assistant", "model")),
                text,
                *(said if is_user else answered),
                time,
                time,
            )


def _message(number: int, seq: int) -> str:
    """As long as an id of the service, and as those in the order of time."""
    return f"{seq:08x}-0000-7000-8000-{number:012x}"


def _conversation(number: int) -> str:
    return f"{number:08x}-0000-7000-9000-000000000000"


def _user(number: int) -> str:
    return f"somebody-with-a-long-principal-id-{number // 3:08d}"


def _persona(number: int) -> str:
    return f"persona-{number % PERSONAS}"
