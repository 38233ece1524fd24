"""JPEG files, segment by segment (ITU-T T.81, annex B).

Cleaning keeps the compressed picture as it is, so that nothing is lost. What a decoder skips inside the compressed data
itself cannot be told from picture without decoding, and stays.
"""

import re
from collections.abc import Iterable, Iterator

from yral_chat.services.media.damage import Damaged
from yral_chat.services.media.images.colour_profiles import slim_profile
from yral_chat.services.media.images.containers import Container
from yral_chat.services.media.images.exif import UPRIGHT, read_orientation
from yral_chat.services.media.images.pixel_budget import PixelBudget

MAGIC = b"\xff\xd8\xff"
START, END, SCAN = 0xD8, 0xD9, 0xDA
FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended sequential, progressive: what browsers show
TABLES = {0xC4, 0xDB, 0xDD}  # Huffman, quantisation, restart interval
OTHER_FRAMES = set(range(0xC0, 0xD0)) - FRAMES - TABLES
JFIF, EXIF, PROFILE, ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
# Every scan walks over all blocks again, however few bytes it has; encoders write about ten.
MAX_SCANS = 64
MAX_SEGMENTS = 5000
PROFILE_NAME = b"ICC_PROFILE\0"
PROFILE_PIECE = 65_519  # what a segment holds beside its length, the name and two numbers
# Densities and thumbnails are left out; that there is such a segment says how the colours are coded.
JFIF_SEGMENT = b"\xff\xe0\x00\x10JFIF\0\x01\x01\x00\x00\x01\x00\x01\x00\x00"

NEXT_MARKER = re.compile(rb"\xff([^\x00\xff])")
SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def read_jpeg(data: bytes, budget: PixelBudget) -> Container:
    """Raises Damaged, and PayloadTooLarge from the frame header on."""
    size: tuple[int, int] | None = None
    orientation, scans, is_progressive = UPRIGHT, 0, False
    head: dict[int, bytes] = {}
    pieces: dict[int, bytes] = {}
    picture: list[bytes] = []
    for marker, body, whole in _segments(data):
        if marker in FRAMES:
            if size:
                raise Damaged("two frames")
            size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
            budget.check(*size)
            is_progressive = marker == 0xC2
        if marker in FRAMES or marker in TABLES or marker == SCAN:
            scans += marker == SCAN
            picture.append(whole)
        elif marker == EXIF and body.startswith(b"Exif\0\0") and orientation == UPRIGHT:
            orientation = read_orientation(body)
        elif marker == PROFILE and body.startswith(PROFILE_NAME) and len(body) > 14:
            pieces[body[12]] = body[14:]
        elif marker == JFIF and body.startswith(b"JFIF\0"):
            head[JFIF] = JFIF_SEGMENT
        elif marker == ADOBE and body.startswith(b"Adobe") and len(body) >= 12:
            head[ADOBE] = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + body[11:12]  # how the colours are coded
        elif marker in OTHER_FRAMES:
            raise Damaged("a way of coding that browsers do not know")
        if scans > MAX_SCANS:
            raise Damaged("too many scans")
    if size is None or not scans:
        raise Damaged("no picture")
    colours = [head[marker] for marker in (JFIF, ADOBE) if marker in head]
    return Container(
        width=size[0],
        height=size[1],
        parts=[b"\xff\xd8", *colours, *_profile_segments(pieces), *picture, b"\xff\xd9"],
        orientation=orientation,
        is_buffered=is_progressive or scans > 1,
    )


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, body without the length, and all bytes (of a scan: with its compressed data). Ends at the end marker."""
    position = 2
    for _ in range(MAX_SEGMENTS):
        found = NEXT_MARKER.search(data, position)
        if not found:
            raise Damaged("no end of the picture")
        marker, start = found[1][0], found.end()
        if marker == END:
            return
        if marker == START:
            raise Damaged("a picture in a picture")
        if 0xD0 <= marker <= 0xD7 or marker == 0x01:
            position = start  # these have no body, and no meaning outside of a scan
            continue
        position = end = start + int.from_bytes(data[start : start + 2], "big")
        if end < start + 2 or end > len(data):
            raise Damaged("a segment beyond the end")
        if marker == SCAN:
            after = SCAN_END.search(data, end)
            if not after:
                raise Damaged("no end of the picture")
            position = after.start()
        yield marker, data[start + 2 : end], data[found.start() : position]
    raise Damaged("too many segments")


def _profile_segments(pieces: dict[int, bytes]) -> Iterable[bytes]:
    profile = slim_profile(b"".join(piece for _, piece in sorted(pieces.items()))) or b""
    parts = [profile[start : start + PROFILE_PIECE] for start in range(0, len(profile), PROFILE_PIECE)]
    for number, part in enumerate(parts, 1):
        body = PROFILE_NAME + bytes([number, len(parts)]) + part
        yield b"\xff\xe2" + (len(body) + 2).to_bytes(2, "big") + body
