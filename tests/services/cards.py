"""Cards, as other programs write them, and what the specifications say of ours."""

import base64
import json
import zlib
from typing import Any

from jsonschema import Draft202012Validator

from tests.client import Json
from tests.services.media.pictures import png_chunk

TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
NUMBER = {"type": "number"}
BOOLEAN = {"type": "boolean"}
EXTENSIONS = {"type": "object"}

V2_TEXTS = (
    "name", "description", "personality", "scenario", "first_mes", "mes_example", "creator_notes", "system_prompt",
    "post_history_instructions", "creator", "character_version",
)  # fmt: skip
# https://github.com/malfoyslastname/character-card-spec-v2/blob/main/spec_v2.md
ENTRY_V2: Json = {
    "type": "object",
    "required": ["keys", "content", "extensions", "enabled", "insertion_order"],
    "properties": {
        "keys": TEXTS, "content": TEXT, "extensions": EXTENSIONS, "enabled": BOOLEAN, "insertion_order": NUMBER,
        "case_sensitive": BOOLEAN, "name": TEXT, "priority": NUMBER, "id": NUMBER, "comment": TEXT,
        "selective": BOOLEAN, "secondary_keys": TEXTS, "constant": BOOLEAN,
        "position": {"enum": ["before_char", "after_char"]}, "use_regex": False,
    },
}  # fmt: skip
# https://github.com/kwaroran/character-card-spec-v3/blob/main/SPEC_V3.md
ENTRY_V3: Json = {
    **ENTRY_V2,
    "required": [*ENTRY_V2["required"], "use_regex"],
    "properties": {**ENTRY_V2["properties"], "id": {"type": ["number", "string"]}, "use_regex": BOOLEAN},
}
V3_ONLY: Json = {
    "assets": {
        "type": "array",
        "items": {"required": ["type", "uri", "name", "ext"], "properties": dict.fromkeys(["type", "uri"], TEXT)},
    },
    "nickname": TEXT,
    "creator_notes_multilingual": {"type": "object", "additionalProperties": TEXT},
    "source": TEXTS,
    "group_only_greetings": TEXTS,
    "creation_date": NUMBER,
    "modification_date": NUMBER,
}


def _book(entry: Json) -> Json:
    return {
        "type": "object",
        "required": ["extensions", "entries"],
        "properties": {
            "name": TEXT, "description": TEXT, "scan_depth": NUMBER, "token_budget": NUMBER,
            "recursive_scanning": BOOLEAN, "extensions": EXTENSIONS, "entries": {"type": "array", "items": entry},
        },
    }  # fmt: skip


def _card(spec: str, version: str, entry: Json, more: Json, required: tuple[str, ...] = ()) -> Draft202012Validator:
    texts = dict.fromkeys(V2_TEXTS, TEXT)
    properties = {**texts, "alternate_greetings": TEXTS, "tags": TEXTS, "extensions": EXTENSIONS}
    data = {
        "type": "object",
        "required": [*properties, *required],
        "properties": {**properties, "character_book": _book(entry), **more},
    }
    schema = {
        "type": "object",
        "required": ["spec", "spec_version", "data"],
        "properties": {"spec": {"const": spec}, "spec_version": {"const": version}, "data": data},
        "additionalProperties": False,
    }
    return Draft202012Validator(schema)


V2 = _card("chara_card_v2", "2.0", ENTRY_V2, dict.fromkeys(V3_ONLY, False))
V3 = _card("chara_card_v3", "3.0", ENTRY_V3, V3_ONLY, ("group_only_greetings",))

# With everything that there is, and some things that nobody knows.
DATA: Json = {
    "name": "Mira",
    "description": "{{char}} keeps a lighthouse.",
    "personality": "calm, curious",
    "scenario": "{{user}} arrives by boat.",
    "first_mes": "Welcome ashore, {{user}}. I am {{char}}.",
    "mes_example": "<START>\n{{user}}: Hi\n{{char}}: Mind the steps.",
    "creator_notes": "Best by night.",
    "system_prompt": "Stay by the sea.",
    "post_history_instructions": "Be brief.",
    "alternate_greetings": ["Ahoy.", "Who is there?"],
    "tags": ["Sea", "Calm"],
    "creator": "somebody",
    "character_version": "1.2",
    "extensions": {"depth_prompt": {"prompt": "x", "depth": 4}, "nobody/knows": [1, None, {"a": 0.5}]},
    "group_only_greetings": ["All aboard."],
    "nickname": "Mi",
    "source": ["https://cards.example/1"],
    "creation_date": 1700000000,
    "creator_notes_multilingual": {"de": "Am besten nachts."},
    "assets": [{"type": "icon", "uri": "ccdefault:", "name": "main", "ext": "png"}],
    "character_book": {
        "name": "Lore",
        "scan_depth": 5,
        "extensions": {"x": 1},
        "entries": [
            {
                "keys": ["lamp"],
                "content": "It is old.",
                "extensions": {"y": [2]},
                "enabled": True,
                "insertion_order": 10,
                "use_regex": False,
                "id": "a",
                "secondary_keys": ["light"],
                "selective": True,
                "position": "before_char",
                "unknown_here": 1,
            }
        ],
    },
    "unknown_there": {"kept": True},
}


def v3(**fields: Any) -> Json:
    return {"spec": "chara_card_v3", "spec_version": "3.0", "data": {**DATA, **fields}}


def text_chunk(keyword: str, card: Any) -> bytes:
    return png_chunk(b"tEXt", keyword.encode() + b"\0" + base64.b64encode(encoded(card)))


def packed_chunk(keyword: str, text: bytes) -> bytes:
    return png_chunk(b"zTXt", keyword.encode() + b"\0\0" + zlib.compress(text))


def international_chunk(keyword: str, text: bytes, *, is_compressed: bool = False) -> bytes:
    body = zlib.compress(text) if is_compressed else text
    return png_chunk(b"iTXt", keyword.encode() + b"\0" + bytes([is_compressed]) + b"\0en\0word\0" + body)


def encoded(card: Any) -> bytes:
    return card if isinstance(card, bytes) else json.dumps(card).encode()


def with_chunks(picture: bytes, *chunks: bytes) -> bytes:
    """The PNG with these before its end."""
    end = picture.rindex(b"IEND") - 4
    return picture[:end] + b"".join(chunks) + picture[end:]


def cards_in(picture: bytes) -> dict[str, Json]:
    """Keyword and card of each text chunk, read without any code of ours."""
    found, place = {}, 8
    while place < len(picture):
        length = int.from_bytes(picture[place : place + 4], "big")
        name, body = picture[place + 4 : place + 8], picture[place + 8 : place + 8 + length]
        if name == b"tEXt":
            keyword, _, text = body.partition(b"\0")
            found[keyword.decode()] = json.loads(base64.b64decode(text))
        place += length + 12
    return found
