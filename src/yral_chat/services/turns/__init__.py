"""Turns: a user message and its reply."""

from yral_chat.services.turns.engine import TurnEngine
from yral_chat.services.turns.records import Attached, NewMessage
from yral_chat.services.turns.results import TurnResult
from yral_chat.services.turns.service import TurnService

__all__ = ["Attached", "NewMessage", "TurnEngine", "TurnResult", "TurnService"]
