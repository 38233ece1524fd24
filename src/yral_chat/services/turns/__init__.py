"""Turns: a user message and its reply."""

from yral_chat.services.turns.records import Attached, NewMessage, TurnResult
from yral_chat.services.turns.service import TurnService

__all__ = ["Attached", "NewMessage", "TurnResult", "TurnService"]
