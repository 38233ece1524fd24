"""Reads what a text says in base64 or hexadecimal while the text is written."""

import codecs
import re
from binascii import a2b_base64
from collections.abc import Callable
from typing import Literal, Protocol

# Words of the instructions that stand at the end of the text so far: few (`none`), a third of a leak (`some`), two
# thirds (`many`), or all of one.
Level = Literal["none", "some", "many", "leak"]

# Letters in one piece before they are taken for an encoding: longer than ordinary words, shorter than four words in
# base64.
MIN_LETTERS = 24
# Hexadecimal digits in a row, all large or all small, after which more of them are no base64: nothing can be said in
# such letters, while zeros between words (`AAAA`) are in a row with words.
MAX_DIGITS = 32

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_RUN = re.compile(r"[A-Za-z0-9+/_-]+")
_URL_SAFE = str.maketrans("-_", "+/")
_PAIRS = re.compile("((?:[0-9A-Fa-f]{2})+)|(?:(?![0-9A-Fa-f]{2})..)+")
_SMALL_DIGITS = "0123456789abcdef"
_LARGE_DIGITS = _SMALL_DIGITS.upper()
_WORST_FIRST: tuple[Level, ...] = ("leak", "many", "some")


class Reader(Protocol):
    """Takes the decoded text."""

    level: Level

    def feed(self, text: str) -> Level: ...

    def end(self) -> Level: ...


class _Decoder:
    """Decodes groups of letters, beginning at the letter number `offset`."""

    __slots__ = ("_bytes", "_decode", "_size", "_skip", "_waiting", "reader")

    def __init__(self, reader: Reader, size: int, offset: int) -> None:
        self.reader = reader
        self._size = size  # letters in a group: 4 for base64, 2 for hexadecimal
        self._decode = a2b_base64 if size == 4 else _from_hexadecimal
        self._skip = offset
        self._waiting = ""
        self._bytes = b""  # the beginning of a character

    def feed(self, letters: str) -> None:
        if self._skip:
            skipped = min(self._skip, len(letters))
            self._skip -= skipped
            letters = letters[skipped:]
        letters = self._waiting + letters
        size = len(letters) % self._size
        self._waiting = letters[-size:] if size else ""
        if len(letters) > size:
            self._read(letters[:-size] if size else letters)

    def end(self) -> None:
        """No more letters come; a group that is not full says something too."""
        if self._size == 4 and len(self._waiting) > 1:
            self._read(self._waiting + "=" * (4 - len(self._waiting)))
        self._waiting = ""
        self.reader.end()

    def _read(self, letters: str) -> None:
        data = self._bytes + self._decode(letters)
        text, used = codecs.utf_8_decode(data, "replace")
        self._bytes = data[used:]
        # What is no text divides words: so most of what was read at the wrong letter costs next to nothing.
        self.reader.feed(text.replace("\ufffd", " "))


def _from_hexadecimal(letters: str) -> bytes:
    try:
        return bytes.fromhex(letters)
    except ValueError:  # pairs that are none divide words: 0xff never stands in UTF-8
        return bytes.fromhex(_PAIRS.sub(lambda pairs: pairs[1] or "ff", letters))


class Decoders:
    """Reads every long run of letters in all ways in which it may be encoded; spaces and line breaks may divide it."""

    def __init__(self, make_reader: Callable[[], Reader]) -> None:
        self._make_reader = make_reader
        self._tail = ""  # the beginning of what may become a long run
        self._decoders: list[_Decoder] = []
        self._unread = ""
        self._row = ""  # the last letters, as many as MAX_DIGITS

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
            self._row = ""
            return level
        return "none"

    def _decode(self, run: str) -> None:
        if not self._decoders:
            readings = [(4, 0), (4, 1), (4, 2), (4, 3), (2, 0), (2, 1)]
            self._decoders = [_Decoder(self._make_reader(), size, offset) for size, offset in readings]
        for decoder in self._decoders[4:]:
            decoder.feed(run)
        self._unread += run.translate(_URL_SAFE)
        row, is_long = self._row + run, len(self._row) == MAX_DIGITS
        self._row = row[-MAX_DIGITS:]
        if is_long and not (row.strip(_SMALL_DIGITS) and row.strip(_LARGE_DIGITS)):
            self._unread = self._unread[max(0, len(self._unread) - MAX_DIGITS) // 4 * 4 :]
        else:
            self._read_base64()

    def _read_base64(self) -> None:
        for decoder in self._decoders[:4]:
            decoder.feed(self._unread)
        self._unread = ""

    def end(self) -> Level:
        """The text ends here."""
        self._read_base64()
        for decoder in self._decoders:
            decoder.end()
        return self._level()

    def _level(self) -> Level:
        levels = [decoder.reader.level for decoder in self._decoders]
        return next((level for level in _WORST_FIRST if level in levels), "none")


def _has_long_run(text: str) -> bool:
    return len(text) >= MIN_LETTERS and any(len(match[0]) >= MIN_LETTERS for match in _RUN.finditer(text))
