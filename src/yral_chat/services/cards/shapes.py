"""What a card's data consists of, and how a value of any kind becomes one of the right kind.

Both versions are described as TypeScript types: https://github.com/malfoyslastname/character-card-spec-v2 and
https://github.com/kwaroran/character-card-spec-v3 (SPEC_V3.md). Fields that neither knows are kept as they are.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

Json = dict[str, Any]
Shape = Callable[[Any], Any]
# Of a file, and of a text that was compressed in it (contract section 17).
MAX_CARD_BYTES = 10 * 1024 * 1024
MAX_DEPTH = 60
# A value of JSON takes up to some hundred bytes as an object of ours, and the parser stops everything else while it
# works: 10 MB of empty lists are half a gigabyte and two seconds. The largest lorebooks have a tenth of this.
MAX_VALUES = 500_000


class Unusable(ValueError):
    """The value cannot become one of the right kind."""


def text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unusable
    return str(value)


def number(value: Any) -> int | float:
    if isinstance(value, str):
        try:
            value = float(value) if "." in value else int(value)
        except ValueError as error:
            raise Unusable from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise Unusable
    return value


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float, as JSON may have it
        return False


def truth(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise Unusable


def number_or_text(value: Any) -> int | float | str:
    return value if isinstance(value, str) else number(value)


def position(value: Any) -> str:
    if value not in ("before_char", "after_char"):
        raise Unusable
    return str(value)


def anything(value: Any) -> Json:
    """An object with keys of anybody's."""
    if not isinstance(value, dict):
        raise Unusable
    return value


def texts(value: Any) -> list[str]:
    """Also from one text, as some programs write where there is one item."""
    items = value if isinstance(value, list) else [value] if isinstance(value, str) and value else []
    return [item for item in map(_text_or_none, items) if item is not None]


def texts_by_key(value: Any) -> dict[str, str]:
    found = {key: _text_or_none(item) for key, item in anything(value).items()}
    return {key: item for key, item in found.items() if item is not None}


def list_of(shape: Shape) -> Shape:
    """Of what fits; the rest is left out."""

    def convert(value: Any) -> list[Any]:
        items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        return [converted for item in items if (converted := _or_none(shape, item)) is not None]

    return convert


def record(required: Mapping[str, tuple[Shape, Any]], optional: Mapping[str, Shape]) -> Shape:
    """An object: `required` fields have a default, `optional` ones are left out when they do not fit."""

    def convert(value: Any) -> Json:
        if not isinstance(value, dict):
            raise Unusable
        rest = {key: item for key, item in value.items() if key not in required and key not in optional}
        made = {key: _or(shape, value.get(key), default) for key, (shape, default) in required.items()}
        found = {key: _or_none(shape, value[key]) for key, shape in optional.items() if value.get(key) is not None}
        return made | {key: item for key, item in found.items() if item is not None} | rest

    return convert


def _or(shape: Shape, value: Any, default: Any) -> Any:
    converted = _or_none(shape, value)
    return type(default)(default) if converted is None else converted


def _or_none(shape: Shape, value: Any) -> Any:
    try:
        return shape(value)
    except Unusable:
        return None


def _text_or_none(value: Any) -> str | None:
    found: str | None = _or_none(text, value)
    return found


# In version 3 only.
ENTRY_V3 = ("use_regex",)
DATA_V3 = (
    "assets",
    "nickname",
    "creator_notes_multilingual",
    "source",
    "group_only_greetings",
    "creation_date",
    "modification_date",
)

_entry = record(
    {
        "keys": (texts, []),
        "content": (text, ""),
        "extensions": (anything, {}),
        "enabled": (truth, True),
        "insertion_order": (number, 0),
        "use_regex": (truth, False),
    },
    {
        "case_sensitive": truth,
        "constant": truth,
        "name": text,
        "priority": number,
        "id": number_or_text,
        "comment": text,
        "selective": truth,
        "secondary_keys": texts,
        "position": position,
    },
)
_book = record(
    {"extensions": (anything, {}), "entries": (list_of(_entry), [])},
    {
        "name": text,
        "description": text,
        "scan_depth": number,
        "token_budget": number,
        "recursive_scanning": truth,
    },
)
_asset = record({"type": (text, ""), "uri": (text, ""), "name": (text, ""), "ext": (text, "")}, {})

# The data of a card of version 3, which has everything that version 2 has.
card_data = record(
    {
        "name": (text, ""),
        "description": (text, ""),
        "personality": (text, ""),
        "scenario": (text, ""),
        "first_mes": (text, ""),
        "mes_example": (text, ""),
        "creator_notes": (text, ""),
        "system_prompt": (text, ""),
        "post_history_instructions": (text, ""),
        "alternate_greetings": (texts, []),
        "tags": (texts, []),
        "creator": (text, ""),
        "character_version": (text, ""),
        "extensions": (anything, {}),
        "group_only_greetings": (texts, []),
    },
    {
        "character_book": _book,
        "assets": list_of(_asset),
        "nickname": text,
        "creator_notes_multilingual": texts_by_key,
        "source": texts,
        "creation_date": number,
        "modification_date": number,
    },
)


def storable(value: Any, depth: int = 0) -> Any:
    """JSON that any database and any reader takes. Raises ValueError for what is nested deeper than MAX_DEPTH."""
    if depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "ignore").decode()
    if isinstance(value, dict):
        return {storable(key): storable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [storable(item, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
