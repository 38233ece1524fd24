"""Names in texts, names of personas, and what templates write where there is no model."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yral_chat.services.characters import answers, templates
from yral_chat.services.characters.names import ascii_name
from yral_chat.services.characters.records import MAX_INSTRUCTIONS, NAME_PATTERN
from yral_chat.services.prompts import names_user, resolve_names


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("{{char}} meets {{user}}.", "Mira meets Ada."),
        ("{{ Char }} and {{USER}}", "Mira and Ada"),
        ("{{original}}Be brief.", "Be brief."),
        ("{char} {{other}} {{{user}}}", "{char} {{other}} {Ada}"),
        ("", ""),
    ],
)
def test_placeholders_of_cards_become_names(text: str, resolved: str) -> None:
    assert resolve_names(text, "Mira", "Ada") == resolved


def test_a_user_without_a_name_is_you() -> None:
    assert resolve_names("Welcome, {{user}}.", "Mira") == "Welcome, you."


def test_names_are_not_resolved_again() -> None:
    assert resolve_names("{{char}} and {{user}}", "{{user}}", "{{char}}") == "{{user}} and {{char}}"


def test_it_is_known_whether_a_text_names_the_user() -> None:
    assert names_user("Hi {{User}}")
    assert not names_user("Hi {{char}}")


@given(st.text())
def test_any_text_gives_a_name_that_may_be_used(text: str) -> None:
    assert re.fullmatch(NAME_PATTERN, ascii_name(text))


@pytest.mark.parametrize(
    ("text", "name"),
    [("Zoë Müller", "ZoeMuller"), ("Yo", "Yopersona"), ("आशा", "persona"), ("Аsha", "sha"), ("A" * 40, "A" * 15)],
)
def test_a_name_reminds_of_where_it_comes_from(text: str, name: str) -> None:
    assert ascii_name(text) == name


@given(st.text(max_size=1000))
def test_templates_write_what_create_takes(idea: str) -> None:
    text = templates.instructions(idea)
    assert 1 <= len(text) <= MAX_INSTRUCTIONS
    metadata = templates.metadata(text)
    assert metadata == templates.metadata(text)
    described = answers.read_metadata({**vars_of(metadata), "is_valid": True}).metadata
    assert described.display_name == metadata.display_name
    assert described.initial_greeting == metadata.initial_greeting


def vars_of(metadata: object) -> dict[str, object]:
    return {name: getattr(metadata, name) for name in ("name", "display_name", "initial_greeting")}


@pytest.mark.parametrize(
    ("idea", "category", "name"),
    [
        ("a chef called Bruno", "Cooking", "Bruno"),
        ("Meet Ada Lovelace, who teaches math", "Study", "Ada Lovelace"),
        ("You are A helpful runner", "Fitness", "Coach"),
        ("somebody to listen", "Companion", "Companion"),
    ],
)
def test_templates_take_what_the_idea_says(idea: str, category: str, name: str) -> None:
    metadata = templates.metadata(idea)
    assert (metadata.category, metadata.display_name) == (category, name)
