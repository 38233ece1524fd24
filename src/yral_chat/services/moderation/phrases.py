"""Phrases of the rule set: how they are written, and how they are found among words."""

import itertools
import re
from collections.abc import Iterator, Sequence

import msgspec

from yral_chat.services.moderation.words import words

# How many words `..` may stand for.
GAP_WORDS = 3

_PARTS = re.compile(r"(?:\{[^{}]*\}|[^\s{}])+")
_CHOICE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_GAP = ".."

# A run of words, stems that end in "*", or the gap alone; () is none at all.
Run = tuple[str, ...]


class Element(msgspec.Struct, frozen=True):
    """The alternatives for one place of a phrase."""

    runs: tuple[Run, ...]
    by_word: dict[str, list[Run]]  # those that begin with a word, by that word
    by_stem: tuple[Run, ...]
    is_optional: bool
    is_gap: bool

    @classmethod
    def of(cls, runs: tuple[Run, ...]) -> "Element":
        by_word: dict[str, list[Run]] = {}
        for run in runs:
            if run and not run[0].endswith("*"):
                by_word.setdefault(run[0], []).append(run)
        stems = tuple(run for run in runs if run and run[0].endswith("*"))
        return cls(runs, by_word, stems, () in runs, (_GAP,) in runs)


class Phrase(msgspec.Struct, frozen=True):
    """One line of a list of terms."""

    term: str
    elements: tuple[Element, ...]

    @classmethod
    def read(cls, term: str, line: str) -> "Phrase":
        """`{a,b} c` as in the head of `rules.toml`."""
        return cls(term, tuple(_element(part) for part in _PARTS.findall(line)))

    def first_words(self) -> set[str]:
        """What it may begin with."""
        found: set[str] = set()
        for element in self.elements:
            found |= {run[0] for run in element.runs if run}
            if not element.is_optional:
                break
        return found

    def matches(self, text: Sequence[str], at: int) -> bool:
        """Whether it stands at this place of the text."""
        return _matches(self.elements, 0, text, at)

    def joined(self, most: int) -> Iterator[tuple[int, str]]:
        """How many words and which letters it has when it is written without spaces; at most so many ways."""
        for runs in itertools.islice(itertools.product(*(element.runs for element in self.elements)), most):
            parts = [word for run in runs for word in run]
            if _GAP not in parts and not any(part.endswith("*") for part in parts):
                yield len(parts), "".join(parts)


def _element(part: str) -> Element:
    pieces = _CHOICE.split(part)
    choices = [_choices(piece) if number % 2 else [piece] for number, piece in enumerate(pieces)]
    return Element.of(tuple(_run("".join(chosen)) for chosen in itertools.product(*choices)))


def _choices(piece: str) -> list[str]:
    if (span := _RANGE.fullmatch(piece)) is not None:
        return [str(number) for number in range(int(span[1]), int(span[2]) + 1)]
    return piece.split(",")


def _run(text: str) -> tuple[str, ...]:
    run: list[str] = []
    for part in text.split():
        if part == _GAP:
            run.append(_GAP)
        elif part.endswith("*"):
            run.append(f"{words(part)[0]}*")
        else:
            run += words(part)
    return tuple(run)


def _matches(elements: tuple[Element, ...], number: int, text: Sequence[str], at: int) -> bool:
    """Whether the elements from `number` on stand in the text from `at` on."""
    if number == len(elements):
        return True
    element = elements[number]
    if element.is_optional and _matches(elements, number + 1, text, at):
        return True
    if element.is_gap and any(_matches(elements, number + 1, text, at + skipped) for skipped in range(GAP_WORDS + 1)):
        return True
    if at >= len(text):
        return False
    for run in (*element.by_word.get(text[at], ()), *element.by_stem):
        if _fits(run, text, at) and _matches(elements, number + 1, text, at + len(run)):
            return True
    return False


def _fits(run: Run, text: Sequence[str], at: int) -> bool:
    if at + len(run) > len(text):
        return False
    for number, word in enumerate(run):
        if word[-1] == "*":
            if not text[at + number].startswith(word[:-1]):
                return False
        elif text[at + number] != word:
            return False
    return True
