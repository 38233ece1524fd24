"""Bodies of the v3 routes."""

from typing_extensions import TypedDict

from yral_chat.core.objects import ConversationSummary


class UnifiedInbox(TypedDict):
    conversations: list[ConversationSummary]
    total: int
    limit: int
    offset: int
    has_more: bool
    unread_total: int
