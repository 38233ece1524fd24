"""Bodies of the routes that make personas (contract section 11)."""

import math
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, Field
from typing_extensions import TypedDict

from yral_chat.api.deps import Id, Text, cleaned
from yral_chat.core.objects import Influencer
from yral_chat.services.characters.records import (
    MAX_AVATAR_URL,
    MAX_CATEGORY,
    MAX_DESCRIPTION,
    MAX_DISPLAY_NAME,
    MAX_GREETING,
    MAX_INSTRUCTIONS,
    MAX_SUGGESTION,
    MAX_SUGGESTIONS,
    MAX_TRAIT_KEY,
    MAX_TRAIT_VALUE,
    MAX_TRAITS,
    NAME_PATTERN,
)

MAX_IDEA = 1000
MAX_SCENE = 500


def _web_address(value: str) -> str:
    """An address that a browser can load, or nothing at all."""
    if not value:
        return value
    try:
        parts = urlsplit(value)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not value.isprintable() or " " in value:
        raise ValueError("Not an http or https address")
    return value


def _visible(value: str) -> str:
    """Letters, signs or pictures: not only characters that take no place."""
    if not any(character.isprintable() and not character.isspace() for character in value):
        raise ValueError("Nothing of this can be seen")
    return value


def _trait_text(value: Any) -> Any:
    """Texts, numbers and booleans, as text; nothing that is nested."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a number of JSON")
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("A text, a number or a boolean")


def _few(value: Any) -> Any:
    """Without nulls. Counted first: a fault in each of a hundred thousand entries would take half a second to list."""
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if item is not None}
    if len(kept) > MAX_TRAITS:
        raise ValueError(f"At most {MAX_TRAITS} entries")
    return kept


def _without_blanks(value: list[str]) -> list[str]:
    return [item for item in value if item]


def _no_voice(value: str) -> str:
    if value:
        raise ValueError("No voices are configured")
    return value


def _absent_when_blank(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


Name = Annotated[str, Field(pattern=NAME_PATTERN), cleaned]
Instructions = Annotated[str, Field(min_length=1, max_length=MAX_INSTRUCTIONS), cleaned]
Traits = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=MAX_TRAIT_KEY), cleaned],
        Annotated[
            str,
            Field(max_length=MAX_TRAIT_VALUE),
            cleaned,
            BeforeValidator(_trait_text, json_schema_input_type=str | float | bool),
        ],
    ],
    Field(max_length=MAX_TRAITS),
    BeforeValidator(_few),
]
Suggestions = Annotated[
    list[Annotated[str, Field(max_length=MAX_SUGGESTION), cleaned]],
    Field(max_length=MAX_SUGGESTIONS),
    AfterValidator(_without_blanks),
]


class GeneratePrompt(BaseModel):
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_IDEA), cleaned]


class GeneratedPrompt(TypedDict):
    system_instructions: Annotated[str, Field(min_length=1, max_length=MAX_INSTRUCTIONS)]


class InstructionsBody(BaseModel):
    system_instructions: Instructions


class GeneratedMetadata(TypedDict):
    """`reason` is set exactly when `is_valid` is false; then all fields below it are null."""

    is_valid: bool
    is_nsfw: bool
    reason: str | None
    name: Annotated[str, Field(pattern=NAME_PATTERN)] | None
    display_name: str | None
    description: str | None
    initial_greeting: str | None
    suggested_messages: list[str] | None
    personality_traits: dict[str, str] | None
    category: str | None
    avatar_url: str | None
    system_instructions: str | None


class CreateInfluencer(BaseModel):
    """`is_nsfw` and `parent_principal_id` are ignored: they are false, and the caller."""

    name: Name
    display_name: Annotated[str, Field(min_length=1, max_length=MAX_DISPLAY_NAME), cleaned, AfterValidator(_visible)]
    system_instructions: Instructions
    bot_principal_id: Id
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION), cleaned] | None = None
    category: Annotated[str, Field(max_length=MAX_CATEGORY), cleaned] | None = None
    avatar_url: Annotated[str, Field(max_length=MAX_AVATAR_URL), cleaned, AfterValidator(_web_address)] | None = None
    initial_greeting: Annotated[str, Field(max_length=MAX_GREETING), cleaned] | None = None
    suggested_messages: Suggestions | None = None
    personality_traits: Traits | None = None
    voice: Annotated[Text, AfterValidator(_no_voice)] | None = None


class CreatedInfluencer(Influencer):
    """`starter_video_prompt` is null when it was not ready in time, and when the influencer was there already."""

    starter_video_prompt: str | None


class ImportPreview(TypedDict):
    """The body of the create call that an import would be."""

    name: str
    display_name: str
    system_instructions: str
    bot_principal_id: str
    description: str
    category: str
    avatar_url: str
    initial_greeting: str
    suggested_messages: list[str]
    personality_traits: dict[str, str]


class ImportFields(BaseModel):
    """Beside the file; an empty field counts as absent."""

    bot_principal_id: Annotated[Id | None, BeforeValidator(_absent_when_blank)] = None
    name: Annotated[Name | None, BeforeValidator(_absent_when_blank)] = None
    preview: Annotated[bool | None, BeforeValidator(_absent_when_blank)] = None


class VideoPromptBody(BaseModel):
    scene_description: Annotated[
        Annotated[str, Field(max_length=MAX_SCENE), cleaned] | None,
        Field(validation_alias=AliasChoices("scene_description", "topic")),
    ] = None
    reference_image_url: Text | None = None


class GeneratedVideoPrompt(TypedDict):
    """`prompt` repeats `video_prompt`."""

    video_prompt: str
    scene_description: str
    prompt: str


class BanBody(BaseModel):
    reason: Annotated[str, Field(max_length=500), cleaned] | None = None


class BannedInfluencer(Influencer):
    banned: bool
