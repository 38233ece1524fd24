"""Typed identifiers. New ones are UUIDv7, so that they sort by the time of their making."""

import hashlib
from typing import NewType

import uuid_utils

ConversationId = NewType("ConversationId", str)
MessageId = NewType("MessageId", str)
InfluencerId = NewType("InfluencerId", str)
UserId = NewType("UserId", str)


def new_id() -> str:
    """A UUIDv7 as text, 36 characters (RFC 9562, section 5.7)."""
    return str(uuid_utils.uuid7())


def made_at(id_: str) -> int | None:
    """When `new_id` has made it, in microseconds since the epoch; None: it is none of those."""
    try:
        found = uuid_utils.UUID(id_)
    except ValueError:
        return None
    return found.timestamp * 1000 if found.version == 7 else None


def pseudonym_of(user_id: str) -> str:
    """What stands for a person where it has to be known that it was the same: who knows the id finds it."""
    return f"sha256:{hashlib.sha256(user_id.encode('utf-8', 'surrogatepass')).hexdigest()}"
