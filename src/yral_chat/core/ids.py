"""Typed identifiers. New ones are UUIDv7, so that they sort by the time of their making."""

from typing import NewType

import uuid_utils

ConversationId = NewType("ConversationId", str)
MessageId = NewType("MessageId", str)
InfluencerId = NewType("InfluencerId", str)
UserId = NewType("UserId", str)


def new_id() -> str:
    """A UUIDv7 as text, 36 characters (RFC 9562, section 5.7)."""
    return str(uuid_utils.uuid7())
