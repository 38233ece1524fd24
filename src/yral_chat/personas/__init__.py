"""The personas that ship: one TOML file each, with its picture (WebP) and the picture's source (SVG) beside it.

`deploy/render_personas.py` makes the pictures from their sources.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec

PICTURES_DIR = Path(__file__).parent
"""The folder that holds every `CataloguePersona.picture`."""

PICTURES_PATH = "/static/personas/"
"""Where they are served."""

# A name is what the API accepts from creators (contract, section 11). The other texts are held shorter than there:
# a suggestion fits a chip, a description a card, a greeting the first screen of a phone.
PersonaId = Annotated[str, msgspec.Meta(pattern=r"^persona-[a-z0-9]+(-[a-z0-9]+)*$", max_length=255)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]{3,15}$")]
DisplayName = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Category = Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
Description = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
SystemInstructions = Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)]
Greeting = Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
Suggestion = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
Suggestions = Annotated[tuple[Suggestion, ...], msgspec.Meta(min_length=3, max_length=4)]
TraitName = Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
Trait = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Traits = Annotated[dict[TraitName, Trait], msgspec.Meta(min_length=1, max_length=20)]


class InvalidPersonaFile(ValueError):
    """A catalogue file cannot be used; the message names the file and what is wrong with it."""

    def __init__(self, file: Path, reason: object) -> None:
        super().__init__(f"{file.name}: {reason}")


class CataloguePersona(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A persona as its file describes it. The id never changes, so that a new release finds what it seeded before."""

    id: PersonaId
    name: Name
    display_name: DisplayName
    category: Category
    description: Description
    is_nsfw: bool
    initial_greeting: Greeting
    suggested_messages: Suggestions
    personality_traits: Traits
    system_instructions: SystemInstructions
    picture: str
    """File name inside `PICTURES_DIR`."""


def load(folder: Path = PICTURES_DIR) -> tuple[CataloguePersona, ...]:
    """The catalogue in `folder`, sorted by name. Raises `InvalidPersonaFile`."""
    personas = tuple(_read(file) for file in sorted(folder.glob("*.toml")))
    _refuse_repeated_ids(folder, personas)
    return personas


def _read(file: Path) -> CataloguePersona:
    picture = file.with_suffix(".webp")
    try:
        fields = tomllib.loads(file.read_text(encoding="utf-8"))
        persona = msgspec.convert(_trimmed(fields) | {"picture": picture.name}, CataloguePersona)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidPersonaFile(file, error) from error
    if persona.name != file.stem:
        raise InvalidPersonaFile(file, f"the name is {persona.name!r}, the file must be called {persona.name}.toml")
    if not picture.is_file():
        raise InvalidPersonaFile(file, f"its picture {picture.name} is missing")
    return persona


def _trimmed(fields: dict[str, Any]) -> dict[str, Any]:
    """Without the line breaks that a multi-line string of TOML has at its ends."""
    return {key: value.strip() if isinstance(value, str) else value for key, value in fields.items()}


def _refuse_repeated_ids(folder: Path, personas: tuple[CataloguePersona, ...]) -> None:
    owners: dict[str, str] = {}
    for persona in personas:
        owner = owners.setdefault(persona.id, persona.name)
        if owner != persona.name:
            raise InvalidPersonaFile(folder / f"{persona.name}.toml", f"{owner}.toml has the id {persona.id!r} already")
