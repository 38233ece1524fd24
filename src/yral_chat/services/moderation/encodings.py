"""Reads what a text says in base64 or hexadecimal while the text is written."""

import base64
import codecs
import re
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

# Words of the instructions that stand at the end of the text so far: few (`none`), a third of a leak (`some`), two
# thirds (`many`), or all of one.
Level = Literal["none", "some", "many", "leak"]

# Letters in one piece before they are taken for an encoding: longer than ordinary words, shorter than four words in
# base64.
MIN_LETTERS = 24

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_RUN = re.compile(r"[A-Za-z0-9+/_-]+")
_URL_SAFE = str.maketrans("-_", "+/")


class Reader(Protocol):
    """Takes the decoded text."""

    level: Level

    def feed(self, text: str) -> Level: ...

    def end(self) -> Level: ...


class _Decoder:
    """Decodes groups of letters, beginning at the letter number `offset`."""

    def __init__(self, reader: Reader, size: int, offset: int) -> None:
        self.reader = reader
        self._size = size  # letters in a group: 4 for base64, 2 for hexadecimal
        self._skip = offset
        self._waiting = ""
        self._text = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, letters: str) -> None:
        skipped = min(self._skip, len(letters))
        self._skip -= skipped
        whole = self._waiting + letters[skipped:]
        end = len(whole) - len(whole) % self._size
        self._waiting = whole[end:]
        if end:
            self._read(whole[:end])

    def end(self) -> None:
        """No more letters come; a group that is not full says something too."""
        if self._size == 4 and len(self._waiting) > 1:
            self._read(self._waiting + "=" * (4 - len(self._waiting)))
        self._waiting = ""
        self.reader.end()

    def _read(self, letters: str) -> None:
        # What is no text divides words: so most of what was read at the wrong letter costs next to nothing.
        self.reader.feed(self._text.decode(self._bytes(letters)).replace("\ufffd", " "))

    def _bytes(self, letters: str) -> bytes:
        if self._size == 4:
            return base64.b64decode(letters)
        try:
            return bytes.fromhex(letters)
        except ValueError:
            return b"\xff"  # no hexadecimal, and no word


class Decoders:
    """Reads every long run of letters in all ways in which it may be encoded; spaces and line breaks may divide it."""

    def __init__(self, make_reader: Callable[[], Reader]) -> None:
        self._make_reader = make_reader
        self._tail = ""  # the beginning of what may become a long run
        self._decoders: list[_Decoder] = []

    def feed(self, text: str) -> Level:
        if not self._decoders:
            whole = self._tail + text
            self._tail = whole[len(whole.rstrip(_LETTERS)) :]
            if len(self._tail) < MIN_LETTERS and not _has_long_run(whole):
                return "none"
            text, self._tail = whole, ""
        return self._read(text)

    def _read(self, text: str) -> Level:
        end = 0
        for match in _RUN.finditer(text):
            level = self._pass(text[end : match.start()])
            if level == "leak":
                return level
            end = match.end()
            if self._decoders or len(match[0]) >= MIN_LETTERS:
                self._decode(match[0])
                if self._level() == "leak":
                    return "leak"
            elif end == len(text):
                self._tail = match[0]
        level = self._pass(text[end:])
        return level if level == "leak" else self._level()

    def _pass(self, between: str) -> Level:
        """What is neither a letter nor a space ends an encoded text."""
        if self._decoders and between.strip():
            level = self.end()
            self._decoders = []
            return level
        return "none"

    def _decode(self, run: str) -> None:
        if not self._decoders:
            readings = [(4, 0), (4, 1), (4, 2), (4, 3), (2, 0), (2, 1)]
            self._decoders = [_Decoder(self._make_reader(), size, offset) for size, offset in readings]
        letters = run.translate(_URL_SAFE)
        for decoder in self._decoders:
            decoder.feed(letters)

    def end(self) -> Level:
        """The text ends here."""
        for decoder in self._decoders:
            decoder.end()
        return self._level()

    def _level(self) -> Level:
        levels = {decoder.reader.level for decoder in self._decoders}
        return next(level for level in _worst_first() if level in levels or level == "none")


def _worst_first() -> Iterator[Level]:
    yield from ("leak", "many", "some", "none")


def _has_long_run(text: str) -> bool:
    return len(text) >= MIN_LETTERS and any(len(match[0]) >= MIN_LETTERS for match in _RUN.finditer(text))
