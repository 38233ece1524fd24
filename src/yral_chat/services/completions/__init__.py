"""Personas as the models of an OpenAI-compatible API (contract section 15)."""

from yral_chat.services.completions.records import Answer, Finish, FinishReason, Line, LineRole, Wish
from yral_chat.services.completions.service import CompletionService

__all__ = ["Answer", "CompletionService", "Finish", "FinishReason", "Line", "LineRole", "Wish"]
