"""Cards and personas: what of one is what of the other."""

import json
from typing import Any

import msgspec

from yral_chat.core.errors import Invalid
from yral_chat.db.repositories.influencers import StoredInfluencer
from yral_chat.services.cards.shapes import DATA_V3, ENTRY_V3, Json, card_data
from yral_chat.services.characters.answers import text_of, texts_of, traits_of
from yral_chat.services.characters.records import (
    MAX_CATEGORY,
    MAX_DESCRIPTION,
    MAX_DISPLAY_NAME,
    MAX_GREETING,
    MAX_INSTRUCTIONS,
)

# What we keep beside the fields of a card: the specifications leave `extensions` to programs, under names of their own.
OWN = "yral_chat"
_SECTIONS = (
    ("system_prompt", ""),
    ("description", ""),
    ("personality", "# Personality\n"),
    ("scenario", "# Scenario\n"),
    ("mes_example", "# Examples of how {{char}} talks\n"),
)
# For a card that has a name and nothing else to say.
_NO_INSTRUCTIONS = "{{char}} is somebody to chat with."


class CardTexts(msgspec.Struct, frozen=True):
    """A persona as its card describes it."""

    display_name: str
    system_instructions: str
    description: str
    category: str
    initial_greeting: str
    suggested_messages: tuple[str, ...]
    personality_traits: dict[str, str]


def texts_from(card: Json) -> CardTexts:
    """Raises Invalid when the instructions are too long together."""
    instructions = _instructions(card)
    if len(instructions) > MAX_INSTRUCTIONS:
        message = f"system_prompt, description, personality, scenario and mes_example: at most {MAX_INSTRUCTIONS}"
        raise Invalid.field(["body", "file"], f"{message} characters together", "string_too_long")
    own = card["extensions"].get(OWN)
    own = own if isinstance(own, dict) else {}
    return CardTexts(
        display_name=text_of(card["name"], MAX_DISPLAY_NAME),
        system_instructions=instructions,
        description=text_of(card["creator_notes"], MAX_DESCRIPTION),
        category=_category(card),
        initial_greeting=text_of(card["first_mes"], MAX_GREETING),
        suggested_messages=texts_of(own.get("suggested_messages")),
        personality_traits=traits_of(own.get("personality_traits")),
    )


def card_from(influencer: StoredInfluencer, imported: Json | None) -> Json:
    """Data of version 3. What was imported stays as it was, as long as the persona still says the same."""
    card: Json = card_data(imported or {})
    if influencer.system_instructions != _instructions(card):
        card |= {field: "" for field, _ in _SECTIONS}
        card["description"] = influencer.system_instructions
    if influencer.display_name != text_of(card["name"], MAX_DISPLAY_NAME):
        card["name"] = influencer.display_name
    if influencer.initial_greeting != text_of(card["first_mes"], MAX_GREETING):
        card["first_mes"] = influencer.initial_greeting
    if influencer.description != text_of(card["creator_notes"], MAX_DESCRIPTION):
        card["creator_notes"] = influencer.description
    if influencer.category != _category(card):
        card["tags"] = [influencer.category, *card["tags"][1:]]
    card["extensions"] = card["extensions"] | {OWN: _own(influencer)}
    return card


def as_v3(card: Json) -> Json:
    return {"spec": "chara_card_v3", "spec_version": "3.0", "data": card}


def as_v2(card: Json) -> Json:
    """Without what only version 3 knows."""
    data = {key: value for key, value in card.items() if key not in DATA_V3}
    if "character_book" in data:
        book = data["character_book"]
        data["character_book"] = book | {"entries": [_entry_v2(entry) for entry in book["entries"]]}
    return {"spec": "chara_card_v2", "spec_version": "2.0", "data": data}


def to_json(card: Json) -> bytes:
    return json.dumps(card, ensure_ascii=False, allow_nan=False).encode()


def _entry_v2(entry: Json) -> Json:
    kept = {key: value for key, value in entry.items() if key not in ENTRY_V3}
    if isinstance(kept.get("id"), str):
        del kept["id"]  # a number there
    return kept


def _instructions(card: Json) -> str:
    """A card that puts everything into one field says no more than that field."""
    found = [(heading, card[field].strip()) for field, heading in _SECTIONS if card[field].strip()]
    if len(found) == 1:
        return str(found[0][1])
    return "\n\n".join(f"{heading}{body}" for heading, body in found) or _NO_INSTRUCTIONS


def _category(card: Json) -> str:
    return text_of(card["tags"][0], MAX_CATEGORY) if card["tags"] else ""


def _own(influencer: StoredInfluencer) -> dict[str, Any]:
    return {
        "suggested_messages": msgspec.json.decode(influencer.suggested_messages),
        "personality_traits": msgspec.json.decode(influencer.personality_traits),
    }
