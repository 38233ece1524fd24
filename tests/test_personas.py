"""The personas that ship are complete, in bounds, and their pictures are there."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from yral_chat import personas
from yral_chat.personas import PICTURES_DIR, CataloguePersona, InvalidPersonaFile

CATALOGUE = personas.load()
EXPECTED_CATEGORIES = {
    "Fitness",
    "Dating advice",
    "Astrology",
    "Health",
    "Technology",
    "Cooking",
    "Study",
    "Companion",
}


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


# Everyday Hindi in Roman letters, without what reads as English too.
HINDI_WORDS = set(
    words(
        "aaj aap achha aur baat baitho batao bataun beta chai dost ek ghar hai hain hoon hota kaise kal karun kharcha"
        " khatam ki koi kuch kya mein meri nahi pehle raha saath sirf tareekh thoda udhaar yaar"
    )
)

every_persona = pytest.mark.parametrize("persona", CATALOGUE, ids=lambda persona: persona.name)


def hinglish() -> list[CataloguePersona]:
    return [persona for persona in CATALOGUE if persona.personality_traits["language"] == "Hinglish"]


def test_catalogue_has_ten_personas_of_ten_categories() -> None:
    assert len(CATALOGUE) == 10
    categories = {persona.category for persona in CATALOGUE}
    assert len(categories) == 10
    assert categories > EXPECTED_CATEGORIES


def test_catalogue_is_sorted_by_name() -> None:
    assert [persona.name for persona in CATALOGUE] == sorted(persona.name for persona in CATALOGUE)


@pytest.mark.parametrize(
    "key",
    [
        lambda persona: persona.id,
        lambda persona: persona.name.lower(),
        lambda persona: persona.display_name,
        lambda persona: persona.initial_greeting,
        lambda persona: persona.personality_traits["tone"],
        lambda persona: persona.personality_traits["says"],
    ],
    ids=["id", "name", "display_name", "greeting", "tone", "says"],
)
def test_no_two_personas_share(key: Callable[[CataloguePersona], str]) -> None:
    assert len({key(persona) for persona in CATALOGUE}) == len(CATALOGUE)


@every_persona
def test_system_instructions_have_150_to_400_words(persona: CataloguePersona) -> None:
    assert 150 <= len(persona.system_instructions.split()) <= 400


@every_persona
def test_texts_are_trimmed_and_fit_where_they_are_shown(persona: CataloguePersona) -> None:
    texts = [persona.description, persona.initial_greeting, persona.system_instructions, *persona.suggested_messages]
    assert all(text and text == text.strip() for text in texts)
    assert len(persona.description) <= 500
    assert len(persona.initial_greeting) <= 400
    assert 3 <= len(set(persona.suggested_messages)) == len(persona.suggested_messages) <= 4
    assert max(map(len, persona.suggested_messages)) <= 80
    assert 4 <= len(persona.personality_traits) <= 6


@every_persona
def test_instructions_say_how_it_talks_where_it_stops_and_that_it_is_an_ai(persona: CataloguePersona) -> None:
    assert persona.system_instructions.startswith("You are ")
    assert persona.system_instructions.count("\n## ") == 3
    assert re.search(r"\bAI\b", persona.system_instructions)


@every_persona
def test_none_is_marked_nsfw(persona: CataloguePersona) -> None:
    assert persona.is_nsfw is False


def test_hinglish_is_spoken_by_at_least_two_in_everything_they_say() -> None:
    assert len(hinglish()) >= 2
    for persona in hinglish():
        for text in (persona.description, persona.initial_greeting, *persona.suggested_messages):
            assert HINDI_WORDS & set(words(text)), text
        hindi = [word for word in words(persona.system_instructions) if word in HINDI_WORDS]
        assert len(hindi) >= 15, persona.name


def test_others_are_not_taken_for_hinglish() -> None:
    for persona in CATALOGUE:
        if persona not in hinglish():
            assert len(HINDI_WORDS & set(words(persona.initial_greeting))) < 2, persona.name


@every_persona
def test_picture_is_a_small_webp_of_512_pixels_without_metadata(persona: CataloguePersona) -> None:
    file = PICTURES_DIR / persona.picture
    assert file.stat().st_size <= 60 * 1024
    with Image.open(file) as picture:
        assert (picture.format, picture.size) == ("WEBP", (512, 512))
        assert not {"exif", "xmp", "icc_profile"} & set(picture.info)


def test_every_picture_has_its_source_and_its_persona() -> None:
    names = [persona.name for persona in CATALOGUE]
    for suffix in ("svg", "webp", "toml"):
        assert sorted(file.stem for file in PICTURES_DIR.glob(f"*.{suffix}")) == names


@every_persona
def test_picture_source_stands_alone(persona: CataloguePersona) -> None:
    source = (PICTURES_DIR / persona.picture).with_suffix(".svg").read_text(encoding="utf-8")
    assert not re.search(r"<(script|image|text|style|use|metadata)\b|href=|url\((?!#)", source)
    assert persona.display_name.split()[0] in source.split("</title>")[0]


def copy_of(persona: CataloguePersona, folder: Path, name: str) -> Path:
    file = folder / f"{name}.toml"
    text = (PICTURES_DIR / f"{persona.name}.toml").read_text(encoding="utf-8")
    file.write_text(text.replace(f'name = "{persona.name}"', f'name = "{name}"'), encoding="utf-8")
    (folder / f"{name}.webp").touch()
    return file


def test_load_reads_any_folder(tmp_path: Path) -> None:
    copy_of(CATALOGUE[0], tmp_path, "somebody")
    assert [(persona.name, persona.picture) for persona in personas.load(tmp_path)] == [("somebody", "somebody.webp")]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('id = "', 'id = "x ', r"\$\.id"),
        ('category = "', 'colour = "red"\ncategory = "', "colour"),
        ("is_nsfw = false", 'is_nsfw = "no"', r"\$\.is_nsfw"),
        ("is_nsfw = false", "", "is_nsfw"),
        ("is_nsfw = false", "is_nsfw = = false", "line 6"),
        ('name = "somebody"', 'name = "someone"', "must be called someone.toml"),
        ('initial_greeting = "', f'initial_greeting = "{"long " * 80}', r"\$\.initial_greeting"),
    ],
    ids=["id", "unknown", "type", "missing", "syntax", "name", "length"],
)
def test_load_names_the_file_that_it_cannot_use(tmp_path: Path, old: str, new: str, reason: str) -> None:
    file = copy_of(CATALOGUE[0], tmp_path, "somebody")
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InvalidPersonaFile, match=rf"^somebody\.toml: .*{reason}"):
        personas.load(tmp_path)


def test_load_refuses_a_missing_picture(tmp_path: Path) -> None:
    copy_of(CATALOGUE[0], tmp_path, "somebody").with_suffix(".webp").unlink()
    with pytest.raises(InvalidPersonaFile, match=r"^somebody\.toml: its picture somebody\.webp is missing"):
        personas.load(tmp_path)


def test_load_refuses_an_id_used_twice(tmp_path: Path) -> None:
    copy_of(CATALOGUE[0], tmp_path, "anna")
    copy_of(CATALOGUE[0], tmp_path, "zoe")
    with pytest.raises(InvalidPersonaFile, match=r"^zoe\.toml: anna\.toml has the id"):
        personas.load(tmp_path)
