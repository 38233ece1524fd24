"""Finds facts without a model, where they are stated in so many words: for the demo that runs without a vendor."""

import re

from yral_chat.services.memories.facts import Fact, accepted

# Up to the end of the clause.
_END = r"\s*[.;!?।\n]|\s*$"
_REST = (
    r"(?P<value>[^.,;!?।\n]{1,80}?)"
    rf"(?=\s*,|\s+(?:and|but|because|since|so|now|last|recently|with|aur|lekin|par|और)\b|{_END})"
)
_SEVERAL = (
    r"(?P<value>[^.;!?।\n]{1,80}?)"
    rf"(?=,?\s+(?:and|but|so)\s+(?:i|my)\b|\s+(?:but|because|since)\b|{_END})"
)
_NAME = r"(?P<value>[^\W\d_][^\s.,;!?।]{0,39}(?:\s(?!and\b|but\b|aur\b|from\b|i\b)[^\W\d_][^\s.,;!?।]{0,39})?)"
_I_AM = r"\bi(?:['’]m| am)\s+"

_STATEMENTS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (key, re.compile(pattern, re.I))
    for key, pattern in (
        ("name", rf"\bmy name(?:['’]s| is)\s+{_NAME}"),
        ("name", r"\bmera na+m\s+(?P<value>[^.,;!?\n]{1,40}?)\s+(?:hai|h|he)\b"),
        ("name", r"मेरा नाम\s+(?P<value>[^.,;!?।\n]{1,40}?)\s+है"),
        (
            "city",
            rf"\bi(?:['’]ve| have)?\s*(?:now\s+)?(?:live|stay|moved|am living|['’]m living)\s+(?:in|to)\s+{_REST}",
        ),
        ("city", r"\bma?in\s+(?P<value>[^.,;!?\n]{1,40}?)\s+(?:mein|me|mai)\s+re?ha?t[ai]\b"),
        ("city", r"मैं\s+(?P<value>[^.,;!?।\n]{1,40}?)\s+में\s+रहत[ाी]"),
        ("hometown", rf"{_I_AM}(?:originally\s+)?from\s+{_REST}"),
        ("allergies", rf"{_I_AM}allergic to\s+{_SEVERAL}"),
        ("allergies", r"\bmujhe\s+(?P<value>[^.,;!?\n]{1,40}?)\s+se\s+allergy\b"),
        ("age", rf"{_I_AM}(?P<value>\d{{1,3}})\s*(?:years? old|yrs? old|y/?o)\b"),
        ("job", rf"\bi work as\s+(?:an?\s+)?{_REST}"),
        ("employer", rf"\bi work (?:at|for)\s+{_REST}"),
        ("diet", rf"{_I_AM}(?:an?\s+)?(?P<value>vegetarian|vegan|non-vegetarian|eggetarian)\b"),
        ("birthday", rf"\bmy birthday(?:['’]s| is)\s+(?:on\s+)?{_REST}"),
    )
)
_FAVOURITE = re.compile(rf"\bmy favou?rite (?P<what>\w+(?: \w+)?) (?:is|are)\s+{_REST}", re.I)
_NO_FACT = re.compile(r"^(?:not?|never|nahi|kya|what|who|where|a secret|none|the)\b", re.I)
_CONFIDENCE = 90


def facts_in(message: str) -> list[Fact]:
    """What `message` states plainly; the last of several for one key."""
    found = [(key, match["value"]) for key, pattern in _STATEMENTS for match in pattern.finditer(message)]
    found += [(f"favourite_{match['what']}", match["value"]) for match in _FAVOURITE.finditer(message)]
    facts = [accepted(key, value, _CONFIDENCE, message) for key, value in found if not _NO_FACT.match(value.strip())]
    return list({fact.key: fact for fact in facts if fact is not None}.values())
