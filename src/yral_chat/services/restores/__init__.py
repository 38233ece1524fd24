"""A conversation, or everything of a person, comes back out of a copy of the database; nobody else is touched."""

from yral_chat.services.restores.records import PutBack, Wanted
from yral_chat.services.restores.service import RestoreService

__all__ = ["PutBack", "RestoreService", "Wanted"]
