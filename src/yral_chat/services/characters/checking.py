"""What personas may be made of: the rules of moderation, asked beside the event loop."""

import asyncio
from collections.abc import Mapping

from yral_chat.core.errors import ContentBlocked
from yral_chat.services.moderation import ModerationService


async def objection_to(moderation: ModerationService, texts: Mapping[str, str]) -> str | None:
    """Why a persona with these texts (by field) is refused, in a sentence for its owner; None: nothing speaks
    against it."""
    refusal = await asyncio.to_thread(moderation.check_persona, texts)
    return None if refusal is None else refusal.reason


async def refuse_forbidden(moderation: ModerationService, texts: Mapping[str, str]) -> None:
    """Raises ContentBlocked that names the field."""
    refusal = await asyncio.to_thread(moderation.check_persona, texts)
    if refusal is not None:
        raise ContentBlocked(refusal.reason, details={"field": refusal.field})
