"""What a picture shows when nobody says: derived from the conversation. Pure functions, and one call to a model."""

import time
from collections.abc import Sequence

from yral_chat.clients.language_model import (
    Delta,
    LanguageModel,
    ModelCall,
    ModelFailure,
    ModelMessage,
    ModelRequest,
    closing_stream,
)
from yral_chat.db.repositories.influencers import StoredInfluencer
from yral_chat.db.repositories.messages import Said
from yral_chat.services.prompts import persona_of

# The last messages that a scene is derived from, and the longest prompt (contract sections 8.7 and 17).
SCENE_MESSAGES = 10
MAX_PROMPT_CHARACTERS = 1000
# The picture itself takes most of the time that people wait.
SCENE_SECONDS = 10.0

_SYSTEM = """\
You write prompts for an image generator. You are given the last messages of a chat between a person and the character \
named below. Answer with one prompt of at most 60 words for a picture that the character would send now: what is to be \
seen, where, in which light and style. Describe, do not narrate. Answer with the prompt alone.

The character: {name}. {description}"""


async def describe_scene(
    model: LanguageModel,
    influencer: StoredInfluencer,
    history: Sequence[Said],
    calls: list[ModelCall],
    *,
    deadline: float,
    correlation_id: str,
) -> str:
    """A prompt for a picture that fits the conversation; a plain one when no model gives a better one in time."""
    deadline = min(deadline, time.monotonic() + SCENE_SECONDS)
    request = scene_request(influencer, history, deadline=deadline, correlation_id=correlation_id)
    text = ""
    try:
        async with closing_stream(model.stream(request, calls)) as answer:
            async for item in answer:
                text += item.text if isinstance(item, Delta) else ""
    except ModelFailure:
        text = ""
    return text.strip()[:MAX_PROMPT_CHARACTERS] or plain_scene(influencer, history)


def scene_request(
    influencer: StoredInfluencer, history: Sequence[Said], *, deadline: float, correlation_id: str
) -> ModelRequest:
    """What `describe_scene` asks."""
    return ModelRequest(
        system=_SYSTEM.format(name=influencer.display_name, description=influencer.description),
        messages=(ModelMessage("user", _transcript(influencer, history)),),
        persona=persona_of(influencer),
        deadline=deadline,
        temperature=0.4,
        max_output_tokens=200,
        correlation_id=correlation_id,
    )


def plain_scene(influencer: StoredInfluencer, history: Sequence[Said]) -> str:
    """Without a model: the character, and the newest words that fit."""
    last = next((said.content for said in reversed(history) if said.content), "")
    text = f"{influencer.display_name}, {influencer.description or influencer.category}. {last}"
    return text.strip()[:MAX_PROMPT_CHARACTERS]


def _transcript(influencer: StoredInfluencer, history: Sequence[Said]) -> str:
    names = {"user": "Person", "assistant": influencer.display_name}
    lines = [f"{names.get(said.role, 'Person')}: {said.content}" for said in history if said.content]
    return "\n".join(lines) or "The chat has not begun."
