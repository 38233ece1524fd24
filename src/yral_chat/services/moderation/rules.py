"""The rule set: data in `rules.toml`, read once, and looked up word by word."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from yral_chat.services.moderation.phrases import Phrase
from yral_chat.services.moderation.words import readings

Tier = Literal["block", "crisis", "suspicious"]
Place = Literal["message", "persona", "picture"]

# A person in danger gets help, whatever else the message asks for.
ORDER: dict[Tier, int] = {"crisis": 0, "block": 1, "suspicious": 2}
# What is written letter by letter without any space is compared without spaces; shorter phrases would be found in
# other words.
MIN_JOINED = 9
MAX_JOINED = 80
JOINED_KEY = 5
MOST_JOINED = 300  # ways of one phrase


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the head of `rules.toml`."""

    id: str
    kind: str
    tier: Tier
    reason: str
    all: tuple[str, ...]
    on: tuple[Place, ...] = ("message",)
    within: int | None = None
    unless: tuple[str, ...] = ()
    language: str | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    terms: dict[str, list[str]]
    rules: list[Rule]


class Verdict(msgspec.Struct, frozen=True):
    """What a text was found to be, by which rule of which version of the rule set; `tier` None: nothing."""

    version: int
    tier: Tier | None = None
    kind: str = ""
    rule: str = ""
    reason: str = ""
    language: str | None = None


class RuleSet:
    """Finds what the rules speak of. A text of 4,000 characters takes a few milliseconds, an ordinary one far less."""

    def __init__(self, file: _File) -> None:
        self.version = file.version
        self.rules = sorted(file.rules, key=lambda rule: ORDER[rule.tier])
        self._by_word: dict[str, list[Phrase]] = {}
        self._by_stem: dict[str, list[Phrase]] = {}
        self._joined: dict[str, list[tuple[str, str]]] = {}  # first letters → (phrase without spaces, term)
        for term, lines in file.terms.items():
            for line in lines:
                self._add(Phrase.read(term, line))
        unknown = {term for rule in file.rules for term in (*rule.all, *rule.unless)} - file.terms.keys()
        if unknown:
            raise ValueError(f"rules.toml speaks of terms that it does not list: {sorted(unknown)}")

    def _add(self, phrase: Phrase) -> None:
        for first in phrase.first_words():
            if first.endswith("*"):
                self._by_stem.setdefault(first[:3], []).append(phrase)
            else:
                self._by_word.setdefault(first, []).append(phrase)
        for count, whole in phrase.joined(MOST_JOINED):
            if count > 1 and len(whole) >= MIN_JOINED:
                self._joined.setdefault(whole[:JOINED_KEY], []).append((whole, phrase.term))

    def judge(self, text: str, place: Place) -> Verdict:
        """The gravest rule that any reading of `text` meets."""
        best: Rule | None = None
        for reading in readings(text):
            rule = self._first_met(self._find(reading), place)
            if rule is not None and (best is None or ORDER[rule.tier] < ORDER[best.tier]):
                best = rule
                if best.tier == "crisis":
                    break
        if best is None:
            return Verdict(self.version)
        return Verdict(self.version, best.tier, best.kind, best.id, best.reason, best.language)

    def _find(self, text: Sequence[str]) -> dict[str, list[int]]:
        """Where each term stands, as numbers of words."""
        found: dict[str, list[int]] = {}
        for place, word in enumerate(text):
            for phrase in self._by_word.get(word, ()):
                if phrase.matches(text, place):
                    found.setdefault(phrase.term, []).append(place)
            for phrase in self._by_stem.get(word[:3], ()):
                if phrase.matches(text, place):
                    found.setdefault(phrase.term, []).append(place)
            if len(word) >= MIN_JOINED:
                for term in self._terms_inside(word):
                    found.setdefault(term, []).append(place)
        return found

    def _terms_inside(self, word: str) -> Iterator[str]:
        for start in range(min(len(word), MAX_JOINED) - MIN_JOINED + 1):
            for whole, term in self._joined.get(word[start : start + JOINED_KEY], ()):
                if word.startswith(whole, start):
                    yield term

    def _first_met(self, found: Mapping[str, list[int]], place: Place) -> Rule | None:
        if not found:
            return None
        for rule in self.rules:
            if place in rule.on and _is_met(rule, found):
                return rule
        return None


def _is_met(rule: Rule, found: Mapping[str, list[int]]) -> bool:
    if any(term not in found for term in rule.all) or any(term in found for term in rule.unless):
        return False
    if rule.within is None:
        return True
    # The first term's places against the nearest of each other: exact for two terms, near enough for three.
    return any(
        all(min(abs(other - here) for other in found[term]) <= rule.within for term in rule.all[1:])
        for here in found[rule.all[0]]
    )


@cache
def load_rules() -> RuleSet:
    """The rule set that ships."""
    text = Path(__file__).with_name("rules.toml").read_text(encoding="utf-8")
    return RuleSet(msgspec.convert(tomllib.loads(text), _File))
