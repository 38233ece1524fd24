"""From a file to a card: JSON, or a PNG with JSON in it. Lenient: what does not fit is left out or filled in."""

import base64
import binascii
import json
import zlib
from typing import Any

from yral_chat.core.errors import Invalid, PayloadTooLarge, UnsupportedMedia
from yral_chat.services.cards.shapes import MAX_CARD_BYTES, MAX_VALUES, Json, Unusable, card_data, storable
from yral_chat.services.media.damage import Damaged
from yral_chat.services.media.images import png

ALLOWED_TYPES = ["application/json", "image/png"]
# The newer version first.
KEYWORDS = ("ccv3", "chara")
# Version 1 has no other mark than these: at least one of them, beside a name.
_V1_FIELDS = ("personality", "scenario", "first_mes", "mes_example")


def read_card(data: bytes) -> Json:
    """The data of a card, in the shape of version 3. Raises UnsupportedMedia, PayloadTooLarge, Invalid."""
    if data.startswith(png.MAGIC):
        return _read_png(data)
    try:
        document = _decode(data)
    except ValueError as error:
        if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
            raise _no_card("The JSON cannot be read") from error
        raise UnsupportedMedia("A card is JSON or a PNG", details={"allowed": ALLOWED_TYPES}) from error
    return _card_of(document)


def is_png(data: bytes) -> bool:
    return data.startswith(png.MAGIC)


def _read_png(data: bytes) -> Json:
    try:
        found = _texts(data)
    except Damaged as error:
        raise _no_card("The PNG is damaged or incomplete") from error
    refusal = _no_card("There is no card in the PNG")
    for keyword in KEYWORDS:
        if keyword in found:
            try:
                return _card_of(_decode(_unpacked(_text_of(*found[keyword]))))
            except (ValueError, Damaged):
                refusal = _no_card("The card in the PNG cannot be read")
            except Invalid as error:
                refusal = error
    raise refusal


def _texts(data: bytes) -> dict[str, tuple[bytes, bytes]]:
    """The kind and the body, still packed, of the first text chunk of each keyword (W3C PNG, third edition, section
    11.3.3). Raises Damaged."""
    found: dict[str, tuple[bytes, bytes]] = {}
    for name, body in png.chunks(data):
        if name in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, _, rest = body.partition(b"\0")
            found.setdefault(keyword.decode("latin-1").lower(), (name, rest))
    return found


def _text_of(name: bytes, body: bytes) -> bytes:
    if name == b"tEXt":
        return body
    if name == b"zTXt":
        return _inflated(body[1:])
    is_compressed = body[:1] == b"\1"
    text = body[2:].split(b"\0", 2)[-1]  # behind a language and a translated keyword
    return _inflated(text) if is_compressed else text


def _inflated(body: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(body, MAX_CARD_BYTES)
    except zlib.error as error:
        raise Damaged("a text that cannot be decompressed") from error
    if stream.unconsumed_tail:
        raise PayloadTooLarge("The card in the PNG is too large", details={"limit": MAX_CARD_BYTES, "unit": "bytes"})
    return text


def _unpacked(body: bytes) -> bytes:
    """The JSON in a text chunk: base64, but some programs leave it as it is."""
    if body.lstrip()[:1] == b"{":
        return body
    try:
        compact = b"".join(body.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _decode(data: bytes) -> Any:
    """Any JSON. Raises ValueError."""
    # More than there are: those inside of texts are counted too.
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise ValueError("too many values")
    try:
        return storable(json.loads(data.removeprefix(b"\xef\xbb\xbf")))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _card_of(document: Any) -> Json:
    """Raises Invalid for JSON that is something else."""
    if not isinstance(document, dict):
        raise _no_card("The JSON is no card")
    data = document.get("data")
    is_v1 = isinstance(document.get("name"), str) and any(field in document for field in _V1_FIELDS)
    if not isinstance(data, dict):
        if not is_v1:
            raise _no_card("The JSON is no card")
        data = document
    try:
        card: Json = card_data(data)
    except Unusable as error:
        raise _no_card("The JSON is no card") from error
    if not card["name"].strip():
        raise _no_card("The card has no name")
    return card


def _no_card(message: str) -> Invalid:
    return Invalid.field(["body", "file"], message, "card_invalid")
