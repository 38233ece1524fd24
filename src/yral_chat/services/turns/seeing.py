"""The images that a model is shown."""

import asyncio
import time
from collections.abc import Sequence

from loguru import logger

from yral_chat.clients.language_model import Picture
from yral_chat.core.errors import AppError
from yral_chat.services.media import MediaService

# What is not there by then is left out: words are worth more than a picture that is late.
LOOK_SECONDS = 10.0


class Seeing:
    """Loads what the model is to be shown; a file that cannot be had never holds up a reply."""

    def __init__(self, media: MediaService) -> None:
        self._media = media

    async def look(self, references: Sequence[str], deadline: float) -> dict[str, Picture]:
        """The small copies of these images; those that cannot be read are missing."""
        seconds = min(LOOK_SECONDS, deadline - time.monotonic())
        distinct = list(dict.fromkeys(references))
        found = await asyncio.gather(*(self._look_at(reference, seconds) for reference in distinct))
        return {reference: picture for reference, picture in zip(distinct, found, strict=True) if picture is not None}

    async def _look_at(self, reference: str, seconds: float) -> Picture | None:
        try:
            async with asyncio.timeout(seconds):
                return Picture(*await self._media.small_copy(reference))
        except (AppError, TimeoutError) as error:
            logger.warning("turn.image_not_shown", error=type(error).__name__)
            return None
