"""Fills a database with what a service has after months, by SQL: through the API it would take an hour."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from yral_chat.core.clock import MILLISECOND, now
from yral_chat.db.files import load_driver
from yral_chat.db.migrations import migrate
from yral_chat.db.urls import database_path

# An inbox page holds 20 conversations, each with another persona.
PERSONAS = 25
# Conversations of others hold so many messages each.
ORDINARY = 100


class Stock(msgspec.Struct, frozen=True):
    """What a database holds. Users and conversations are numbered from 0, and named by `user` and `conversation`."""

    users: int
    messages: int  # in each conversation of these users, one conversation with each persona
    others: int = 0  # messages of other people
    longest: int = 0  # messages in the conversation of user 0 with persona 0, if more


def user(number: int) -> str:
    return f"bench-user-{number}"


def persona(number: int) -> str:
    return f"bench-persona-{number}"


def conversation(user_number: int, persona_number: int) -> str:
    return _id("c", user_number * PERSONAS + persona_number)


def message(user_number: int, persona_number: int, seq: int) -> str:
    """The id of a stored message."""
    return _id(f"m{user_number * PERSONAS + persona_number}-", seq)


def _id(kind: str, number: int) -> str:
    return f"{kind}{number:0{36 - len(kind)}d}"  # as long as the ids that the service makes


def fill(url: str, stock: Stock) -> None:
    """Makes the tables of the SQLite database and puts `stock` into them."""
    migrate(url)
    with _connection(url) as connection:
        time = now()
        _add_personas(connection, time)
        _add_people(connection, 0, stock.users, stock.messages, time)
        if stock.longest > stock.messages:
            _lengthen(connection, stock.messages, stock.longest, time)
        if stock.others:
            count = -(-stock.others // (ORDINARY * PERSONAS))
            _add_people(connection, stock.users, stock.users + count, ORDINARY, time)
        _add_totals(connection)


@contextmanager
def _connection(url: str) -> Iterator[sqlite3.Connection]:
    """Fast instead of safe: what is lost by a power cut here is made again."""
    connection: sqlite3.Connection = load_driver().connect(str(database_path(url)), isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=OFF", "cache_size=-262144", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    try:
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _add_personas(connection: sqlite3.Connection, time: int) -> None:
    connection.executemany(
        """INSERT INTO influencers (id, name, name_key, display_name, avatar_url, description, category, status,
             status_rank, is_nsfw, system_instructions, initial_greeting, suggested_messages, created_at, updated_at)
           VALUES (?1, ?2, ?2, ?3, '', 'Somebody to talk to.', 'companion', 'active', 0, 0, ?4, 'Hi!',
             '["Tell me about you", "What is new?", "Help me decide"]', ?5, ?5)""",
        [
            (persona(number), f"bench{number}", f"Bench {number}", "Listen first, then answer. " * 60, time - number)
            for number in range(PERSONAS)
        ],
    )


_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?2)"
_CONVERSATION = "printf('c%035d', n.i)"
_USER = f"'bench-user-' || (n.i / {PERSONAS})"
_PERSONA = f"'bench-persona-' || (n.i % {PERSONAS})"


def _add_people(connection: sqlite3.Connection, first: int, end: int, messages: int, time: int) -> None:
    """Users `first` to `end`, each with a conversation with every persona, each with so many messages."""
    start = time - messages * MILLISECOND
    people = (first * PERSONAS, end * PERSONAS)
    connection.execute(
        f"""{_NUMBERS} INSERT INTO conversations (id, type, user_id, influencer_id, last_seq, last_message_time,
              message_count, last_id, last_seq_shown, last_content, last_role, last_type, last_created_at, last_status,
              last_sender_id, created_at, updated_at)
            SELECT {_CONVERSATION}, 'ai_chat', {_USER}, {_PERSONA}, ?3, ?4, ?3, 'm' || n.i || '-last', ?3,
              'So it is, and so it was.', 'assistant', 'text', ?4, 'read', {_PERSONA}, ?4, ?4 - n.i FROM n""",
        (*people, messages, time),
    )
    for side in (_USER, _PERSONA):
        connection.execute(
            f"""{_NUMBERS} INSERT INTO participants (conversation_id, principal_id, type, is_persona, unread_count,
                  updated_at) SELECT {_CONVERSATION}, {side}, 'ai_chat', {side == _PERSONA:d}, 0, ?3 - n.i FROM n""",
            (*people, time),
        )
    connection.execute(
        f"""{_NUMBERS} INSERT INTO principals (id, ai_conversations, human_conversations, last_event_seq)
            SELECT 'bench-user-' || n.i, {PERSONAS}, 0, 0 FROM n""",
        (first, end),
    )
    _add_messages(connection, *people, 1, messages, start)


def _lengthen(connection: sqlite3.Connection, before: int, longest: int, time: int) -> None:
    _add_messages(connection, 0, 1, before + 1, longest, time)
    connection.execute(
        "UPDATE conversations SET last_seq = ?1, message_count = ?1, last_seq_shown = ?1, last_message_time = ?2"
        " WHERE id = ?3",
        (longest, time + longest * MILLISECOND, conversation(0, 0)),
    )


def _add_messages(
    connection: sqlite3.Connection, first: int, end: int, first_seq: int, last_seq: int, start: int
) -> None:
    """Messages `first_seq` to `last_seq` of the conversations `first` to `end`, user and persona taking turns."""
    connection.execute(
        f"""{_NUMBERS}, s(seq) AS (SELECT ?3 UNION ALL SELECT seq + 1 FROM s WHERE seq < ?4)
            INSERT INTO messages (id, conversation_id, seq, role, origin, message_type, content, status, is_listed,
              sender_id, body_hash, reply_to, attempt, last_attempt, token_count, is_handed_over, created_at,
              completed_at)
            SELECT 'm' || n.i || '-' || printf('%0' || (34 - length(n.i)) || 'd', seq), {_CONVERSATION}, seq,
              iif(seq % 2, 'user', 'assistant'), iif(seq % 2, 'user', 'model'), 'text',
              'Well, that depends. What would you like to do with the rest of the day?', 'read', 1,
              iif(seq % 2, {_USER}, {_PERSONA}), iif(seq % 2, 'none', NULL),
              iif(seq % 2, NULL, 'm' || n.i || '-' || printf('%0' || (34 - length(n.i)) || 'd', seq - 1)), 1, 1,
              iif(seq % 2, NULL, 15), 1, ?5 + seq * {MILLISECOND}, ?5 + seq * {MILLISECOND}
            FROM n, s ORDER BY n.i, seq""",
        (first, end, first_seq, last_seq, start),
    )


def _add_totals(connection: sqlite3.Connection) -> None:
    for name in ("conversations", "messages"):
        connection.execute(f"INSERT INTO counters (name, value) SELECT ?, count(*) FROM {name}", (name,))
