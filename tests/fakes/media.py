"""Media as it travels to and from the fake vendors."""

from binascii import Error, a2b_base64
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from typing import Any
from zlib import crc32

from PIL import Image

from tests.fakes.behaviour import Media

MAX_RECORDED_CHARACTERS = 64 * 1024


@lru_cache(maxsize=64)
def sample_picture(prompt: str = "", kind: str = "PNG") -> bytes:
    """A small picture whose colour tells for which prompt it was made."""
    out = BytesIO()
    Image.new("RGB", (64, 64), crc32(prompt.encode()) & 0xFFFFFF).save(out, kind)
    return out.getvalue()


def decoded(text: str) -> bytes | None:
    """Standard base64 with its padding; None when it is none."""
    try:
        return a2b_base64(text, strict_mode=True)
    except (Error, ValueError):
        return None


def parse_data_url(url: str) -> tuple[str, bytes] | None:
    head, comma, encoded = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return None
    data = decoded(encoded)
    return None if data is None else (head.removeprefix("data:").removesuffix(";base64"), data)


def kind_of(data: bytes) -> str | None:
    """The type of a picture by its first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    heads = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
    return next((kind for head, kind in heads.items() if data.startswith(head)), None)


def media_in(body: Any) -> Iterator[tuple[str, bytes]]:
    """(type, bytes) of everything that any of the wires carries inside a JSON body, in its order."""
    if isinstance(body, dict):
        mime_type = body.get("mimeType") or body.get("mime_type")
        if isinstance(text := body.get("data"), str) and mime_type:
            yield str(mime_type), decoded(text.replace("-", "+").replace("_", "/")) or b""
        for value in body.values():
            yield from media_in(value)
    elif isinstance(body, list):
        for value in body:
            yield from media_in(value)
    elif isinstance(body, str) and body.startswith("data:") and (parsed := parse_data_url(body)) is not None:
        yield parsed


def described(mime_type: str, data: bytes) -> Media:
    return Media(mime_type, len(data), sha256(data).hexdigest())


def shortened(body: Any) -> Any:
    """The same without what would fill the memory of a long run."""
    if isinstance(body, dict):
        return {name: shortened(value) for name, value in body.items()}
    if isinstance(body, list):
        return [shortened(value) for value in body]
    if isinstance(body, str) and len(body) > MAX_RECORDED_CHARACTERS:
        return f"{body[:100]}… ({len(body)} characters)"
    return body
