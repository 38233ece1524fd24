"""Reads what models answer about personas: what fits is taken, what is too long is cut, what is missing is filled in.

Each reader raises ValueError with a sentence for the model where nothing can be made of the answer.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from yral_chat.services.characters import templates
from yral_chat.services.characters.records import (
    MAX_CATEGORY,
    MAX_DESCRIPTION,
    MAX_DISPLAY_NAME,
    MAX_GREETING,
    MAX_SUGGESTION,
    MAX_SUGGESTIONS,
    MAX_TRAIT_KEY,
    MAX_TRAIT_VALUE,
    MAX_TRAITS,
    Metadata,
    Opening,
    VideoPrompt,
)

MAX_REASON = 300
MAX_VIDEO_PROMPT = 2000
MAX_SCENE = 500
_YES_OR_NO = {True: True, False: False, "true": True, "false": False, "yes": True, "no": False}


class Described(NamedTuple):
    metadata: Metadata
    look: str


def read_metadata(answer: Mapping[str, Any]) -> Described:
    """`name` is what the model wishes, not checked yet."""
    is_valid = _truth(answer.get("is_valid"))
    if is_valid is None:
        raise ValueError("The field is_valid must be true or false.")
    is_nsfw = bool(_truth(answer.get("is_nsfw")))
    if not is_valid:
        return Described(refused(text_of(answer.get("reason"), MAX_REASON), is_nsfw=is_nsfw), "")
    name = text_of(answer.get("name"), MAX_DISPLAY_NAME)
    display_name = text_of(answer.get("display_name"), MAX_DISPLAY_NAME) or name
    if not display_name:
        raise ValueError("The field display_name is missing.")
    metadata = Metadata(
        is_valid=True,
        is_nsfw=is_nsfw,
        name=name or display_name,
        display_name=display_name,
        description=text_of(answer.get("description"), MAX_DESCRIPTION),
        category=text_of(answer.get("category"), MAX_CATEGORY),
        initial_greeting=text_of(answer.get("initial_greeting"), MAX_GREETING) or templates.greeting(display_name),
        suggested_messages=texts_of(answer.get("suggested_messages")) or templates.SUGGESTIONS,
        personality_traits=traits_of(answer.get("personality_traits")),
    )
    return Described(metadata, text_of(answer.get("look"), MAX_SCENE))


def refused(reason: str, *, is_nsfw: bool = False) -> Metadata:
    return Metadata(is_valid=False, is_nsfw=is_nsfw, reason=reason or "This concept cannot be used here.")


def read_opening(answer: Mapping[str, Any]) -> Opening:
    greeting = text_of(answer.get("initial_greeting"), MAX_GREETING)
    if not greeting:
        raise ValueError("The field initial_greeting is missing.")
    return Opening(
        greeting,
        texts_of(answer.get("suggested_messages")) or templates.SUGGESTIONS,
        text_of(answer.get("starter_video_prompt"), MAX_VIDEO_PROMPT) or None,
    )


def read_video_prompt(answer: Mapping[str, Any]) -> VideoPrompt:
    prompt = text_of(answer.get("video_prompt"), MAX_VIDEO_PROMPT)
    if not prompt:
        raise ValueError("The field video_prompt is missing.")
    return VideoPrompt(prompt, text_of(answer.get("scene_description"), MAX_SCENE))


def text_of(value: Any, limit: int) -> str:
    """A text that can be stored, at most `limit` characters; "" for what is none."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return ""
    plain = str(value).replace("\0", "").encode("utf-8", "ignore").decode()
    return plain.strip()[:limit].strip()


def texts_of(value: Any) -> tuple[str, ...]:
    """Suggested messages, each once."""
    items = value if isinstance(value, list) else []
    texts = (text_of(item, MAX_SUGGESTION) for item in items)
    return tuple(dict.fromkeys(text for text in texts if text))[:MAX_SUGGESTIONS]


def traits_of(value: Any) -> dict[str, str]:
    """From a list of pairs, or from an object; what is nested deeper is left out."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = [(item.get("trait"), item.get("value")) for item in value if isinstance(item, dict)]
    found = ((text_of(key, MAX_TRAIT_KEY), _plain(item)) for key, item in pairs)
    return dict([(key, text) for key, text in found if key and text][:MAX_TRAITS])


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else text_of(value, MAX_TRAIT_VALUE)


def _truth(value: Any) -> bool | None:
    return _YES_OR_NO.get(value.strip().lower() if isinstance(value, str) else value) if _is_plain(value) else None


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | str)
