"""Reading of cards that are anything but tidy, and writing of ones that are."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client import Json
from tests.services.cards import (
    DATA,
    V2,
    V3,
    cards_in,
    encoded,
    international_chunk,
    packed_chunk,
    text_chunk,
    v3,
    with_chunks,
)
from tests.services.media.pictures import sample
from yral_chat.core.errors import AppError, Invalid, PayloadTooLarge, UnsupportedMedia
from yral_chat.db.repositories.influencers import StoredInfluencer
from yral_chat.services.cards.mapping import as_v2, as_v3, card_from, texts_from, to_json
from yral_chat.services.cards.reading import read_card
from yral_chat.services.cards.writing import to_png

PICTURE = sample("rgb.png")


def stored(card: Json, **more: Any) -> StoredInfluencer:
    """The persona that an import makes of a card."""
    texts = texts_from(card)
    fields: Json = {
        "id": "bot", "name": "mira", "display_name": texts.display_name, "avatar_url": "",
        "description": texts.description, "category": texts.category, "status": "active", "is_nsfw": False,
        "owner_id": "owner", "source": "imported-card", "system_instructions": texts.system_instructions,
        "initial_greeting": texts.initial_greeting, "suggested_messages": json.dumps(texts.suggested_messages),
        "personality_traits": json.dumps(texts.personality_traits), "voice": None, "seed_hash": None,
        "conversation_count": 0, "message_count": 0, "version": 1, "status_before_ban": None, "created_at": 0,
        "updated_at": 0,
    }  # fmt: skip
    return StoredInfluencer(**{**fields, **more})


# --- reading

TIDY_ENTRY = {
    "keys": ["k"], "content": "", "extensions": {}, "enabled": False, "insertion_order": 0, "use_regex": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "file",
    [
        encoded(v3()),
        b"\xef\xbb\xbf" + encoded(v3()),
        b" \n" + encoded(v3()),
        json.dumps(v3()).encode("utf-16"),
        with_chunks(PICTURE, text_chunk("ccv3", v3())),
        with_chunks(PICTURE, text_chunk("Ccv3", v3())),
        with_chunks(
            PICTURE, text_chunk("chara", {"spec": "chara_card_v2", "data": {"name": "no"}}), text_chunk("ccv3", v3())
        ),
        with_chunks(PICTURE, text_chunk("chara", v3()), text_chunk("ccv3", b"not json")),
        with_chunks(PICTURE, packed_chunk("ccv3", base64.b64encode(encoded(v3())))),
        with_chunks(PICTURE, international_chunk("chara", encoded(v3()))),
        with_chunks(PICTURE, international_chunk("chara", base64.b64encode(encoded(v3())), is_compressed=True)),
        with_chunks(PICTURE, packed_chunk("ccv3", base64.urlsafe_b64encode(encoded(v3())).rstrip(b"=") + b"\n")),
    ],
)
def test_a_card_is_found_wherever_it_is(file: bytes) -> None:
    assert read_card(file) == DATA


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"description": None, "tags": None, "extensions": None}, {"description": "", "tags": [], "extensions": {}}),
        ({"first_mes": 5, "scenario": ["a"], "personality": {}}, {"first_mes": "5", "scenario": "", "personality": ""}),
        ({"tags": "one", "alternate_greetings": [None, 1, "b"]}, {"tags": ["one"], "alternate_greetings": ["1", "b"]}),
        ({"creation_date": "12", "source": "x"}, {"creation_date": 12, "source": ["x"]}),
        ({"character_book": {"entries": {"0": {"keys": "k", "enabled": "false"}, "1": "no"}}},
         {"character_book": {"extensions": {}, "entries": [TIDY_ENTRY]}}),
        ({"name": "Mi\0ra"}, {"name": "Mira"}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_made_to_or_left_out(changes: Json, expected: Json) -> None:
    card = read_card(encoded(v3(**changes)))
    assert {key: card[key] for key in expected} == expected


@pytest.mark.parametrize("value", [10**400, "9" * 400, -(10**400)], ids=["large", "text", "small"])
def test_a_number_that_no_program_can_hold_is_left_out(value: int | str) -> None:
    entry = {"keys": ["k"], "insertion_order": value, "priority": value}
    card = read_card(encoded(v3(creation_date=value, character_book={"entries": [entry], "scan_depth": value})))
    (kept,) = card["character_book"]["entries"]
    assert kept["insertion_order"] == 0
    assert not {"creation_date", "scan_depth", "priority"} & {*card, *card["character_book"], *kept}


@pytest.mark.parametrize("key", ["character_book", "creation_date", "nickname", "assets"])
def test_what_cannot_be_made_to_fit_is_left_out(key: str) -> None:
    assert not read_card(encoded(v3(**{key: 5.5 if key in ("character_book", "assets") else []}))).get(key)


def test_half_a_surrogate_and_no_number_become_something_storable() -> None:
    card = read_card(b'{"name": "M\\ud800", "first_mes": "x", "extensions": {"a": NaN, "b": 1e999}}')
    assert (card["name"], card["extensions"]) == ("M", {"a": None, "b": None})


def test_version_1_has_its_fields_at_the_top() -> None:
    card = read_card(encoded({"name": "Old", "personality": "gruff"}))
    assert (texts_from(card).display_name, texts_from(card).system_instructions) == ("Old", "gruff")


DEEP = b'{"name":"x","first_mes":' + b"[" * 2000 + b"]" * 2000 + b"}"
BOMB = base64.b64encode(b'{"a":"' + b"a" * 12_000_000 + b'"}')


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (b"", UnsupportedMedia),
        (b"GIF89a", UnsupportedMedia),
        (b"\xff\xd8\xff\xe0", UnsupportedMedia),
        (b"name: Mira", UnsupportedMedia),
        (b"{", Invalid),
        (encoded(v3())[:-20], Invalid),
        (b"[]", Invalid),
        (b"5", Invalid),
        (b'{"name": "left-pad", "description": "a package"}', Invalid),
        (b'{"spec": "chara_card_v2", "data": []}', Invalid),
        (encoded(v3(name=" ")), Invalid),
        (DEEP, Invalid),
        (b"[" * 1_000_000, Invalid),
        (b'{"name": "x", "first_mes": ' + b"9" * 5000 + b"}", Invalid),
        (b'{"name": "x", "first_mes": [' + b"[]," * 500_000 + b"[]]}", Invalid),
        (b'{"name": "x", "first_mes": {' + b'"a":{},' * 500_000 + b'"b":1}}', Invalid),
        (PICTURE, Invalid),
        (PICTURE[:100], Invalid),
        (b"\x89PNG\r\n\x1a\n", Invalid),
        (with_chunks(PICTURE, text_chunk("chara", v3()))[:-30], Invalid),
        (with_chunks(PICTURE, text_chunk("chara", [])), Invalid),
        (with_chunks(PICTURE, packed_chunk("chara", BOMB)), PayloadTooLarge),
        (with_chunks(PICTURE, international_chunk("ccv3", BOMB, is_compressed=True)), PayloadTooLarge),
    ],
)
def test_what_is_no_card_is_refused(file: bytes, error: type[AppError]) -> None:
    with pytest.raises(error):
        read_card(file)


def test_a_long_lorebook_is_a_card() -> None:
    entries = [{"keys": ["sea", "night"], "content": "Waves, and wind, and rain. " * 40, "id": n} for n in range(2000)]
    card = read_card(encoded(v3(character_book={"entries": entries})))
    assert len(card["character_book"]["entries"]) == len(entries)


def test_texts_of_other_programs_are_not_even_unpacked() -> None:
    bombs = packed_chunk("other", BOMB) * 500
    assert read_card(with_chunks(PICTURE, bombs, text_chunk("ccv3", v3()))) == DATA


# --- a persona's texts


def test_five_fields_become_the_instructions() -> None:
    text = texts_from(read_card(encoded(v3()))).system_instructions
    places = [
        text.index(DATA[field]) for field in ("system_prompt", "description", "personality", "scenario", "mes_example")
    ]
    assert places == sorted(places)


def test_the_instructions_have_20000_characters_together() -> None:
    field = "x" * 19_900
    texts_from(read_card(encoded({"name": "x", "personality": field})))
    with pytest.raises(Invalid):
        texts_from(read_card(encoded(v3(personality=field))))


# --- writing


@pytest.mark.parametrize("wrap", [as_v2, as_v3])
def test_an_export_is_what_the_specification_says(wrap: Any) -> None:
    card = read_card(encoded(v3()))
    exported = json.loads(to_json(wrap(card_from(stored(card), card))))
    (V2 if wrap is as_v2 else V3).validate(exported)
    kept = {key: value for key, value in exported["data"].items() if key in DATA}
    assert kept["extensions"].pop("yral_chat")
    assert all(kept[key] == DATA[key] for key in kept if wrap is as_v3 or key != "character_book")
    assert exported["data"]["unknown_there"] == {"kept": True}
    assert exported["data"]["character_book"]["entries"][0]["content"] == "It is old."


def test_a_png_has_both_versions() -> None:
    card = read_card(encoded(v3()))
    jpeg = ("image/jpeg", sample("baseline.jpg"))
    for picture in (None, ("image/png", PICTURE), jpeg, ("image/webp", sample("lossy.webp"))):
        file = to_png(card_from(stored(card), card), picture)
        found = cards_in(file)
        assert list(found) == ["ccv3", "chara"]
        V3.validate(found["ccv3"])
        V2.validate(found["chara"])
        assert texts_from(read_card(file)) == texts_from(card)


def test_an_edited_text_is_what_is_exported() -> None:
    card = read_card(encoded(v3()))
    edited = stored(card, system_instructions="Mine now.", category="Land", display_name="Mira II")
    again = card_from(edited, card)
    assert texts_from(again).system_instructions == "Mine now."
    assert (again["tags"], again["name"], again["scenario"]) == (["Land", "Calm"], "Mira II", "")
    assert again["extensions"]["depth_prompt"] == DATA["extensions"]["depth_prompt"]


def test_a_persona_that_came_from_no_card_has_one() -> None:
    card = read_card(encoded({"name": "Plain", "personality": "Text.", "first_mes": "Hi"}))
    made = stored(card, suggested_messages='["A", "B"]', personality_traits='{"tone": "dry"}', category="C")
    exported = card_from(made, None)
    V3.validate(as_v3(exported))
    texts = texts_from(read_card(to_json(as_v3(exported))))
    assert (texts.system_instructions, texts.initial_greeting, texts.category) == ("Text.", "Hi", "C")
    assert (texts.suggested_messages, texts.personality_traits) == (("A", "B"), {"tone": "dry"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ANY_DATA = st.dictionaries(st.sampled_from([*DATA, "unknown"]), JSON, max_size=12)


@settings(max_examples=60)
@given(ANY_DATA, st.dictionaries(st.sampled_from(["keys", "id", "enabled", "position", "content", "x"]), JSON))
def test_whatever_comes_in_goes_out_tidy_and_comes_back_the_same(data: Json, entry: Json) -> None:
    book = {"entries": [entry, data], **{key: value for key, value in data.items() if key != "entries"}}
    try:
        card = read_card(encoded({"data": {**data, "character_book": book}}))
        texts = texts_from(card)
    except Invalid:
        return
    exported = card_from(stored(card), card)
    V3.validate(as_v3(exported))
    V2.validate(as_v2(exported))
    assert texts_from(read_card(to_json(as_v2(exported)))) == texts
    again = read_card(to_json(as_v3(exported)))
    assert texts_from(again) == texts
    assert card_from(stored(again), again) == exported


@settings(max_examples=100)
@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda body: PICTURE[:8] + body))
def test_no_file_breaks_the_reader(file: bytes) -> None:
    for whole in (
        file,
        with_chunks(PICTURE, text_chunk("ccv3", file)),
        with_chunks(PICTURE, packed_chunk("chara", file)),
    ):
        try:
            read_card(whole)
        except (Invalid, UnsupportedMedia, PayloadTooLarge):
            continue
