"""What is refused, what is answered with help, and what must not leave (docs/security.md)."""

from yral_chat.services.moderation.helping import help_text
from yral_chat.services.moderation.judging import Judgement
from yral_chat.services.moderation.leaks import OutputFilter
from yral_chat.services.moderation.quoting import quote_as_data
from yral_chat.services.moderation.rules import Verdict
from yral_chat.services.moderation.service import ModerationService, Refusal

__all__ = ["Judgement", "ModerationService", "OutputFilter", "Refusal", "Verdict", "help_text", "quote_as_data"]
