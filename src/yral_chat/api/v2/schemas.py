"""Bodies of the v2 routes."""

from typing_extensions import TypedDict

from yral_chat.core.objects import ConversationSummary


class InboxList(TypedDict):
    conversations: list[ConversationSummary]
    total: int
    limit: int
    offset: int
    has_more: bool
