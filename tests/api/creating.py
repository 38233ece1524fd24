"""What tests say again and again about making personas."""

import json
import uuid
from typing import Any

from tests.client import Api, Json

INFLUENCERS = "/api/v1/influencers"
INSTRUCTIONS = "You are Asha, a patient yoga teacher who loves the sea."


def persona(**fields: Any) -> Json:
    """The body of a create call, of a persona that nobody has made."""
    number = uuid.uuid4().hex
    return {
        "name": f"n{number[:12]}",
        "display_name": "Asha",
        "system_instructions": INSTRUCTIONS,
        "bot_principal_id": f"bot-{number}",
        "initial_greeting": "Hello!",
        "suggested_messages": ["Hi"],
        **fields,
    }


async def created(api: Api, **fields: Any) -> Json:
    response = await api.post(f"{INFLUENCERS}/create", persona(**fields))
    assert response.status_code == 201, response.text
    made: Json = response.json()
    return made


def saying(value: Any) -> Json:
    """The behaviour of a model that answers with this: a text as it is, anything else as JSON."""
    return {"pieces": [value if isinstance(value, str) else json.dumps(value)]}


METADATA: Json = {
    "is_valid": True,
    "reason": None,
    "is_nsfw": False,
    "name": "AshaYoga",
    "display_name": "Asha",
    "description": "A yoga teacher by the sea.",
    "category": "Fitness",
    "initial_greeting": "Namaste!",
    "suggested_messages": ["How do I begin?", "My back hurts."],
    "personality_traits": [{"trait": "patience", "value": "endless"}],
    "look": "A woman of forty on a beach.",
}
OPENING: Json = {
    "initial_greeting": "Namaste! Shall we breathe?",
    "suggested_messages": ["Yes", "What is yoga?"],
    "starter_video_prompt": "Asha on the beach at dawn.",
}
