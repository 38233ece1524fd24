"""WebP files, chunk by chunk (RFC 9649, sections 2 and 3)."""

import struct
from collections.abc import Iterator

from yral_chat.services.media.damage import Damaged
from yral_chat.services.media.images.colour_profiles import slim_profile
from yral_chat.services.media.images.containers import Container
from yral_chat.services.media.images.exif import UPRIGHT, read_orientation
from yral_chat.services.media.images.pixel_budget import PixelBudget

PROFILE_FLAG, ALPHA_FLAG, ANIMATION_FLAG = 0x20, 0x10, 0x02
BITSTREAMS = {b"VP8 ", b"VP8L"}
MAX_CHUNKS = 20_000


def is_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_webp(data: bytes, budget: PixelBudget) -> Container:
    """Raises Damaged, and PayloadTooLarge at the first frame that is too many."""
    if data[12:16] in BITSTREAMS:
        # Not to the end: a picture that is both too large and cut off is too large.
        budget.check(*_dimensions(data[12:16], data[20:30]))
    elif data[12:16] == b"VP8X":
        budget.check(*_canvas(data[20:30]))
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise Damaged("no end of the picture")
    chunks = _chunks(data, 12, end)
    name, body = next(chunks, (b"", b""))
    if name == b"VP8X":
        return _extended(body, chunks, budget)
    if name not in BITSTREAMS:
        raise Damaged("no picture")
    width, height = _dimensions(name, body)
    has_alpha = name == b"VP8L" and bool(body[4] & 0x10)
    return Container(width=width, height=height, parts=_file([_chunk(name, body)]), has_alpha=has_alpha)


def _extended(header: bytes, chunks: Iterator[tuple[bytes, bytes]], budget: PixelBudget) -> Container:
    width, height = _canvas(header)
    flags, frames, orientation = header[0] & (ALPHA_FLAG | ANIMATION_FLAG), 0, UPRIGHT
    is_animated = bool(flags & ANIMATION_FLAG)
    kept: dict[bytes, bytes] = {}
    profile: bytes | None = None
    pictures: list[bytes] = []
    for name, body in chunks:
        if name == b"ANMF" and is_animated:
            frames += 1
            budget.check(width, height, frames)
            pictures.append(_chunk(name, _frame(body, width, height)))
        elif name == b"ANIM" and is_animated:
            kept[name] = _chunk(name, body[:6])
        elif name == b"ALPH" and not is_animated and not pictures:
            kept[name] = _chunk(name, body)
        elif name in BITSTREAMS and not is_animated and not pictures:
            pictures.append(_picture(name, body, (width, height)))
            if name == b"VP8L":
                kept.pop(b"ALPH", None)  # has its own, and this one paints nothing
        elif name == b"ICCP" and (profile := slim_profile(body)):
            flags |= PROFILE_FLAG
            kept[name] = _chunk(name, profile)
        elif name == b"EXIF" and not is_animated:
            orientation = read_orientation(body)
    if not pictures:
        raise Damaged("no picture")
    head = _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + header[4:10])
    parts = [head, *(kept[name] for name in (b"ICCP", b"ANIM", b"ALPH") if name in kept), *pictures]
    return Container(
        width=width,
        height=height,
        parts=_file(parts),
        frames=frames or 1,
        orientation=orientation,
        has_alpha=bool(flags & ALPHA_FLAG),
        profile=profile,
    )


def _chunks(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    for _ in range(MAX_CHUNKS):
        if position + 8 > end:
            return
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        if position + 8 + size > end:
            raise Damaged("a chunk beyond the end")
        yield data[position : position + 4], data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2
    raise Damaged("too many chunks")


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2)


def _file(chunks: list[bytes]) -> list[bytes]:
    size = 4 + sum(map(len, chunks))
    return [b"RIFF" + size.to_bytes(4, "little") + b"WEBP", *chunks]


def _frame(body: bytes, width: int, height: int) -> bytes:
    """One frame of an animation, without chunks that paint nothing."""
    if len(body) < 16:
        raise Damaged("a frame without its header")
    left, top, across, down = (int.from_bytes(body[at : at + 3], "little") for at in (0, 3, 6, 9))
    if 2 * left + across + 1 > width or 2 * top + down + 1 > height:
        raise Damaged("a frame beyond the canvas")
    alpha = b""
    for name, inner in _chunks(body, 16, len(body)):
        if name == b"ALPH":
            alpha = _chunk(name, inner)
        elif name in BITSTREAMS:
            picture = _picture(name, inner, (across + 1, down + 1))
            return body[:15] + bytes([body[15] & 3]) + (alpha if name == b"VP8 " else b"") + picture
    raise Damaged("a frame without a picture")


def _picture(name: bytes, body: bytes, expected: tuple[int, int]) -> bytes:
    if _dimensions(name, body) != expected:
        raise Damaged("a picture of another size than its frame")
    return _chunk(name, body)


def _canvas(header: bytes) -> tuple[int, int]:
    if len(header) < 10:
        raise Damaged("no header")
    return int.from_bytes(header[4:7], "little") + 1, int.from_bytes(header[7:10], "little") + 1


def _dimensions(name: bytes, body: bytes) -> tuple[int, int]:
    """Width and height of the bitstream itself (RFC 6386 section 9.1; RFC 9649 section 3.4)."""
    if name == b"VP8 " and len(body) >= 10 and body[3:6] == b"\x9d\x01\x2a" and not body[0] & 1:
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    if name == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise Damaged("no picture")
