"""Facts that people tell about themselves, remembered per conversation."""

from yral_chat.services.memories.service import MemoryService

__all__ = ["MemoryService"]
