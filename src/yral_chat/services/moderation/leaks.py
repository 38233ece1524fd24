"""What must not leave: a persona's instructions, found in the text that a model writes while it is written.

Twelve consecutive words of the instructions are a leak, in whatever case and punctuation; so are they rotated by 13
letters or written backwards, and so is their base64 or hexadecimal text in one piece or in lines. Translations,
paraphrases, and letters with something between them are not found.
"""

import codecs
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from yral_chat.services.moderation.encodings import Decoders, Level
from yral_chat.services.moderation.words import LETTERS, TOKEN, UNSPACED, normalise, words

# Consecutive words that make a leak; twice as many characters in scripts without spaces.
LEAK_WORDS = 12
# Instructions of fewer words cannot be told from ordinary speech.
MIN_WORDS = 6
# A longer token is no word, whatever it is.
MAX_TOKEN = 128
# How many instructions are kept prepared. One of 300 words takes about 0.3 MB and 3 ms, one of the longest ten times
# as much.
KEPT = 64

_UNSPACED = re.compile(f"[{UNSPACED}]")
_NO_WORD = "\0"


class Secret(msgspec.Struct, frozen=True):
    """Runs of words by their hash: a third, two thirds and all of a leak. Empty: there is nothing to protect.

    `words` are all words in those runs: any other one ends a run, which is all that most words of a text do.
    """

    sizes: tuple[int, int, int]
    words: frozenset[str]
    some: frozenset[int]
    many: frozenset[int]
    leaks: frozenset[int]

    @classmethod
    def of(cls, instructions: str, public: Iterable[str] = ()) -> "Secret":
        """The instructions, without those runs of words that stand in a public text too (the greeting)."""
        forms = [_words(text) for text in (instructions, codecs.encode(instructions, "rot13"), instructions[::-1])]
        plain = forms[0]
        if len(plain) < MIN_WORDS:
            return cls((0, 0, 0), *[frozenset()] * 4)
        is_unspaced = sum(_UNSPACED.match(word) is not None for word in plain) * 2 > len(plain)
        size = min(LEAK_WORDS * (2 if is_unspaced else 1), len(plain))
        allowed = {run for text in public for run in _runs(_words(text), size)}
        leaks = [run for form in forms for run in _runs(form, size) if run not in allowed]
        some, many = -(-size // 3), -(-size * 2 // 3)
        return cls(
            (some, many, size),
            frozenset(word for run in leaks for word in run),
            frozenset(hash(part) for run in leaks for part in _runs(run, some)),
            frozenset(hash(part) for run in leaks for part in _runs(run, many)),
            frozenset(map(hash, leaks)),
        )


def _words(text: str) -> list[str]:
    return [word for token in TOKEN.findall(text) if (word := _word(token))]


def _word(token: str) -> str:
    return normalise(token) if len(token) <= MAX_TOKEN else _NO_WORD


def _runs(text: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """All runs of `size` words; one with a token that is no word is none."""
    runs = (tuple(text[start : start + size]) for start in range(len(text) - size + 1))
    return [run for run in runs if _NO_WORD not in run]


@lru_cache(maxsize=KEPT)
def secret_of(instructions: str, greeting: str) -> Secret:
    """The secret of a persona; prepared once."""
    return Secret.of(instructions, [greeting])


class _Tracker:
    """Follows a text word by word. `start` is where in the text the run began that `level` speaks of, with places."""

    __slots__ = ("_has_places", "_is_overlong", "_last", "_partial", "_place", "_secret", "_starts", "level", "start")

    def __init__(self, secret: Secret, *, has_places: bool = False) -> None:
        self._secret = secret
        self._has_places = has_places
        self._last: list[str] = []  # as many words as make a leak
        self._starts: list[int] = []  # where they begin
        self._partial = ""  # a word that may go on
        self._is_overlong = False
        self._place = 0  # characters so far
        self.level: Level = "none"
        self.start = 0

    def feed(self, text: str) -> Level:
        if self._is_overlong:
            text = self._skip(text)
            if self._is_overlong:
                return self.level
        whole, origin = self._partial + text, self._place - len(self._partial)
        self._place += len(text)
        whole = self._set_partial_aside(whole)
        self._follow(whole, origin)
        return self.level

    def _follow(self, whole: str, origin: int) -> None:
        found = words(whole)
        is_overlong = len(whole) > MAX_TOKEN  # or one of its tokens may be
        if not is_overlong and not self._is_of_interest(found):
            if found:
                self._forget()
        elif is_overlong or self._has_places:
            for match in TOKEN.finditer(whole):
                self._push(_word(match[0]), origin + match.start())
        else:
            for word in found:
                self._push(word, origin)

    def _is_of_interest(self, found: list[str]) -> bool:
        """Whether a run of the secret's words is long enough, or may go on behind the last of these."""
        known, size = self._secret.words, len(self._last)
        if known.isdisjoint(found):
            return False
        for word in found:
            size = size + 1 if word in known else 0
            if size >= self._secret.sizes[0]:
                return True
        return size > 0

    def _set_partial_aside(self, whole: str) -> str:
        """The text without the word at its end, which may go on."""
        tail = LETTERS.match(whole[::-1])
        size = 0 if tail is None else tail.end()
        self._is_overlong = size > MAX_TOKEN
        if size == 0 or self._is_overlong:
            self._partial = ""
            return whole
        self._partial = whole[-size:]
        return whole[:-size]

    def _skip(self, text: str) -> str:
        """What follows the rest of a token that is too long to be a word."""
        match = TOKEN.match(text)
        end = match.end() if match is not None and _UNSPACED.match(text) is None else 0
        self._place += end
        self._is_overlong = end == len(text)
        return text[end:]

    def end(self) -> Level:
        """The text ends here, and so does its last word."""
        if self._partial:
            self._push(_word(self._partial), self._place - len(self._partial))
            self._partial = ""
        return self.level

    def _forget(self) -> None:
        if self.level != "leak":
            self.level = "none"
            self._last.clear()
            self._starts.clear()

    def _push(self, word: str, start: int) -> None:
        if not word or self.level == "leak":
            return
        if word not in self._secret.words:
            self._forget()
            return
        some, many, size = self._secret.sizes
        last, starts = self._last, self._starts
        last.append(word)
        starts.append(start)
        if len(last) > size:
            del last[0], starts[0]
        if len(last) < some or hash(tuple(last[-some:])) not in self._secret.some:
            self.level = "none"
            return
        if self.level == "none":
            self.start = starts[-some]
        self.level = "some"
        if len(last) >= many and hash(tuple(last[-many:])) in self._secret.many:
            self.level = "many"
        if len(last) == size and hash(tuple(last)) in self._secret.leaks:
            self.level = "leak"


class OutputFilter:
    """The text of one reply on its way out. How it is cut into pieces changes nothing about what is found.

    `feed` gives what may leave now; what is held back stands in `held`. With level `some` the caller may `release` it
    after a moment, with `many` it must wait. After a leak nothing leaves any more.
    """

    @classmethod
    def open(cls) -> "OutputFilter":
        """Lets everything through."""
        return cls(Secret.of(""))

    def __init__(self, secret: Secret) -> None:
        self._is_open = not secret.leaks
        self._tracker = _Tracker(secret, has_places=True)
        self._decoders = Decoders(lambda: _Tracker(secret))
        self._seen = 0  # characters that came in
        self.held = ""
        self.level: Level = "none"

    @property
    def is_leak(self) -> bool:
        return self.level == "leak"

    def feed(self, text: str) -> str:
        """Takes the next piece; returns what may leave now."""
        if self._is_open or self.is_leak:
            return text if self._is_open else ""
        self._seen += len(text)
        self.held += text
        tracked, decoded = self._tracker.feed(text), self._decoders.feed(text)
        return self._settle(tracked, decoded)

    def end(self) -> str:
        """The reply is complete; returns the rest of it, unless that is a leak."""
        if self._is_open or self.is_leak:
            return ""
        if "leak" in (self._tracker.end(), self._decoders.end()):
            self.level = "leak"
            return ""
        self.level = "none"
        return self.release()

    def release(self) -> str:
        """What is held back, for a caller that may not wait any longer; nothing of what must wait."""
        if self.level in ("many", "leak"):
            return ""
        text, self.held = self.held, ""
        return text

    def _settle(self, tracked: Level, decoded: Level) -> str:
        levels = (tracked, decoded)
        self.level = next(level for level in ("leak", "many", "some", "none") if level in levels)
        if self.level == "leak":
            return ""
        if decoded != "none":  # where it began in the text is not known
            return ""
        count = len(self.held) if tracked == "none" else self._tracker.start - (self._seen - len(self.held))
        text, self.held = self.held[: max(0, count)], self.held[max(0, count) :]
        return text
