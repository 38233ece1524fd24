"""What a person in danger reads: help lines of the user's country, in the user's language."""

import tomllib
from functools import cache
from pathlib import Path

import msgspec

# Where nothing is known of the user, the lines of this country stand beside the international directory.
DEFAULT_REGION = "IN"


class _Region(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lines: dict[str, str]  # by language; `en` is always there
    sources: list[str]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    texts: dict[str, dict[str, str]]
    regions: dict[str, _Region]


@cache
def _load() -> _File:
    text = Path(__file__).with_name("help_resources.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _File)


def help_text(locale: str | None, written_in: str | None = None) -> str:
    """The reply for a person in danger.

    `locale` is the user's BCP 47 tag; without one the language in which the message was written counts, and the
    international directory and India's lines are named.
    """
    file = _load()
    language, region = _parse(locale)
    texts = _texts(file, language or written_in)
    found = file.regions.get(region or DEFAULT_REGION)
    lines = [] if found is None else [found.lines.get(texts["language"], found.lines["en"])]
    lines.append(texts["international"])
    if found is None or region is None:  # a listed country's line names its emergency number
        lines.append(texts["emergency"])
    return "\n\n".join((texts["opening"], "\n".join(lines), texts["closing"]))


def _texts(file: _File, language: str | None) -> dict[str, str]:
    name = language if language in file.texts else (language or "").split("-")[0]
    if name not in file.texts:
        name = "en"
    return {"language": name, **file.texts[name]}


def _parse(locale: str | None) -> tuple[str | None, str | None]:
    """Language (with its script where that matters) and region of a tag, as far as it names them."""
    if not locale:
        return None, None
    language, *rest = locale.replace("_", "-").split("-")
    script = next((part.title() for part in rest if len(part) == 4 and part.isalpha()), None)
    region = next((part.upper() for part in rest if len(part) == 2 and part.isalpha()), None)
    name = language.lower()
    return (f"{name}-{script}" if name == "hi" and script == "Latn" else name), region or (
        "IN" if name == "hi" else None
    )
