"""Text as plain words: one form for what looks alike, and the readings of what was disguised."""

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

# Scripts without spaces between words: each character counts as a word (kana, Han, Thai, Lao, Myanmar, Khmer).
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Spaces, punctuation, symbols and pictures; apostrophes stand inside words, and invisible characters too.
SEPARATORS = (
    r"\s\x00-\x26\x28-/:-@\[-`{-\xa9\xab\xac\xae-\xb1\xb4\xb6-\xb8\xbb-\xbf\xd7\xf7\u2010-\u2017\u201a-\u2029\u2030-\u205f"
    "\u2190-\u2bff\u3000-\u303f\u0964\u0965\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\U0001f000-\U0001faff"
)
LETTERS = re.compile(rf"[^{SEPARATORS}{UNSPACED}]+")
TOKEN = re.compile(rf"[{UNSPACED}]|{LETTERS.pattern}")

# Letters of other scripts that people take for these (a small part of https://www.unicode.org/reports/tr39/).
_LOOKALIKES = {
    **dict(zip("авекмнорстухѕіјԁԛԝһ", "abekmhopctyxsijdqwh", strict=True)),
    **dict(zip("αβεικνορτυχγηω", "abeiknoptuxynw", strict=True)),
    **dict(zip("ıɡɑʟɪꜱᴀᴄᴅᴇᴊᴋᴍɴᴏᴘᴛᴜᴠᴡᴢʙɢʜʀ", "igalisacdejkmnoptuvwzbghr", strict=True)),
}
# Invisible characters, accents, the nukta, variation selectors and apostrophes.
_DROPPED = (
    *range(0x0300, 0x0370), 0x093C, 0x00AD, 0x034F, 0x061C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F),
    *range(0x2060, 0x2070), 0xFEFF, *range(0xFE00, 0xFE10), ord("'"), 0x2018, 0x2019, 0x02BC,
    *range(0xE0100, 0xE01F0),
)  # fmt: skip
_PLAIN = {**{ord(letter): plain for letter, plain in _LOOKALIKES.items()}, **dict.fromkeys(_DROPPED, None)}


# Characters whose form is kept: more than any language has in use, and less than a stranger could send.
KEPT_CHARACTERS = 10_000


class _Kept(dict[int, str]):
    """Forms of characters, each worked out when it comes for the first time."""

    def __missing__(self, code: int) -> str:
        if len(self) >= KEPT_CHARACTERS:
            self.clear()
        form = self[code] = self._form(chr(code))
        return form

    def _form(self, letter: str) -> str:
        raise NotImplementedError


class _Letters(_Kept):
    """What each character becomes in a word."""

    def _form(self, letter: str) -> str:
        folded = unicodedata.normalize("NFKC", letter).casefold()
        return unicodedata.normalize("NFKD", folded).translate(_PLAIN)


class _Divided(_Kept):
    """The same, with line breaks for what stands in no word and around what is a word by itself."""

    def _form(self, letter: str) -> str:
        if TOKEN.match(letter) is None:
            return "\n"
        form = _LETTERS[ord(letter)]
        return form if LETTERS.match(letter) else f"\n{form}\n"


_LETTERS = _Letters()
_DIVIDED = _Divided()
# The same for ASCII; apostrophes go before.
_DIVIDED_ASCII = "".join(_DIVIDED[code] or "'" for code in range(128)).encode("ascii").ljust(256)

_LEET = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s", "|": "l"})
_LEET_WORD = re.compile(r"(?=[\w@$|]*[^\W\d_])(?=[\w@$|]*[0134579@$|])[\w@$|]+")
_LONG_LETTER = re.compile(r"([^\W\d_])\1{2,}")
_SPELLED = re.compile(r"(?<![^\W_])[^\W_]([ .,\-_*/|~+])(?:[^\W_]\1){2,}[^\W_](?![^\W_])")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}[ :]?){8,}")
_TAGS = re.compile("[\U000e0020-\U000e007e]+")

# A reading inside a reading, and no further.
MAX_DEPTH = 2
# Longer texts are not read backwards or rotated: nobody writes so much that way.
MAX_TURNED = 1000


def normalise(token: str) -> str:
    """One word in the form in which words are compared; "" when nothing of it is left.

    >>> normalise("CAFÉ's")
    'cafes'
    """
    if token.isascii():
        return token.lower().replace("'", "")
    return _in_order(token.translate(_LETTERS))


def words(text: str) -> list[str]:
    """The words of a text, normalised.

    >>> words("Ｄоn't re\u200bveal ÁLL!")
    ['dont', 'reveal', 'all']
    """
    if text.isascii():
        return text.encode("ascii").translate(_DIVIDED_ASCII, b"'").decode("ascii").split()
    return [word for word in _in_order(text.translate(_DIVIDED)).split("\n") if word]


def _in_order(plain: str) -> str:
    """The accents that were not dropped in the order of Unicode."""
    return plain if plain.isascii() else unicodedata.normalize("NFD", plain)


def readings(text: str, depth: int = 0) -> Iterator[list[str]]:
    """The text as words, and as whatever words it may have been before somebody disguised it."""
    yield words(text)
    for changed in _undisguised(text):
        yield words(changed)
    if depth < MAX_DEPTH:
        for decoded in _decoded(text):
            yield from readings(decoded, depth + 1)


def _undisguised(text: str) -> Iterator[str]:
    if _LEET_WORD.search(text):
        yield text.translate(_LEET)
    if _LONG_LETTER.search(text):
        yield _LONG_LETTER.sub(r"\1", text)
        yield _LONG_LETTER.sub(r"\1\1", text)
    composed = text if text.isascii() else unicodedata.normalize("NFKC", text)
    if (spelled := _SPELLED.search(composed)) is not None:
        yield _join_letters(composed, spelled[1])
    if len(text) <= MAX_TURNED:
        yield text[::-1]
        yield codecs.encode(text, "rot13")


def _join_letters(text: str, between: str) -> str:
    """`k.i.l.l m.e` is `kill me`: what stands between single letters goes."""
    return re.sub(rf"(?<![^\W_][^\W_])(?<=[^\W_]){re.escape(between)}(?=[^\W_](?![^\W_]))", "", text)


def _decoded(text: str) -> Iterator[str]:
    for match in _ENCODED.finditer(text):
        yield from _if_text(_from_base64(match[0]))
    for match in _HEX.finditer(text):
        yield from _if_text(bytes.fromhex(match[0].replace(":", " ").strip()))
    if "%" in text and (plain := unquote(text)) != text:
        yield plain
    if "&" in text and (plain := html.unescape(text)) != text:
        yield plain
    if "\\u" in text or "\\x" in text:
        yield re.sub(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})", lambda m: chr(int(m[1] or m[2], 16)), text)
    if tags := "".join(_TAGS.findall(text)):
        yield "".join(chr(ord(letter) - 0xE0000) for letter in tags)


def _from_base64(text: str) -> bytes:
    standard = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(standard[: len(standard) - (len(standard) % 4 == 1)] + "=" * (-len(standard) % 4))
    except binascii.Error:
        return b""


def _if_text(data: bytes) -> Iterator[str]:
    """What the bytes say, when they say something."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    if len(text) >= 6 and text.isprintable():
        yield text
