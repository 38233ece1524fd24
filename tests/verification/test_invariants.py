"""Every invariant is broken once in a real database, and named; a healthy one has no faults."""

from typing import NamedTuple

import pytest
from sqlalchemy import Connection, text

from yral_chat.db.verification import Fault, examine, find_faults
from yral_chat.db.verification.invariants import INVARIANTS

OF_ANA = "SELECT id FROM conversations WHERE user_id = 'ana' AND type = 'ai_chat' AND message_count > 3"
WITH_BEN = "SELECT id FROM conversations WHERE user_id = 'ana' AND other_user_id = 'ben'"
BY_BEN = f"conversation_id IN ({WITH_BEN}) AND sender_id = 'ben'"
LOST = """INSERT INTO messages (id, conversation_id, seq, role, origin, message_type, content, status, is_listed,
  attempt, last_attempt, is_handed_over, created_at, completed_at)
  SELECT 'lost', 'nowhere', seq, role, origin, message_type, content, status, is_listed,
  attempt, last_attempt, is_handed_over, created_at, completed_at FROM messages WHERE role = 'user' LIMIT 1"""


class Damage(NamedTuple):
    """`and_` is what cannot but be found with it."""

    sql: str
    and_: frozenset[str] = frozenset()


DAMAGES = {
    "messages.conversation": Damage(LOST, frozenset({"references.messages"})),
    "messages.seq_unique": Damage(
        f"UPDATE messages SET seq = (SELECT max(seq) FROM messages WHERE {BY_BEN})"
        f" WHERE {BY_BEN} AND seq = (SELECT max(seq) - 1 FROM messages WHERE {BY_BEN})",
        frozenset({"messages.seq_rising", "conversations.last_message"}),  # of the two, either may be the last
    ),
    "messages.seq_rising": Damage(
        f"UPDATE messages SET created_at = created_at - 3600000000 WHERE {BY_BEN}"
        f" AND seq = (SELECT max(seq) - 1 FROM messages WHERE {BY_BEN})"
    ),
    "messages.last_seq": Damage(f"UPDATE conversations SET last_seq = last_seq - 1 WHERE id IN ({WITH_BEN})"),
    "messages.key_unique": Damage(f"UPDATE messages SET client_message_id = 'twice' WHERE {BY_BEN}"),
    "messages.state": Damage(
        "UPDATE messages SET error_code = 'TRANSIENT'"
        " WHERE id = (SELECT min(id) FROM messages WHERE status = 'delivered')"
    ),
    "messages.one_reply": Damage(
        "UPDATE messages SET reply_to = NULL WHERE id = (SELECT min(id) FROM messages WHERE status = 'read'"
        " AND origin = 'model')"
    ),
    "messages.reply_to": Damage(
        f"UPDATE messages SET reply_to = (SELECT min(id) FROM messages WHERE {BY_BEN})"
        " WHERE id = (SELECT min(id) FROM messages WHERE origin = 'image')"
    ),
    "messages.pending": Damage("DELETE FROM turns"),
    "turns.reply": Damage("UPDATE turns SET user_message_id = 'nobody said it'"),
    "turns.picture": Damage(
        """INSERT INTO turns SELECT 'lost', conversation_id, user_id, '', 'picture', seq, 1, 0, is_regeneration,
             is_replacement, owner, lease_until, created_at FROM turns"""
    ),
    "picture_requests.done": Damage("UPDATE picture_requests SET status = 'failed'"),
    "conversations.kind": Damage(f"UPDATE conversations SET pair = 'none' WHERE id IN ({OF_ANA})"),
    "conversations.unique": Damage("UPDATE conversations SET pair = 'same' WHERE user_id = 'ana' AND pair IS NOT NULL"),
    "conversations.message_count": Damage(
        f"UPDATE conversations SET message_count = message_count + 1 WHERE id IN ({OF_ANA})",
        frozenset({"counters.messages"}),
    ),
    "conversations.last_message": Damage(f"UPDATE conversations SET last_content = 'Bye' WHERE id IN ({OF_ANA})"),
    "memories.seq": Damage("UPDATE memories SET source_seq = 1000"),
    "media_uses.message": Damage("UPDATE media_objects SET is_used = false"),
    "participants.sides": Damage(f"DELETE FROM participants WHERE is_persona AND conversation_id IN ({OF_ANA})"),
    "participants.updated_at": Damage(
        f"UPDATE participants SET updated_at = updated_at + 1 WHERE is_persona AND conversation_id IN ({OF_ANA})"
    ),
    "participants.is_hidden": Damage(
        f"UPDATE participants SET is_hidden = true WHERE is_persona AND conversation_id IN ({OF_ANA})"
    ),
    "participants.unread_count": Damage(
        "UPDATE participants SET unread_count = unread_count + 1 WHERE principal_id = 'ana'"
        f" AND conversation_id IN ({WITH_BEN})"
    ),
    "participants.cleared_count": Damage(
        "UPDATE participants SET cleared_count = cleared_count - 1 WHERE principal_id = 'ana'"
        f" AND conversation_id IN ({WITH_BEN})"
    ),
    "counters.conversations": Damage("UPDATE counters SET value = value + 1 WHERE name = 'conversations'"),
    "counters.messages": Damage("UPDATE counters SET value = value - 1 WHERE name = 'messages'"),
    "influencers.counts": Damage("UPDATE influencers SET message_count = 0"),
    "principals.counts": Damage("DELETE FROM principals WHERE id = 'cas'", frozenset({"principals.last_event_seq"})),
    "principals.last_event_seq": Damage("UPDATE principals SET last_event_seq = 1 WHERE id = 'ana'"),
    "usage_days.events": Damage(
        "UPDATE usage_days SET prompt_tokens = prompt_tokens + 1000000 WHERE kind = 'influencer'"
    ),
    "usage_days.reserved": Damage("DELETE FROM open_usage"),
    "influencers.status": Damage("UPDATE influencers SET status_rank = 2 WHERE status = 'active'"),
    "influencers.version": Damage("UPDATE influencer_versions SET system_instructions = 'Neither.' WHERE n > 1"),
    "installation.one": Damage("INSERT INTO installation VALUES ('another', 0)"),
    "references.memories": Damage(
        "INSERT INTO memories SELECT 'nowhere', key, value, NULL, 0, confidence, created_at, updated_at FROM memories",
        frozenset({"memories.seq"}),
    ),
}  # fmt: skip


def names(faults: list[Fault]) -> set[str]:
    return {fault.check for fault in faults}


def test_a_database_that_was_left_in_the_middle_of_a_reply_has_no_faults(lived: str) -> None:
    found = examine(lived)
    assert found.faults == []
    assert found.tables["messages"].rows > 10
    assert found.tables["turns"].rows == 1
    assert found.tables["open_usage"].rows == 1


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_broken_is_named(name: str, defenceless: Connection) -> None:
    assert defenceless.execute(text(DAMAGES[name].sql)).rowcount > 0
    faults = find_faults(defenceless)
    assert name in names(faults), faults
    assert names(faults) <= {name, *DAMAGES[name].and_}
    (fault,) = [fault for fault in faults if fault.check == name]
    assert fault.count >= 1
    assert fault.example


def test_every_invariant_is_broken_once() -> None:
    assert {invariant.name for invariant in INVARIANTS} <= set(DAMAGES)
    assert len({invariant.name for invariant in INVARIANTS}) == len(INVARIANTS)
