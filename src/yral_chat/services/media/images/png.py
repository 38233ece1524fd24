"""PNG files, chunk by chunk (W3C PNG, third edition, sections 5 and 11)."""

import zlib
from collections.abc import Iterable, Iterator

from yral_chat.services.media.damage import Damaged
from yral_chat.services.media.images.colour_profiles import MAX_BYTES, slim_profile
from yral_chat.services.media.images.containers import Container
from yral_chat.services.media.images.exif import UPRIGHT, read_orientation
from yral_chat.services.media.images.pixel_budget import PixelBudget

MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_DIMENSION = 2**31 - 1
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# What else says how the picture looks, with the most bytes that each can have.
LOOKS = {b"PLTE": 768, b"tRNS": 256, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}
# Adam7: where each pass begins and how far apart its pixels are, both as (x, y).
PASSES = (
    ((0, 0), (8, 8)),
    ((4, 0), (8, 8)),
    ((0, 4), (4, 8)),
    ((2, 0), (4, 4)),
    ((0, 2), (2, 4)),
    ((1, 0), (2, 2)),
    ((0, 1), (1, 2)),
)
BLOCK = 65_536


def read_png(data: bytes, budget: PixelBudget) -> Container:
    """Raises Damaged, and PayloadTooLarge from the header on. An animation becomes its still picture."""
    header = data[16:29]
    if len(header) < 13 or data[12:16] != b"IHDR" or header[9] not in CHANNELS or header[12] > 1:
        raise Damaged("no header")
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    budget.check(width, height)
    orientation = UPRIGHT
    before: list[bytes] = []
    pixels: list[bytes] = []
    for name, body in chunks(data):
        if name == b"IDAT":
            pixels.append(body)
        elif name == b"IHDR" or (name in LOOKS and len(body) <= LOOKS[name]):
            before.append(chunk(name, body))
        elif name == b"iCCP":
            before.extend(_profile_chunk(body))
        elif name == b"eXIf":
            orientation = read_orientation(body)
        elif not name[0] & 0x20:
            raise Damaged("a chunk that must be understood")
    return Container(
        width=width,
        height=height,
        parts=_parts(before, pixels, _stream_bytes(width, height, header)),
        orientation=orientation,
    )


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each chunk before the one that ends the picture."""
    position = len(MAGIC)
    while True:
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        name, body = data[position + 4 : position + 8], data[position + 8 : end - 4]
        if len(name) < 4 or end > len(data):
            raise Damaged("no end of the picture")
        if zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(data[end - 4 : end], "big"):
            raise Damaged("a wrong checksum")
        if name == b"IEND":
            return
        yield name, body
        position = end


def chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(name))
    return len(body).to_bytes(4, "big") + name + body + checksum.to_bytes(4, "big")


def _profile_chunk(body: bytes) -> list[bytes]:
    compressed = body.partition(b"\0")[2][1:]
    try:
        profile = slim_profile(zlib.decompressobj().decompress(compressed, MAX_BYTES))
    except zlib.error:
        return []
    return [chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile))] if profile else []


def _stream_bytes(width: int, height: int, header: bytes) -> int:
    """Bytes of all rows, each with the number of its filter, as they are before compression."""
    bits = header[8] * CHANNELS[header[9]]
    passes = PASSES if header[12] else (((0, 0), (1, 1)),)
    total = 0
    for (left, top), (across, down) in passes:
        columns, rows = -((left - width) // across), -((top - height) // down)
        total += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    return total


def _parts(before: list[bytes], pixels: Iterable[bytes], stream_bytes: int) -> Iterator[bytes]:
    yield MAGIC
    yield from before
    for body in _without_tail(pixels, stream_bytes):
        yield chunk(b"IDAT", body)
    yield chunk(b"IEND", b"")


def _without_tail(pixels: Iterable[bytes], stream_bytes: int) -> Iterator[bytes]:
    """The compressed stream up to its end. Raises Damaged when it does not hold exactly the picture."""
    stream, produced = zlib.decompressobj(), 0
    for body in pixels:
        waiting = body
        while waiting and not stream.eof and produced <= stream_bytes:
            produced += len(_inflated(stream, waiting))
            waiting = stream.unconsumed_tail
        yield body[: len(body) - len(stream.unused_data)] if stream.eof else body
        if stream.eof:
            break
    while not stream.eof and (rest := _inflated(stream, stream.unconsumed_tail)) and produced <= stream_bytes:
        produced += len(rest)
    if not stream.eof or produced != stream_bytes:
        raise Damaged("not as many pixels as the header says")


def _inflated(stream: "zlib._Decompress", compressed: bytes) -> bytes:
    try:
        return stream.decompress(compressed, BLOCK)
    except zlib.error as error:
        raise Damaged("pixels that cannot be decompressed") from error
